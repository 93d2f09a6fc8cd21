//! Tests of figures.
