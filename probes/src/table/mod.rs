//! A report as text for people: the tables of `compare` and `load`, the sentence and the verdict below them.

mod carried;
mod change_cell;
mod compare;
mod conditions;
mod floor;
mod grid;
mod lateness;
mod legs;
mod link;
mod load;
mod notes;
mod precision;
mod price;
mod quantity;
mod savings;
mod sentence;
mod sweep;
mod turns;
mod waiting;
mod wrap;

pub use compare::compare;
pub use load::load;
pub use sentence::sentence;
pub use sweep::sweep;
pub use turns::turns;

use crate::verdict::Verdict;

/// How tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal. Tables never take more than 100, and need 80.
    pub width: usize,
    /// Colour changes by ANSI escapes. The caller respects `NO_COLOR` and terminals that are none.
    pub colour: bool,
    /// The legs of the first token and the overheads beyond the floor have tables of their own. They have them anyway where the
    /// link is emulated.
    pub legs: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            width: 100,
            colour: false,
            legs: false,
        }
    }
}

/// Tables never take more columns than this.
const WIDEST: usize = 100;

impl Style {
    fn columns(&self) -> usize {
        self.width.min(WIDEST)
    }
}

/// The verdict in lines: one where the run may be trusted, else each warning with its remedy.
pub fn verdict(verdict: &Verdict, style: Style) -> String {
    if verdict.trusted {
        return "Verdict: nothing was found that speaks against these figures.\n".to_owned();
    }
    let mut text = String::from("Verdict: these figures must not be trusted.\n");
    for warning in &verdict.warnings {
        let found = format!("  {}: {}", warning.code, warning.message);
        let remedy = format!("    -> {}", warning.remedy);
        text.push_str(&wrap::wrapped(&found, style.columns(), "    "));
        text.push_str(&wrap::wrapped(&remedy, style.columns(), "       "));
    }
    text
}

#[cfg(test)]
mod factorial_tests;
#[cfg(test)]
mod floor_tests;
#[cfg(test)]
mod tests;
