//! Tests of histogram.
