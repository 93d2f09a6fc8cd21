//! Turns of several sides in random order, and the ratio of two of them with its interval.

use tokenlag_probes::bootstrap::estimate;

/// Steps of the search for an interval's end; each halves what is left.
const STEPS: u32 = 40;

/// What was measured of one figure: a value for each turn, of each side.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    /// More is better: a rate.
    pub more: bool,
    /// By side, then by turn.
    pub values: Vec<Vec<f64>>,
}

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Figure {
    pub fn mean(&self, side: usize) -> f64 {
        let values = &self.values[side];
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// The same without the first side.
    #[must_use]
    pub fn without_first(mut self) -> Self {
        self.values.remove(0);
        self
    }

    /// The same, less what the first side had in the same turn.
    #[must_use]
    pub fn added(mut self) -> Self {
        let direct = self.values[0].clone();
        for values in &mut self.values {
            for (value, direct) in values.iter_mut().zip(&direct) {
                *value -= direct;
            }
        }
        self
    }
}

/// Has `measure` take so many turns of each of `sides`, which gives as many values as there are figures, and before them one
/// turn each that does not count. Progress goes to standard error.
pub fn turns<S>(
    sides: &mut [S],
    turns: usize,
    mut figures: Vec<Figure>,
    order: &mut Order,
    mut measure: impl FnMut(&mut S) -> Result<Vec<f64>, String>,
) -> Result<Vec<Figure>, String> {
    for figure in &mut figures {
        figure.values = vec![Vec::with_capacity(turns); sides.len()];
    }
    let mut sequence: Vec<usize> = (0..sides.len()).collect();
    for turn in 0..=turns {
        order.shuffle(&mut sequence);
        for &side in &sequence {
            let values = measure(&mut sides[side])?;
            if turn > 0 {
                for (figure, value) in figures.iter_mut().zip(values) {
                    figure.values[side].push(value);
                }
            }
        }
        eprint!("\rturn {turn} of {turns} ");
    }
    eprint!("\r                      \r");
    Ok(figures)
}

/// The ratio of the means of paired values: all those that leave `ours - ratio * theirs` indistinguishable from zero (Fieller,
/// *Journal of the Royal Statistical Society B* 16, 1954), so that single values may be of any sign. `None` where theirs are
/// not above zero in the mean. An end that cannot be found is infinite: of a single turn neither can.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
    let interval = |ratio: f64| {
        let rest: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours - ratio * theirs)
            .collect();
        let found = estimate(&rest, 1)?;
        Some((found.low?, found.high?))
    };
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    if sum(theirs) <= 0.0 {
        return None;
    }
    let mean = sum(ours) / sum(theirs);
    if interval(mean).is_none() {
        return Some(Ratio {
            mean,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
        });
    }
    let end = |sign: f64, inside: &dyn Fn((f64, f64)) -> bool| {
        let mut reach = mean.abs().max(0.01);
        // Beyond a hundred times the ratio nothing is known any more.
        let outermost = reach * 128.0;
        while interval(mean + sign * reach).is_some_and(inside) {
            reach *= 2.0;
            if reach > outermost {
                return sign * f64::INFINITY;
            }
        }
        let (mut near, mut far) = (0.0, reach);
        for _ in 0..STEPS {
            let middle = (near + far) / 2.0;
            match interval(mean + sign * middle).is_some_and(inside) {
                true => near = middle,
                false => far = middle,
            }
        }
        mean + sign * near
    };
    Some(Ratio {
        mean,
        low: end(-1.0, &|(low, _)| low <= 0.0),
        high: end(1.0, &|(_, high)| high >= 0.0),
    })
}

/// Who goes first: xorshift64, since nothing more is asked of it than to be unrelated to what drifts.
#[derive(Debug)]
pub struct Order(u64);

impl Order {
    pub fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Fisher and Yates's.
    fn shuffle(&mut self, places: &mut [usize]) {
        for last in (1..places.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            places.swap(last, (self.0 % (last as u64 + 1)) as usize);
        }
    }
}
