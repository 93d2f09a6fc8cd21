//! The verdict: when a run's figures must not be trusted, why, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::record::RunRecord;
use crate::report::Recorders;

/// One reason not to trust a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable, for scripts: `few_blocks`, `dispatch_lag`.
    pub code: String,
    /// What was found, with the figure.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Whether a run's figures may be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// There is no warning.
    pub trusted: bool,
    /// The reasons why not.
    pub warnings: Vec<Warning>,
}

impl Verdict {
    /// Looks for every reason that the record and the merged recorders can show; the caller's own warnings come last.
    pub fn reach(record: &RunRecord, recorders: &Recorders) -> Verdict {
        let mut warnings = crate::suspicions::all(record, recorders);
        warnings.extend(record.warnings.iter().cloned());
        Verdict {
            trusted: warnings.is_empty(),
            warnings,
        }
    }
}
