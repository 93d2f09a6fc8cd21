//! Tests of cell.
