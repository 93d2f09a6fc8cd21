//! How many packets a line with a given loss may lose by chance.

use std::ops::RangeInclusive;

use crate::Loss;

/// The share of runs that lose fewer than chance allows, and of those that lose more: one run in a thousand is outside.
const TAIL: f64 = 0.000_5;
/// Standard deviations that leave so much outside, of what is nearly normal.
const DEVIATIONS: f64 = 3.29;
/// A count with a greater variance is nearly normal.
const MANY: f64 = 200.0;

/// How many of so many packets are lost but in one run of a thousand: the binomial interval where each is lost by itself. A
/// count of bursts strays further, nearly as the negative binomial distribution of the same mean and variance does. `None`: it
/// strays less than even that, and no interval is known.
pub(super) fn interval(packets: u64, loss: &Loss) -> Option<RangeInclusive<u64>> {
    if loss.mean() > 0.5 {
        // The packets that come through are as few as the losses would be.
        let through = interval(packets, &loss.inverse())?;
        return Some(packets - through.end()..=packets - through.start());
    }
    let mean = packets as f64 * loss.mean();
    let variance = packets as f64 * loss.variance();
    if mean == 0.0 || variance == 0.0 {
        return Some(mean.round() as u64..=mean.round() as u64);
    }
    if variance > MANY {
        let spread = DEVIATIONS * variance.sqrt() + 0.5;
        let least = (mean - spread).max(0.0).floor() as u64;
        return Some(least..=((mean + spread).ceil() as u64).min(packets));
    }
    match *loss {
        Loss::Bernoulli { share } => {
            let odds = share / (1.0 - share);
            let first = (1.0 - share).powf(packets as f64);
            within(packets, first, |lost| {
                (packets - lost) as f64 / (lost + 1) as f64 * odds
            })
        }
        Loss::GilbertElliott { .. } => {
            // A count whose variance is not above its mean is no burst's.
            let variance = variance.max(mean * 1.001);
            let (p, r) = (mean / variance, mean * mean / (variance - mean));
            within(packets, p.powf(r), |lost| {
                (lost as f64 + r) / (lost + 1) as f64 * (1.0 - p)
            })
        }
    }
}

/// Counts up to `most` that leave a tail on either side, where `first` is how likely none is, and `next` how many times more
/// likely one more than a count is than the count.
fn within(most: u64, first: f64, next: impl Fn(u64) -> f64) -> Option<RangeInclusive<u64>> {
    // What is less likely than can be written cannot be built upon.
    if first < f64::MIN_POSITIVE {
        return None;
    }
    let (mut likely, mut below) = (first, 0.0);
    let mut least = None;
    for count in 0..most {
        below += likely;
        if below > TAIL {
            least.get_or_insert(count);
        }
        if below >= 1.0 - TAIL {
            return Some(least.unwrap_or(0)..=count);
        }
        likely *= next(count);
    }
    Some(least.unwrap_or(0)..=most)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::loss::Losing;

    fn check(packets: u64, loss: &str, expected: RangeInclusive<u64>) {
        let loss = Loss::parse(loss).unwrap();
        assert_eq!(
            interval(packets, &loss),
            Some(expected),
            "{packets} of {loss}"
        );
    }

    #[test]
    fn single_losses_have_the_binomial_interval() {
        check(1_000, "0%", 0..=0);
        check(1_000, "100%", 1_000..=1_000);
        check(0, "1%", 0..=0);
        check(1_000, "0.2%", 0..=8);
        check(10, "50%", 0..=10);
        // Twenty tosses of a coin: P(X <= 2) = 0.0002, P(X <= 3) = 0.0013.
        check(20, "50%", 3..=17);
        check(20, "95%", 15..=20);
    }

    #[test]
    fn a_line_stays_within_as_often_as_said() {
        for text in [
            "0.1%",
            "1%",
            "20%",
            "ge:0.5%/50%/100%/0%",
            "ge:1%/10%/50%/1%",
            // Nearly all are lost.
            "ge:50%/50%/100%/99.9%",
        ] {
            let loss = Loss::parse(text).unwrap();
            let packets = 3_000;
            let allowed = interval(packets, &loss).unwrap();
            let outside = (0..400u64).filter(|seed| {
                let mut random = ChaCha8Rng::seed_from_u64(*seed);
                let mut line = Losing::new(loss);
                let lost = (0..packets).filter(|_| line.takes(&mut random)).count();
                !allowed.contains(&(lost as u64))
            });
            let outside = outside.count();
            assert!(outside <= 4, "{text}: {outside} of 400, {allowed:?}");
            assert!(*allowed.start() > 0 || loss.mean() < 0.01, "{text}");
            assert!(*allowed.end() < packets || loss.mean() > 0.99, "{text}");
        }
    }

    #[test]
    fn what_hardly_strays_is_not_judged() {
        // Nearly every second packet, by turns: far less than a burst's count strays.
        let turns = Loss::parse("ge:99.9%/99.9%").unwrap();
        assert!(turns.variance() * 3_000.0 < 10.0, "{}", turns.variance());
        assert_eq!(interval(3_000, &turns), None);
    }
}
