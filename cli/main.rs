//! The `tokenlag` command.
fn main() {}
