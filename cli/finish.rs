//! How a measured run is told and how the command ends.

use std::path::Path;

use anyhow::{anyhow, bail};
use tokenlag_loadgen::Ended;
use tokenlag_probes::RunFolder;

use crate::alarm::Interrupted;
use crate::args::shared::OutputArgs;
use crate::exit::Exit;
use crate::measure::Measured;
use crate::output;

/// A run's outcome, beyond its figures.
pub struct Outcome {
    measured: Measured,
    /// Why it ended early, if it did.
    early: Option<anyhow::Error>,
}

impl Outcome {
    /// What was measured, and why it ended early, if it did.
    pub fn into_parts(self) -> (Measured, Option<anyhow::Error>) {
        (self.measured, self.early)
    }
}

/// Puts together what is known of a run's end. A child that died is the cause of whatever else went wrong.
///
/// # Errors
/// Nothing was measured; says why.
pub fn outcome(
    measured: anyhow::Result<Measured>,
    casualty: Option<String>,
    interrupted: &Interrupted,
) -> anyhow::Result<Outcome> {
    match (measured, casualty) {
        (Ok(mut measured), casualty) => {
            let early = match measured.ended {
                Ended::Whole => None,
                Ended::Stopped => casualty
                    .map(anyhow::Error::msg)
                    .or(measured.broken.take())
                    .or_else(|| {
                        let what = "interrupted: this is what was measured until then";
                        interrupted.is_set().then(|| anyhow!(what))
                    }),
            };
            Ok(Outcome { measured, early })
        }
        (Err(_), Some(reason)) => bail!(reason),
        (Err(error), None) if interrupted.is_set() => Err(error.context("interrupted")),
        (Err(error), None) => Err(error),
    }
}

/// Prints the result, says what went wrong, and chooses the exit.
///
/// # Errors
/// Those of the run, or its result cannot be printed.
pub fn tell(
    outcome: anyhow::Result<Outcome>,
    place: &Path,
    args: &OutputArgs,
) -> anyhow::Result<Exit> {
    let Outcome { measured, early } = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            if RunFolder::is_at(place) {
                tell_place(place);
            }
            return Err(error);
        }
    };
    let report = &measured.report;
    // Of a run that ended before anything completed there is nothing to show.
    if early.is_none() || report.channels.iter().any(|row| row.completed > 0) {
        output::report(report, args.output, args.legs)?;
    }
    for line in &measured.told {
        output::note(line);
    }
    tell_place(place);
    if let Some(reason) = early {
        output::failure(&reason);
        return Ok(Exit::Failed);
    }
    Ok(output::exit(report, &args.fail_if, args.allow_untrusted))
}

fn tell_place(place: &Path) {
    output::note(&format!("the run is in {}", place.display()));
}
