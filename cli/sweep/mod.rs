//! Sweeps: a plan's `[sweep]` table names flags and the values that each shall take; `compare` runs every combination.

mod axes;
mod run;

pub use axes::{Case, Sweep};
pub use run::run;

/// The file beside the comparisons' folders that says what each found.
pub const INDEX: &str = "sweep.json";
/// The file beside it with the plan, as it was when the sweep began.
pub const PLAN: &str = "sweep.plan.toml";
