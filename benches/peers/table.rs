//! What is printed: a line for each side of each figure, and the goals.

use std::fmt;

use crate::pairs::{Figure, ratio};

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
        })
    }
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
            let found = (side != ours)
                .then(|| ratio(&figure.values[ours], &figure.values[side]))
                .flatten();
            let Some(found) = found else {
                println!();
                continue;
            };
            let interval = format!("{:.2} [{:.2} {:.2}]", found.mean, found.low, found.high);
            print!("  {interval:>21}");
            if let Some(goal) = goals.iter().find(|goal| goal.against == *name) {
                let bound = goal.bound(figure);
                let (best, worst) = match figure.more {
                    true => (found.high, found.low),
                    false => (found.low, found.high),
                };
                let good = |value: f64| match figure.more {
                    true => value >= bound,
                    false => value <= bound,
                };
                let standing = match (good(best), good(worst)) {
                    (_, true) => Standing::Met,
                    (false, false) => Standing::Missed,
                    (true, false) => Standing::Open {
                        on_the_good_side: good(found.mean),
                    },
                };
                let sign = if figure.more { ">=" } else { "<=" };
                print!("  {sign} {bound:.2}: {standing}");
                let what = format!("{title}: {} {sign} {bound:.2} of {name}'s", figure.name);
                self.goals
                    .push((format!("{what} ({:.2})", found.mean), standing));
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
        let count = |wanted: Standing| {
            let is_it = |goal: &&(String, Standing)| goal.1 == wanted;
            self.goals.iter().filter(is_it).count()
        };
        let (met, missed) = (count(Standing::Met), count(Standing::Missed));
        let open = self.goals.len() - met - missed;
        println!("{met} met, {missed} missed, {open} open (the interval holds the goal)");
    }
}
