//! What is printed: a line for each side of each figure, and the goals.

use std::fmt;

use crate::pairs::{Figure, Ratio, ratio};

/// What tokenlag's figure is to be, as a ratio to one side's.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The side that it is stated against.
    pub against: &'static str,
    /// The most of what is better small; of a rate the least is one part in so many.
    pub ratio: f64,
}

impl Goal {
    /// The most, or for a rate the least.
    fn bound(self, figure: &Figure) -> f64 {
        match figure.more {
            true => 1.0 / self.ratio,
            false => self.ratio,
        }
    }

    /// How it stands where the figure's ratio was `found`.
    fn standing(self, figure: &Figure, found: Option<Ratio>) -> Standing {
        let Some(found) = found else {
            return Standing::NoRatio;
        };
        let bound = self.bound(figure);
        let (best, worst) = match figure.more {
            true => (found.high, found.low),
            false => (found.low, found.high),
        };
        let good = |value: f64| match figure.more {
            true => value >= bound,
            false => value <= bound,
        };
        match (good(best), good(worst)) {
            (_, true) => Standing::Met,
            (false, false) => Standing::Missed,
            (true, false) => Standing::Open {
                on_the_good_side: good(found.mean),
            },
        }
    }
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Met,
    Missed,
    /// The interval holds the goal.
    Open {
        on_the_good_side: bool,
    },
    /// The side's own figure is not above zero in the mean, so that nothing can be a part of it: it is as open.
    NoRatio,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Open {
                on_the_good_side: true,
            } => "open (met in the mean)",
            Self::Open {
                on_the_good_side: false,
            } => "open (missed in the mean)",
            Self::NoRatio => "open (no ratio)",
        })
    }
}

/// Goals by how they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub met: usize,
    pub missed: usize,
    pub open: usize,
}

/// The goals so far, for the summary.
#[derive(Debug, Default)]
pub struct Table {
    goals: Vec<(String, Standing)>,
    absent: Vec<String>,
}

impl Table {
    /// Says what comes.
    pub fn heading(&self, title: &str) {
        println!("\n{title}");
        println!(
            "{:<26} {:<11} {:>13}  {:>21}  goal",
            "figure", "side", "mean", "tokenlag / side"
        );
    }

    /// Prints a figure. `ours` is tokenlag's place among the sides.
    pub fn figure(
        &mut self,
        title: &str,
        figure: &Figure,
        sides: &[&str],
        ours: usize,
        goals: &[Goal],
    ) {
        for (side, name) in sides.iter().enumerate() {
            let label = if side == 0 { figure.name.as_str() } else { "" };
            let value = format!("{:.2} {}", figure.mean(side), figure.unit);
            print!("{label:<26} {name:<11} {value:>13}");
            if side == ours {
                println!();
                continue;
            }
            let found = ratio(&figure.values[ours], &figure.values[side]);
            print!("  {:>21}", shown(found));
            if let Some(goal) = goals.iter().find(|goal| goal.against == *name) {
                let (bound, standing) = (goal.bound(figure), goal.standing(figure, found));
                let sign = if figure.more { ">=" } else { "<=" };
                print!("  {sign} {bound:.2}: {standing}");
                let mean = found.map_or_else(|| "-".to_owned(), |it| format!("{:.2}", it.mean));
                let what = format!("{title}: {} {sign} {bound:.2} of {name}'s", figure.name);
                self.goals.push((format!("{what} ({mean})"), standing));
            }
            println!();
        }
    }

    /// A side that is not there.
    pub fn absent(&mut self, name: &str, why: &str) {
        println!("{name}: not measured: {why}");
        self.absent.push(name.to_owned());
    }

    /// The goals, together.
    pub fn end(&self) {
        println!("\ngoals");
        for (what, standing) in &self.goals {
            println!("{standing:<26} {what}");
        }
        for name in &self.absent {
            println!("{:<26} {name}", "not measured");
        }
        let Tally { met, missed, open } = self.tally();
        println!("{met} met, {missed} missed, {open} open (these turns do not tell)");
    }

    /// How many goals stand how.
    pub fn tally(&self) -> Tally {
        let count = |wanted: Standing| self.goals.iter().filter(|goal| goal.1 == wanted).count();
        let (met, missed) = (count(Standing::Met), count(Standing::Missed));
        let open = self.goals.len() - met - missed;
        Tally { met, missed, open }
    }
}

/// A ratio and its interval, whose ends are known or not.
fn shown(found: Option<Ratio>) -> String {
    let end = |value: f64| match value.is_finite() {
        true => format!("{value:.2}"),
        false => "-".to_owned(),
    };
    match found {
        Some(found) => format!("{:.2} [{} {}]", found.mean, end(found.low), end(found.high)),
        None => "-".to_owned(),
    }
}
