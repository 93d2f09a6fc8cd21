//! What `compare` and `load` have in common: calibrate, warm up, run the campaign, close the books.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use tokenlag_loadgen::warmup::{self, Calibrated, Warmed};
use tokenlag_loadgen::{Campaign, Ended, Form, Lane, Progress, Prompts, Shared, WordCount};
use tokenlag_probes::folder::{RunFolder, TokenStamps};
use tokenlag_probes::{Clock, Host, MonoClock, Report, RunRecord, Seeds, clock};

use crate::args::shared::OutputArgs;
use crate::book::{Book, Handing, Proxy};
use crate::clocks::Clocks;
use crate::conditions::{self, Found};
use crate::exit::Usage;
use crate::ledger::Ledger;
use crate::link::Linked;
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::profile::{Place, Profiler, RowProfile, Wanted};
use crate::progress::Display;
use crate::rig::{Alarm, NOTHING_MEASURED};
use crate::sweep::INDEX;
use crate::{command_line, host, output};

/// Reads of the clock from which its cost is told.
const CLOCK_READS: u32 = 10_000;
/// Sessions that the calibration takes.
const PROBES: u64 = 2;

/// A run that is about to be measured: everything that it needs is there.
pub struct Run<'a> {
    /// The subcommand.
    pub command: &'static str,
    /// What to do.
    pub plan: &'a Plan,
    /// The model's name.
    pub model: String,
    /// Rows and where they go.
    pub lanes: Vec<Rc<Lane>>,
    /// Whose stamps are fetched.
    pub proxy: Option<Proxy>,
    /// The machine, as it is without any pinning.
    pub host: Host,
    /// Which process runs where.
    pub pinning: Pinning,
    /// The cores that this process might run on before it was bound to one.
    pub cores: Vec<usize>,
    /// What the command found out about the other ends, for the record.
    pub found: Found,
    /// What the rows' traffic goes over, if it is emulated.
    pub link: Option<&'a Linked>,
    /// What only the command can see: the topology.
    pub warnings: Vec<tokenlag_probes::Warning>,
    /// Where the run's folder will be.
    pub place: &'a Path,
    /// What to keep and to show.
    pub output: &'a OutputArgs,
    /// Whether and how both ends are sampled.
    pub profile: Option<Wanted>,
}

/// A run that was measured, to its end or not.
pub struct Measured {
    /// What it found.
    pub report: Report,
    /// What went wrong, in lines for the user.
    pub told: Vec<String>,
    /// Whether it went on to its end.
    pub ended: Ended,
    /// Why it could not go on.
    pub broken: Option<anyhow::Error>,
    /// What was sampled, where that was asked for.
    pub profiles: Vec<RowProfile>,
}

impl Run<'_> {
    /// Measures.
    ///
    /// # Errors
    /// Nothing can be measured, the stamps cannot be fetched, or the run's folder cannot be written.
    pub async fn measure(mut self, alarm: &Alarm) -> anyhow::Result<Measured> {
        let mut record = self.record();
        let started = MonoClock.now();
        let counts = Rc::new(Progress::default());
        let display = Rc::new(Display::new(
            self.output.ui,
            counts.clone(),
            self.plan.exchanges(),
        ));
        let profiler = match self.profile {
            Some(wanted) => {
                let place = Place {
                    folder: self.place.to_owned(),
                    beside: self.pinning.beside(&self.cores),
                    all: self.cores.clone(),
                };
                let profiler = Profiler::new(wanted, self.lanes.len(), place);
                Some(alarm.or_stopped(profiler).await?)
            }
            None => None,
        };
        display.stage("warming up");
        let mut shared = self.shared(counts, alarm);
        let calibrated = calibrated(&shared, &self.lanes[0], &mut record).await;
        if alarm.stop.is_raised() {
            bail!(NOTHING_MEASURED);
        }
        shared.prompts.count = calibrated?;
        let shared = Rc::new(shared);
        let cell = &self.plan.work.cell;
        let warmed = warmup::warm(&shared, &self.lanes, cell, self.plan.warmups, PROBES).await;
        if alarm.stop.is_raised() {
            bail!(NOTHING_MEASURED);
        }
        display.pause_for(|| tell_warmups(&warmed))?;

        let tokens = if self.output.keep_tokens {
            TokenStamps::Keep
        } else {
            TokenStamps::Drop
        };
        if let Some(proxy) = &mut self.proxy {
            // What the proxy recorded so far is not of this run.
            alarm.or_stopped(proxy.admin.skip()).await?;
            let clocks = Clocks::compare(proxy.admin.base(), started);
            let clocks = alarm.or_stopped(clocks).await?;
            record.clocks = Some(clocks.record().clone());
            proxy.clocks = Some(clocks);
        }
        let folder = RunFolder::create(self.place, &record, tokens)?;
        let campaign = Campaign {
            lanes: self.lanes,
            blocks: self.plan.blocks,
            duration: self.plan.work.duration,
            cell: *cell,
        };
        let handing = match (&self.proxy, self.plan.blocks) {
            (None, 1) => Handing::AsTheyCome,
            _ => Handing::BetweenCells,
        };
        let ledger = Ledger::new(record, folder, started);
        let rows = campaign.lanes.len();
        let mut book = Book::open(
            ledger,
            rows,
            handing,
            self.proxy,
            display.clone(),
            alarm.clone(),
            profiler,
        )?;
        let run = campaign.run(&shared, &mut book);
        let outcome = if self.plan.blocks > 1 {
            run.await
        } else {
            // One long cell: show that it lives.
            tokio::select! {
                outcome = run => outcome,
                never = display.tick() => match never {},
            }
        };
        // What was recorded is kept, whatever ended the run.
        let ended = outcome.as_ref().copied().unwrap_or(Ended::Stopped);
        let broken = outcome.err();
        let link = self.link.map(Linked::emulated);
        let (profiles, cut) = book.take_profiles();
        match (book.close(ended == Ended::Whole, link), broken) {
            (Ok((report, told)), broken) => Ok(Measured {
                report,
                told: [told, cut].concat(),
                ended,
                broken,
                profiles,
            }),
            // What went wrong first is the cause.
            (Err(_), Some(broken)) => Err(broken),
            (Err(error), None) => Err(error),
        }
    }

    fn record(&self) -> RunRecord {
        let plan = self.plan;
        let rows = plan.work.rows.clone();
        let mut record = RunRecord::begin(self.command, clock::wall_clock(), rows);
        record.command_line = command_line::without_secrets();
        record.host = self.host.clone();
        record
            .versions
            .insert("tokenlag".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        record.plan = serde_json::to_value(plan).unwrap_or_default();
        record.plan["model"] = self.model.clone().into();
        record.plan["pinning"] = serde_json::to_value(self.pinning).unwrap_or_default();
        if let Some(link) = self.link {
            record.plan["link"]["relay_cores"] = link.relay_cores().into();
        }
        record.seeds = Seeds {
            workload: plan.seed,
            order: plan.seed,
            bootstrap: plan.seed,
        };
        record.until = plan.until;
        record.open_loop = plan.arrivals.is_open();
        record.conditions = conditions::of(plan, &self.host, self.found);
        record.floor = self.found.floor;
        record.baselines = plan.work.baselines.clone();
        record.warnings = self.warnings.clone();
        record.calibration.clock_read_ns = Some(MonoClock.read_cost(CLOCK_READS));
        if let Some(governor) = host::governor() {
            record
                .calibration
                .more
                .insert("cpu_governor".to_owned(), governor.into());
        }
        record
    }

    fn shared(&self, progress: Rc<Progress>, alarm: &Alarm) -> Shared {
        Shared {
            form: Form::of(self.plan.asking(self.model.clone())),
            prompts: Prompts {
                seed: self.plan.seed,
                workload: self.plan.workload,
                count: WordCount::GUESS,
            },
            limits: self.plan.work.limits,
            stop: alarm.stop.clone(),
            progress,
        }
    }
}

async fn calibrated(
    shared: &Shared,
    lane: &Lane,
    record: &mut RunRecord,
) -> anyhow::Result<WordCount> {
    let (count, from) = match warmup::calibrate(shared, lane, 0).await {
        Calibrated::Learned(count) => (count, "usage"),
        Calibrated::Guessed => (WordCount::GUESS, "guess"),
        Calibrated::Failed { words, reason } => bail!(
            "calibrating prompt lengths failed at a prompt of {words} words ({}): {reason}",
            lane.row
        ),
    };
    let found = serde_json::json!({
        "tokens_per_word": count.tokens_per_word,
        "fixed_tokens": count.fixed_tokens,
        "from": from,
    });
    record
        .calibration
        .more
        .insert("prompt_length".to_owned(), found);
    Ok(count)
}

/// Says which rows did not warm up.
///
/// # Errors
/// None did.
fn tell_warmups(warmed: &[Warmed]) -> anyhow::Result<()> {
    let first = |row: &Warmed| row.troubles.keys().next().cloned().unwrap_or_default();
    let failed: Vec<&Warmed> = warmed.iter().filter(|row| row.completed == 0).collect();
    match failed.first() {
        Some(row) if failed.len() == warmed.len() => {
            bail!("no warm-up completed; {}: {}", row.row, first(row))
        }
        _ => {
            for row in failed {
                output::note(&format!("warm-up of {} failed: {}", row.row, first(row)));
            }
            Ok(())
        }
    }
}

/// The folder that a run will have: made now, so that a path that cannot be written is known before any work is done.
pub fn claim(out: Option<&Path>, command: &str) -> anyhow::Result<PathBuf> {
    let path = match out {
        Some(path) => path.to_owned(),
        None => default_place(command),
    };
    if RunFolder::is_at(&path) || path.join(INDEX).exists() {
        let shown = path.display();
        let what =
            format!("{shown} already holds a run; choose another folder with --out, or remove it");
        return Err(Usage(what).into());
    }
    std::fs::create_dir_all(&path).with_context(|| {
        format!(
            "cannot make the run's folder {}; choose another with --out",
            path.display()
        )
    })?;
    Ok(path)
}

/// Gives back a folder in which nothing was recorded.
pub fn unclaim(path: &Path) {
    // It is only removed if it is empty.
    let _ = std::fs::remove_dir(path);
}

fn default_place(command: &str) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(clock::wall_clock()).to_string();
    let name = format!("{}-{command}", now.replace([':', '-'], ""));
    let mut path = Path::new("runs").join(&name);
    let mut twin = 2;
    while path.exists() {
        path = Path::new("runs").join(format!("{name}-{twin}"));
        twin += 1;
    }
    path
}
