//! The mean lateness of a row's deltas and its parts, as the report shows them.

use serde::{Deserialize, Serialize};

use crate::lateness::Lateness;
use crate::receipt::StampSource;

/// A part of the lateness that the stamps of a run do not show apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merged {
    /// The time from the kernel's receipt to the read is within the time on the way: the read itself is the stamp.
    WakeupInKernelAndLink,
    /// Of a pair: how long some deltas were in the sidecar beside the load generator is not known, and is within the time on
    /// the way.
    SidecarInKernelAndLink,
}

/// How late a delta is marked after it reached the proxy, in the mean over the second and later deltas, in nanoseconds. The
/// parts add up to `mean_ns`, and those before the wakeup to the mean of `token_overhead` of the same deltas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLateness {
    /// Deltas that it is of.
    pub deltas: u64,
    /// The whole: from the delta's arrival at the proxy to its mark.
    pub mean_ns: f64,
    /// In the proxy, from the upstream's bytes to the write to the client.
    pub proxy_ns: f64,
    /// In a pair: in the sidecar beside the load generator, from the bytes of the one at the backend to the write to the load
    /// generator; `None` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_ns: Option<f64>,
    /// From the write of the proxy at the backend to the load generator's stamp, but for the time in the sidecar: the kernels
    /// and what lies between them.
    pub kernel_and_link_ns: f64,
    /// How far `kernel_and_link_ns`, and `mean_ns` with it, may be off where the ends have two clocks; `None` where the clock is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty_ns: Option<u64>,
    /// From the kernel's receipt to the return of the read; `None` where that is no stamp of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wakeup_ns: Option<f64>,
    /// From the read until the load generator's runtime had come round to the exchange.
    pub poll_ns: f64,
    /// In the decoder.
    pub decode_ns: f64,
    /// What is not shown apart, and within what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Merged>,
    /// Deltas with a `token_overhead` that it is not of: it is not known what became of them once they had come.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl TokenLateness {
    /// `None` where there are no deltas of which it is known what became of them. `is_pair` says whether there is a sidecar beside
    /// the load generator.
    pub(super) fn of(sums: &Lateness, stamps: Option<StampSource>, is_pair: bool) -> Option<Self> {
        // Earlier versions added up deltas of which not all was known.
        if sums.deltas == 0 || sums.handled != sums.deltas {
            return None;
        }
        let mean = |sum: i64| sum as f64 / sums.deltas as f64;
        let by_kernel = stamps == Some(StampSource::Kernel);
        let parts = [
            sums.proxy_ns,
            sums.sidecar_ns,
            sums.way_ns,
            sums.wakeup_ns,
            sums.poll_ns,
            sums.decode_ns,
        ];
        let merged = [
            (!by_kernel, Merged::WakeupInKernelAndLink),
            (
                is_pair && sums.sidecar_unknown > 0,
                Merged::SidecarInKernelAndLink,
            ),
        ];
        let merged = merged.into_iter().filter(|(is_merged, _)| *is_merged);
        let whole = parts
            .iter()
            .fold(0, |sum: i64, &part| sum.saturating_add(part));
        Some(Self {
            deltas: sums.deltas,
            mean_ns: mean(whole),
            proxy_ns: mean(sums.proxy_ns),
            sidecar_ns: (is_pair && sums.sidecar_unknown < sums.deltas)
                .then(|| mean(sums.sidecar_ns)),
            kernel_and_link_ns: mean(sums.way_ns),
            uncertainty_ns: None,
            wakeup_ns: by_kernel.then(|| mean(sums.wakeup_ns)),
            poll_ns: mean(sums.poll_ns),
            decode_ns: mean(sums.decode_ns),
            merged: merged.map(|(_, merged)| merged).collect(),
            left_out: sums.left_out,
        })
    }

    /// The same where the ends have two clocks, known to so many nanoseconds.
    pub(super) fn known_to(self, uncertainty_ns: Option<u64>) -> Self {
        Self {
            uncertainty_ns,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Lateness {
        Lateness {
            deltas: 4,
            proxy_ns: 40_000,
            way_ns: 120_000,
            handled: 4,
            wakeup_ns: 0,
            poll_ns: 8_000,
            decode_ns: 4_000,
            ..Lateness::default()
        }
    }

    #[test]
    fn the_parts_add_up_and_it_says_which_are_merged() {
        let user = TokenLateness::of(&sums(), Some(StampSource::User), false).unwrap();
        assert_eq!(user.mean_ns, 43_000.0);
        assert_eq!(user.wakeup_ns, None);
        let json = serde_json::to_value(&user).unwrap();
        assert_eq!(json["merged"][0], "wakeup_in_kernel_and_link");
        let woken = Lateness {
            wakeup_ns: 20_000,
            ..sums()
        };
        let kernel = TokenLateness::of(&woken, Some(StampSource::Kernel), false).unwrap();
        let parts = [
            kernel.proxy_ns,
            kernel.kernel_and_link_ns,
            kernel.wakeup_ns.unwrap(),
            kernel.poll_ns,
            kernel.decode_ns,
        ];
        assert_eq!(parts.iter().sum::<f64>(), kernel.mean_ns);
        assert!(kernel.merged.is_empty());
        assert_eq!(kernel.sidecar_ns, None);
    }

    #[test]
    fn a_pair_has_its_sidecar_apart_as_far_as_that_is_known() {
        let of = |sidecar_unknown| {
            let sums = Lateness {
                sidecar_ns: 16_000,
                sidecar_unknown,
                ..sums()
            };
            TokenLateness::of(&sums, Some(StampSource::Kernel), true).unwrap()
        };
        let known = of(0);
        assert_eq!((known.sidecar_ns, known.mean_ns), (Some(4_000.0), 47_000.0));
        assert!(known.merged.is_empty());
        let partly = of(1);
        assert_eq!(partly.sidecar_ns, Some(4_000.0));
        assert_eq!(partly.merged, [Merged::SidecarInKernelAndLink]);
        assert_eq!(of(4).sidecar_ns, None);
    }

    #[test]
    fn of_no_deltas_and_of_those_whose_handling_is_not_known_there_is_none() {
        assert_eq!(TokenLateness::of(&Lateness::default(), None, false), None);
        let some = Lateness {
            handled: 3,
            ..sums()
        };
        assert_eq!(TokenLateness::of(&some, None, false), None);
        let but_one_cell = Lateness {
            left_out: 9,
            ..sums()
        };
        let split = TokenLateness::of(&but_one_cell, None, false).unwrap();
        assert_eq!((split.deltas, split.left_out), (4, 9));
    }
}
