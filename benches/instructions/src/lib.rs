//! The pieces of a token's path, each prepared so that it can be run by itself as often as wanted, and the counting of their
//! instructions under valgrind.
//!
//! `benches/pieces.rs` times them, `benches/decoders.rs` and `benches/recording.rs` go into two of them more closely, and
//! `main.rs` beside this folder counts their instructions and compares them with `baseline.json`.

pub mod baseline;
pub mod callgrind;
pub mod compare;
pub mod events;
pub mod exchanges;
mod measured;
pub mod pieces;

pub use baseline::{Baseline, Surroundings};
pub use compare::{Change, compare};
pub use measured::{Measured, NotMeasured, measure};
pub use pieces::{PIECES, Piece};
