//! The labels of what Prometheus is told: each has few values.

use prometheus_client::encoding::EncodeLabelSet;
use tokenlag_probes::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfChannel {
    pub(crate) channel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Ended {
    pub(crate) channel: String,
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refused {
    pub(crate) door: &'static str,
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TunnelEnd {
    pub(crate) end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfDoor {
    pub(crate) door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfTrace {
    pub(crate) trace_id: String,
}

impl Ended {
    /// An exchange of that channel that ended so.
    pub(crate) fn so(channel: &str, outcome: Outcome) -> Self {
        Self {
            channel: channel.to_owned(),
            outcome: outcome_name(outcome),
        }
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Truncated => "truncated",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed(kind) => kind.name(),
    }
}
