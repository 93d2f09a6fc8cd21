//! `tokenlag profile`: the same load over each channel, CPU profiles of both ends, and what differs between them.

mod files;
mod own;
mod perf;
mod row;
mod sampling;
mod summary;
mod table;

use nix::sys::signal::Signal;
use tokenlag_probes::{RunFolder, Verdict};
use tokenlag_profiling::{Silence, silence};

pub use row::{RowProfile, Spent};
pub use sampling::{Carrier, End, Place, Profiler, Wanted};

use crate::args::profile::{ProfileArgs, Sampler};
use crate::args::values::Output;
use crate::compare::{self, Done};
use crate::exit::Exit;
use crate::measure::Measured;
use crate::plan::Plan;
use crate::{output, signals};
use summary::Summary;

/// What an end's profile is to reach where nothing is said.
const RESOLUTION: f64 = 0.05;
const QUICK_RESOLUTION: f64 = 0.1;

/// Runs the command.
pub fn run(args: ProfileArgs) -> anyhow::Result<Exit> {
    if let Some(parent) = args.compare.die_with_parent {
        signals::end_with(parent, Signal::SIGTERM)?;
    }
    let plan = Plan::of_profile(&args)?;
    let usual = match args.compare.quick {
        true => QUICK_RESOLUTION,
        false => RESOLUTION,
    };
    let wanted = Wanted {
        resolution: args.resolution.unwrap_or(usual),
        sampler: args.sampler,
    };
    let baseline = plan.work.baselines.first().copied();
    let Done { place, outcome } =
        compare::measure_all(&args.compare, plan, "profile", Some(wanted))?;
    let (mut measured, early) = match outcome {
        Ok(outcome) => outcome.into_parts(),
        Err(error) => {
            // Turns that were over before something broke may have been kept.
            if RunFolder::is_at(&place) {
                output::note(&format!("the run is in {}", place.display()));
            }
            return Err(error);
        }
    };
    on_profiles(&mut measured.report.verdict);
    let Measured {
        profiles,
        report,
        told,
        ..
    } = &measured;
    let summary = Summary::of(profiles, &report.verdict, wanted, baseline, args.raw);
    let written = files::write(&place, &summary);
    let shown = summary.shown();
    match args.compare.output.output {
        Output::Json => output::result(&(serde_json::to_string_pretty(&shown)? + "\n"))?,
        Output::Table | Output::Csv => {
            output::result(&(table::text(&shown) + "\n" + &output::verdict(&report.verdict)))?;
        }
    }
    for line in told {
        output::note(line);
    }
    for end in summary.unpriced() {
        output::note(&format!(
            "what a token costs the {0} is not told: the system does not say here what CPU time it used for each row, and fewer samples \
             come than were asked for; its functions' shares hold. Let the {0} be started by this command to have it",
            end.name()
        ));
    }
    match &written {
        Ok(()) => output::note(&format!(
            "flamegraphs and pprof files are in {}",
            place.join(files::FOLDER).display()
        )),
        // What was found has been shown.
        Err(error) => output::failure(error),
    }
    if let Some(reason) = &early {
        output::failure(reason);
    }
    if written.is_err() || early.is_some() {
        return Ok(Exit::Failed);
    }
    if shown
        .rows
        .iter()
        .flat_map(|row| &row.ends)
        .all(|end| end.samples == 0)
    {
        let unseen_ns = profiles.iter().map(RowProfile::unseen_ns).sum();
        output::error(&not_one(unseen_ns, wanted));
        return Ok(Exit::Failed);
    }
    let allowed = args.compare.output.allow_untrusted;
    Ok(output::exit(report, &[], allowed))
}

/// Why there is no sample of so much CPU time.
fn not_one(unseen_ns: u64, wanted: Wanted) -> String {
    let seconds = unseen_ns as f64 / 1e9;
    match (
        silence::is_clear(unseen_ns, wanted.hertz()),
        wanted.sampler,
    ) {
        (false, _) => {
            "not one sample was taken: the run used hardly any CPU time; give it more load or a longer --duration".to_owned()
        }
        (true, Sampler::Own) => format!(
            "not one sample was taken of {seconds:.1} s of CPU time: {}",
            Silence::of_this_process()
        ),
        (true, Sampler::Perf) => format!(
            "not one sample was taken of {seconds:.1} s of CPU time: perf recorded none; see whether perf record -e cpu-clock -p PID works \
             here for a process of yours, or leave out --sampler perf"
        ),
    }
}

/// Leaves of the run's verdict what says something of its profiles: they have no intervals over blocks.
fn on_profiles(verdict: &mut Verdict) {
    verdict.warnings.retain(|it| it.code != "few_blocks");
    verdict.trusted = verdict.warnings.is_empty();
}
