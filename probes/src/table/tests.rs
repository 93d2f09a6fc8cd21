//! Golden files of the tables.
