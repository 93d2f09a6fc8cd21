//! Which packets are lost: each for itself (Bernoulli), or in bursts (Gilbert-Elliott).

use std::fmt;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::units::{share, show_share};

/// How packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub enum Loss {
    /// Each packet by itself.
    Bernoulli {
        /// The share that is lost, 0 to 1.
        share: f64,
    },
    /// A line with a good and a bad state that packets find it in (E. N. Gilbert, "Capacity of a burst-noise channel", 1960;
    /// E. O. Elliott, 1963). The four shares are those of `tc netem`'s `loss gemodel`.
    GilbertElliott {
        /// How likely the state turns bad, at each packet.
        p: f64,
        /// How likely it turns good again, at each packet.
        r: f64,
        /// The share that is lost in the bad state.
        bad: f64,
        /// The share that is lost in the good state.
        good: f64,
    },
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Loss = Loss::Bernoulli { share: 0.0 };

    /// The share of packets that is lost in the long run.
    pub fn mean(&self) -> f64 {
        match *self {
            Loss::Bernoulli { share } => share,
            Loss::GilbertElliott { p, r, bad, good } => (p * bad + r * good) / (p + r),
        }
    }

    /// How far the number of losses strays: its variance for each packet of a long run.
    pub(crate) fn variance(&self) -> f64 {
        match *self {
            Loss::Bernoulli { share } => share * (1.0 - share),
            Loss::GilbertElliott { p, r, bad, good } => {
                let is_bad = p / (p + r);
                let drawn = is_bad * bad * (1.0 - bad) + (1.0 - is_bad) * good * (1.0 - good);
                // The state is a Markov chain whose memory fades by 1 - p - r at each packet.
                let memory = (2.0 - p - r) / (p + r);
                drawn + (bad - good).powi(2) * is_bad * (1.0 - is_bad) * memory
            }
        }
    }

    /// The line that loses what this one lets through, and lets through what this one loses.
    pub(crate) fn inverse(&self) -> Self {
        match *self {
            Loss::Bernoulli { share } => Loss::Bernoulli { share: 1.0 - share },
            Loss::GilbertElliott { p, r, bad, good } => Loss::GilbertElliott {
                p,
                r,
                bad: 1.0 - bad,
                good: 1.0 - good,
            },
        }
    }

    /// Reads `0.1%`, or `ge:P/R`, `ge:P/R/BAD` and `ge:P/R/BAD/GOOD`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(shares) = text.strip_prefix("ge:") else {
            return Ok(Loss::Bernoulli {
                share: share(text)?,
            });
        };
        let shares: Vec<f64> = shares.split('/').map(share).collect::<Result<_, _>>()?;
        let (p, r, bad, good) = match shares[..] {
            [p, r] => (p, r, 1.0, 0.0),
            [p, r, bad] => (p, r, bad, 0.0),
            [p, r, bad, good] => (p, r, bad, good),
            _ => return Err("write bursts as ge:P/R, ge:P/R/BAD or ge:P/R/BAD/GOOD".to_owned()),
        };
        // A state that is never left would make the whole run one of its packets' luck.
        if p == 0.0 || r == 0.0 {
            return Err("P and R of ge: must be more than 0%".to_owned());
        }
        Ok(Loss::GilbertElliott { p, r, bad, good })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Loss::Bernoulli { share } => f.write_str(&show_share(share)),
            Loss::GilbertElliott { p, r, bad, good } => {
                let shares = [p, r, bad, good].map(show_share);
                write!(f, "ge:{}", shares.join("/"))
            }
        }
    }
}

/// The state of a line that loses packets.
#[derive(Debug)]
pub(crate) struct Losing {
    model: Loss,
    is_bad: bool,
}

impl Losing {
    pub(crate) fn new(model: Loss) -> Self {
        Self {
            model,
            is_bad: false,
        }
    }

    /// Whether the next packet is lost.
    pub(crate) fn takes(&mut self, random: &mut ChaCha8Rng) -> bool {
        let share = match self.model {
            Loss::Bernoulli { share } => share,
            Loss::GilbertElliott { p, r, bad, good } => {
                let turn = if self.is_bad { r } else { p };
                self.is_bad ^= random.random::<f64>() < turn;
                if self.is_bad { bad } else { good }
            }
        };
        // A link without loss draws nothing: its jitter then depends on the seed alone.
        share > 0.0 && random.random::<f64>() < share
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const PACKETS: usize = 400_000;

    fn drawn(model: Loss, seed: u64) -> Vec<bool> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut line = Losing::new(model);
        (0..PACKETS).map(|_| line.takes(&mut random)).collect()
    }

    fn share_of(lost: &[bool]) -> f64 {
        lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64
    }

    #[test]
    fn single_losses_keep_to_their_share_and_come_apart() {
        let model = Loss::parse("1%").unwrap();
        let lost = drawn(model, 7);
        let share = share_of(&lost);
        // Four standard deviations of the binomial share.
        assert!(
            (share - 0.01).abs() < 4.0 * (0.01f64 * 0.99 / PACKETS as f64).sqrt(),
            "{share}"
        );
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64;
        assert!(pairs / (share * PACKETS as f64) < 0.03, "{pairs}");
    }

    #[test]
    fn bursts_have_their_length_and_their_share() {
        let model = Loss::parse("ge:0.5%/25%").unwrap();
        assert!((model.mean() - 0.005 / 0.255).abs() < 1e-12);
        let lost = drawn(model, 7);
        let share = share_of(&lost);
        assert!((share - model.mean()).abs() < 0.1 * model.mean(), "{share}");
        let strays = (model.variance() / PACKETS as f64).sqrt();
        assert!(
            (share - model.mean()).abs() < 4.0 * strays,
            "{share} +- {strays}"
        );
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        let length = share * PACKETS as f64 / bursts;
        assert!(
            (length - 4.0).abs() < 0.3,
            "1 / 25% is 4 packets, not {length}"
        );
    }

    #[test]
    fn a_seed_decides_all() {
        let model = Loss::parse("ge:1%/20%/80%/0.1%").unwrap();
        assert_eq!(drawn(model, 1), drawn(model, 1));
        assert_ne!(drawn(model, 1), drawn(model, 2));
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for text in [
            "ge:",
            "ge:1%",
            "ge:0%/1%",
            "ge:1%/0%",
            "ge:1/1/1/1/1",
            "x",
            "ge:1%/2",
        ] {
            assert!(Loss::parse(text).is_err(), "{text}");
        }
        for text in ["0%", "0.1%", "ge:0.5%/25%/100%/0%"] {
            assert_eq!(Loss::parse(text).unwrap().to_string(), text);
        }
    }
}
