//! The conditions under which a run is not to be trusted: one function each, a pure look at the record and the histograms.

use crate::record::RunRecord;
use crate::report::Recorders;
use crate::verdict::Warning;

/// Every warning that the record and the recorders give cause for.
pub(crate) fn all(_record: &RunRecord, _recorders: &Recorders) -> Vec<Warning> {
    Vec::new()
}
