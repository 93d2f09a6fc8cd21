//! How many sessions arrive in a second, and how evenly: numbers that are checked where they come in.

use serde::Serialize;

/// Arrivals per second: finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Rate(f64);

impl Rate {
    /// `None` unless `per_second` lies between one a day and ten million a second.
    pub fn new(per_second: f64) -> Option<Self> {
        (1e-5..=1e7)
            .contains(&per_second)
            .then_some(Self(per_second))
    }

    /// Arrivals per second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

/// The shape of gamma gaps: finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Burstiness(f64);

impl Burstiness {
    /// `None` unless `shape` lies between 0.01 and 1000.
    pub fn new(shape: f64) -> Option<Self> {
        (0.01..=1000.0).contains(&shape).then_some(Self(shape))
    }

    /// The shape.
    pub fn shape(self) -> f64 {
        self.0
    }
}
