//! The names of the derived figures: one list that code, JSON, tables, histogram files and documents share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::{Key, key};

/// The unit of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds.
    #[default]
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("ns")
    }
}

/// A name that no figure has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric '{name}'; known: {}", known_names())]
pub struct UnknownMetric {
    name: String,
}

fn known_names() -> String {
    Metric::ALL.map(Metric::name).join(", ")
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $formula:literal, $description:literal;)+) => {
        /// A derived figure of one exchange, or of one of its deltas. The formulas are those of `docs/metrics.md`.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Metric {
            $(#[doc = $description] #[doc = ""] #[doc = concat!("`", $formula, "`")] $(#[$doc])* $variant,)+
        }

        impl Metric {
            /// Every metric, in the order of the tables.
            pub const ALL: [Metric; [$(Metric::$variant),+].len()] = [$(Metric::$variant),+];

            /// The name in JSON, tables, file names and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name),+ }
            }

            /// The name as a member's of a JSON object.
            pub(crate) const fn key(self) -> Key {
                match self { $(Metric::$variant => key!($name)),+ }
            }

            /// What it says, in one line.
            pub const fn description(self) -> &'static str {
                match self { $(Metric::$variant => $description),+ }
            }

            /// How it is computed from the stamps; deltas count from 1.
            pub const fn formula(self) -> &'static str {
                match self { $(Metric::$variant => $formula),+ }
            }
        }
    };
}

metrics! {
    Ttft, "ttft", "token[1] - intended",
        "Time to first token, from the schedule's moment.";
    TtftDispatched, "ttft_dispatched", "token[1] - dispatched",
        "Time to first token, from the exchange's real start.";
    TtftVisible, "ttft_visible", "token[first content delta] - intended",
        "Time to first visible token, kept apart where reasoning or a tool call came first.";
    Itl, "itl", "token[k] - token[k-1]",
        "Gap between consecutive deltas.";
    Tpot, "tpot", "(token[n] - token[1]) / (usage_tokens - 1)",
        "Mean time per output token after the first.";
    Roundtrip, "roundtrip", "end - intended",
        "Whole exchange, from the schedule's moment.";
    RoundtripDispatched, "roundtrip_dispatched", "end - dispatched",
        "Whole exchange, from its real start.";
    ModelTtft, "model_ttft", "up_token[1] - up_written",
        "The backend's own time to first token, at the proxy's upstream edge.";
    ModelTime, "model_time", "up_end - up_written",
        "The backend's own time for the exchange, at the proxy's upstream edge.";
    FirstTokenOverhead, "first_token_overhead", "(token[1] - dispatched) - model_ttft",
        "What all but the model added to the first token.";
    TokenOverhead, "token_overhead", "token[k] - up_token[k], k >= 2",
        "How late a delta reached the client after it left the backend.";
    RoundtripOverhead, "roundtrip_overhead", "(end - dispatched) - model_time",
        "What all but the model added to the exchange.";
    GapStretch, "gap_stretch", "(token[k] - token[k-1]) - (up_token[k] - up_token[k-1]) >= 0",
        "How far the path spread two deltas.";
    GapBunch, "gap_bunch", "(up_token[k] - up_token[k-1]) - (token[k] - token[k-1]) > 0",
        "How far the path bunched two deltas, as a magnitude.";
    Setup, "setup", "connected - dispatched",
        "Leg of the first token: until the channel could take the request.";
    RequestTransfer, "request_transfer", "in_body - connected",
        "Leg of the first token: the request's way to the proxy.";
    ProxyRequest, "proxy_request", "up_written - in_body",
        "Leg of the first token: the request's time inside the proxy.";
    ProxyToken, "proxy_token", "out_token[1] - up_token[1]",
        "Leg of the first token: the first delta's time inside the proxy.";
    Delivery, "delivery", "token[1] - out_token[1]",
        "Leg of the first token: the first delta's way to the client.";
    DispatchLag, "dispatch_lag", "dispatched - intended",
        "The generator's own lateness; open loop only.";
    Wakeup, "wakeup", "read - receipt",
        "How long what came lay in the kernel until the generator read it, for each read; under --stamp kernel only.";
}

impl Metric {
    /// The legs whose sum, with `model_ttft` among them, is `token[1] - dispatched`.
    pub const LEGS: [Metric; 6] = [
        Metric::Setup,
        Metric::RequestTransfer,
        Metric::ProxyRequest,
        Metric::ModelTtft,
        Metric::ProxyToken,
        Metric::Delivery,
    ];

    /// The figures that a comparison is about.
    pub const OVERHEADS: [Metric; 3] = [
        Metric::FirstTokenOverhead,
        Metric::TokenOverhead,
        Metric::RoundtripOverhead,
    ];

    /// The unit of its values.
    pub const fn unit(self) -> Unit {
        Unit::Nanoseconds
    }

    /// An exchange has a value for each of its deltas, not one.
    pub const fn is_per_delta(self) -> bool {
        matches!(
            self,
            Metric::Itl | Metric::TokenOverhead | Metric::GapStretch | Metric::GapBunch
        )
    }

    /// It is a difference of a stamp of one end and a stamp of the other: where they have clocks of their own, it needs their offset.
    pub const fn is_one_way(self) -> bool {
        matches!(
            self,
            Metric::TokenOverhead | Metric::RequestTransfer | Metric::Delivery
        )
    }

    /// Its place in [`Metric::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, UnknownMetric> {
        Metric::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| UnknownMetric {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_is_the_name_in_json() {
        for (at, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric.name().parse(), Ok(metric));
            assert_eq!(metric.index(), at);
            assert_eq!(
                serde_json::to_value(metric).unwrap(),
                serde_json::Value::from(metric.name())
            );
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = "ttfb".parse::<Metric>().unwrap_err().to_string();
        assert!(
            message.starts_with("unknown metric 'ttfb'; known: ttft, ttft_dispatched"),
            "{message}"
        );
    }

    #[test]
    fn every_name_and_formula_is_documented() {
        let page = include_str!("../../docs/metrics.md").replace("**", "");
        for metric in Metric::ALL {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{metric}` |")));
            let row = row.unwrap_or_else(|| panic!("{metric} has no row"));
            // The two that go by sign are put in words.
            if !matches!(metric, Metric::GapStretch | Metric::GapBunch) {
                let formula = metric.formula().split(", ").next().unwrap();
                assert!(row.contains(formula), "{metric}: {formula}: {row}");
            }
        }
    }
}
