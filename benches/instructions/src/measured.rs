//! From counts of whole runs to the instructions of one round.

use std::collections::BTreeMap;
use std::path::Path;

use crate::callgrind::{CountError, Counting};
use crate::pieces::{PIECES, Piece};

/// Instructions of one round of each piece, by its label.
pub type Measured = BTreeMap<String, f64>;

/// Why a piece has no count.
#[derive(Debug, thiserror::Error)]
#[error("{piece}: {source}")]
pub struct NotMeasured {
    piece: String,
    source: CountError,
}

/// Counts every piece, and tells each as it is there. `program` is to run a piece: its arguments are `--inner`, the piece's label and
/// the number of rounds.
///
/// A piece runs for its rounds and for twice as many: what the process does before and after is in both counts, and not in
/// their difference.
///
/// # Errors
/// No valgrind, or a piece that fails under it.
pub fn measure(program: &Path, mut tell: impl FnMut(&str, f64)) -> Result<Measured, NotMeasured> {
    let mut measured = Measured::new();
    for piece in PIECES {
        let label = piece.label();
        let round = round(program, piece).map_err(|source| NotMeasured {
            piece: label.clone(),
            source,
        })?;
        tell(&label, round);
        measured.insert(label, round);
    }
    Ok(measured)
}

/// Both runs side by side: a count is the same whatever runs beside it.
fn round(program: &Path, piece: &Piece) -> Result<f64, CountError> {
    let start = |rounds: u64| {
        let arguments = ["--inner".to_owned(), piece.label(), rounds.to_string()];
        Counting::start("valgrind", program, arguments)
    };
    let (once, twice) = (start(piece.rounds)?, start(2 * piece.rounds)?);
    // Both are waited for, whatever becomes of the first.
    let (once, twice) = (once.finish(), twice.finish());
    let difference = twice?.saturating_sub(once?);
    // To a tenth: what lies below is no round's own.
    Ok((difference as f64 / piece.rounds as f64 * 10.0).round() / 10.0)
}
