//! A report as text for people: the tables of `compare` and `load`, the sentence and the verdict below them.

mod compare;
mod grid;
mod load;
mod quantity;
mod sentence;

use std::fmt::Write;

pub use compare::compare;
pub use load::load;
pub use sentence::sentence;

use crate::verdict::Verdict;

/// How tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal. Tables never take more than 100, and need 80.
    pub width: usize,
    /// Colour changes by ANSI escapes. The caller respects `NO_COLOR` and terminals that are none.
    pub colour: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            width: 100,
            colour: false,
        }
    }
}

/// The verdict in lines: one where the run may be trusted, else a line and a remedy for each warning.
pub fn verdict(verdict: &Verdict) -> String {
    if verdict.trusted {
        return "Verdict: nothing was found that speaks against these figures.\n".to_owned();
    }
    let mut text = String::from("Verdict: these figures must not be trusted.\n");
    for warning in &verdict.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}: {}", warning.code, warning.message);
        let _ = writeln!(text, "    -> {}", warning.remedy);
    }
    text
}

#[cfg(test)]
mod tests;
