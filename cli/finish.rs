//! How a measured run is told and how the command ends.

use std::path::Path;

use anyhow::bail;
use tokenlag_loadgen::Ended;

use crate::alarm::Interrupted;
use crate::args::shared::OutputArgs;
use crate::exit::Exit;
use crate::measure::Measured;
use crate::output;

/// A run's outcome, beyond its figures.
pub struct Outcome {
    measured: Measured,
    /// Why it ended early, if it did.
    early: Option<String>,
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
        (Ok(measured), casualty) => {
            let early = match measured.ended {
                Ended::Whole => None,
                Ended::Stopped => casualty.or_else(|| {
                    interrupted
                        .is_set()
                        .then(|| "interrupted: this is what was measured until then".to_owned())
                }),
            };
            Ok(Outcome { measured, early })
        }
        (Err(_), Some(reason)) => bail!(reason),
        (Err(error), None) => Err(error),
    }
}

/// Prints the result, says what went wrong, and chooses the exit.
pub fn tell(outcome: Outcome, place: &Path, args: &OutputArgs) -> anyhow::Result<Exit> {
    let Outcome { measured, early } = outcome;
    output::report(&measured.report, args.output)?;
    for line in &measured.told {
        output::note(line);
    }
    output::note(&format!("the run is in {}", place.display()));
    if let Some(reason) = early {
        output::error(&reason);
        return Ok(Exit::Failed);
    }
    Ok(output::exit(
        &measured.report,
        &args.fail_if,
        args.allow_untrusted,
    ))
}
