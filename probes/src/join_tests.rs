//! Tests of join.
