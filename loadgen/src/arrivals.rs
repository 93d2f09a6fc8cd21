//! The schedule of a plan, as a value: which process makes the arrivals, and at which rate.

use serde::Serialize;
use tokenlag_probes::Place;

use crate::rate::{Burstiness, Rate};
use crate::schedule::{Constant, Gamma, Poisson, Schedule};
use crate::seeds::{Purpose, generator};

/// What makes sessions arrive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "pattern", rename_all = "kebab-case")]
pub enum Arrivals {
    /// A closed loop: whoever is done starts anew.
    Closed,
    /// Equal gaps.
    Constant {
        /// Sessions per second.
        rate: Rate,
    },
    /// Exponential gaps.
    Poisson {
        /// Sessions per second in the mean.
        rate: Rate,
    },
    /// Gamma gaps.
    Gamma {
        /// Sessions per second in the mean.
        rate: Rate,
        /// The distribution's shape.
        burstiness: Burstiness,
    },
}

impl Arrivals {
    /// The arrivals of one block: the same for all rows. A closed loop has no schedule.
    pub fn schedule(self, seed: u64, block: u32) -> Option<Box<dyn Schedule>> {
        let place = Place {
            block,
            ..Place::default()
        };
        let random = || generator(seed, Purpose::Arrivals, 0, place);
        Some(match self {
            Self::Closed => return None,
            Self::Constant { rate } => Box::new(Constant::new(rate)),
            Self::Poisson { rate } => Box::new(Poisson::new(rate, random())),
            Self::Gamma { rate, burstiness } => Box::new(Gamma::new(rate, burstiness, random())),
        })
    }

    /// The schedule sets the starts, not the replies before them.
    pub fn is_open(self) -> bool {
        self != Self::Closed
    }
}
