//! `perf record` on both ends of a row while it has its turn: 4,000 samples in a second of CPU time, with the kernel's functions.

mod control;
mod folder;
mod limits;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenlag_profiling::Stacks;
use tokenlag_profiling::perf::{FIELDS, Printed, Thread};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::sampling::Place;
use crate::pinning;
use control::Control;
use folder::Folder;
pub use limits::{Cut, LIMITS, Limits};

/// Samples in a second of CPU time.
pub const HERTZ: u32 = 4_000;
/// Bytes of its stack that are kept with a sample, from which its frames are found afterwards.
const STACK: &str = "dwarf,16384";
/// Its file.
const DATA: &str = "data";
const DISABLE: &str = "disable";

/// What a recording has.
#[derive(Debug)]
pub struct Taken {
    /// The stacks of each thread.
    pub threads: BTreeMap<Thread, Stacks>,
    /// Why that is not all.
    pub cut: Option<Cut>,
}

/// A recording that is under way; dropped, it ends and its file goes.
pub struct Perf {
    process: Child,
    folder: Folder,
    control: Control,
    limits: Limits,
}

impl Perf {
    /// Makes ready to sample the processes `pids`, in `place`, for as long as it is within `limits`.
    ///
    /// # Errors
    /// There is no perf, or it may not.
    pub async fn start(pids: &[u32], place: &Place, limits: Limits) -> anyhow::Result<Self> {
        let folder = Folder::make(&place.folder)?;
        let mut control = Control::make(&folder)?;
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut process = command("record")
            .args([
                "-q",
                "-e",
                "cpu-clock",
                "-F",
                &HERTZ.to_string(),
                "--call-graph",
                STACK,
            ])
            .args(["-p", &pids.join(",")])
            .arg("-o")
            .arg(folder.file(DATA))
            .arg(format!("--max-size={}B", limits.bytes))
            // It begins when it is told to, and says so.
            .args(["-D", "-1"])
            .arg(control.flag())
            .stdout(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        // It copies 70 MB a second: it shall not take that from what it samples.
        run_on(&process, place.beside.as_deref());
        // It does already, and answers once it is there.
        tokio::select! {
            there = control.tell(DISABLE) => there?,
            ended = process.wait() => bail!(last_words(&mut process, ended).await),
        }
        Ok(Self {
            process,
            folder,
            control,
            limits,
        })
    }

    /// Begins to sample.
    ///
    /// # Errors
    /// It does not.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            begun = self.control.tell("enable") => begun,
            ended = self.process.wait() => bail!(last_words(&mut self.process, ended).await),
        }
    }

    /// Samples no more, until it is ended.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            halted = self.control.tell(DISABLE) => halted,
            // Its end says why.
            _ = self.process.wait() => Ok(()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// perf failed, and there is nothing.
    pub async fn finish(mut self, place: &Place) -> anyhow::Result<Taken> {
        let early = self.process.try_wait().context("perf record is lost")?;
        if let Some(pid) = self.process.id() {
            // Where it has ended already, its file is there.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT);
        }
        let time = self.limits.time;
        let ended = timeout(time, self.process.wait()).await;
        ended.with_context(|| format!("perf record did not end within {time:?}"))??;
        let data = self.folder.file(DATA);
        let size = fs::metadata(&data).map_or(0, |file| file.len());
        let early = early.map(|_| match size >= self.limits.bytes {
            true => Cut::Size,
            false => Cut::Ended,
        });
        let (threads, late) = self.script(&data, place).await?;
        let cut = early.or(late.then_some(Cut::Time));
        Ok(Taken { threads, cut })
    }

    /// Has the samples put in order, up to where the time is over: whether it was.
    async fn script(
        &self,
        data: &Path,
        place: &Place,
    ) -> anyhow::Result<(BTreeMap<Thread, Stacks>, bool)> {
        let words = self.folder.file("words");
        let errors = File::create(&words);
        let errors = errors.with_context(|| format!("cannot write {}", words.display()))?;
        let mut process = command("script")
            .arg("-i")
            .arg(data)
            // Looking up what was inlined takes perf minutes.
            .args(["--no-inline", "--show-lost-events", "-F", FIELDS])
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(not_started)?;
        // Nothing is measured meanwhile.
        run_on(&process, Some(&place.all));
        let stdout = process.stdout.take().context("perf script is lost")?;
        let mut printed = Printed::default();
        let reading = async {
            let (mut lines, mut line) = (BufReader::new(stdout), Vec::new());
            while lines.read_until(b'\n', &mut line).await? > 0 {
                printed.line(String::from_utf8_lossy(&line).trim_end_matches('\n'));
                line.clear();
            }
            process.wait().await
        };
        let status = match timeout(self.limits.time, reading).await {
            Ok(ended) => ended.context("cannot read what perf script prints")?,
            Err(_) => {
                // What it printed is good; dropped, it is killed.
                return Ok((printed.finish(), true));
            }
        };
        if !status.success() {
            let words = fs::read(&words).unwrap_or_default();
            bail!(refusal(
                &String::from_utf8_lossy(&words),
                &status.to_string()
            ));
        }
        Ok((printed.finish(), false))
    }
}

/// Where the system does not allow it, perf runs where it likes.
fn run_on(process: &Child, cores: Option<&[usize]>) {
    if let (Some(pid), Some(cores @ [_, ..])) = (process.id(), cores) {
        let _ = pinning::bind_process(pid, cores);
    }
}

fn command(what: &str) -> Command {
    let mut command = Command::new("perf");
    command
        .arg(what)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C is this process's to act upon.
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn not_started(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "perf is not installed; install it (Debian: linux-perf, Ubuntu: linux-tools-generic), or leave out --sampler perf"
        ),
        _ => anyhow::Error::new(error).context("cannot start perf"),
    }
}

/// Why perf ended that was not to.
async fn last_words(process: &mut Child, ended: io::Result<ExitStatus>) -> String {
    let mut words = String::new();
    if let Some(mut stderr) = process.stderr.take() {
        let _ = stderr.read_to_string(&mut words).await;
    }
    let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    refusal(&words, &status)
}

/// Why perf does not, in one line, with what to do.
fn refusal(words: &str, status: &str) -> String {
    let first = words
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && *line != "Error:");
    let first = first.unwrap_or("it said nothing");
    let not_allowed = [
        "perf_event_paranoid",
        "not permitted",
        "ermission",
        "limited",
    ];
    match not_allowed.iter().any(|word| words.contains(word)) {
        true => format!(
            "perf may not sample here ({first}); run as root, or allow it: sysctl kernel.perf_event_paranoid=1 \
             kernel.kptr_restrict=0; or leave out --sampler perf"
        ),
        false => format!(
            "perf failed ({status}): {first}; see whether perf record -e cpu-clock -F {HERTZ} -p PID works here for a process of yours, \
             free space where the run's folder is, or leave out --sampler perf"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::control::PATIENCE;
    use super::*;

    /// Uses CPU time.
    fn burn(stop: &AtomicBool) {
        let mut sum = 0u64;
        while !stop.load(Ordering::Relaxed) {
            sum = (0..10_000).fold(sum, |sum, i| std::hint::black_box(sum.wrapping_mul(31) + i));
        }
        std::hint::black_box(sum);
    }

    #[tokio::test]
    async fn a_recording_ends_at_its_limit_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let all = pinning::cores();
        let place = Place {
            folder: folder.path().to_owned(),
            beside: all.last().map(|last| vec![*last]),
            all,
        };
        let limits = Limits {
            bytes: 4 << 20,
            ..LIMITS
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let burning = std::thread::spawn(move || burn(&stopped));
        let started = Perf::start(&[std::process::id()], &place, limits).await;
        let mut perf = match started {
            Ok(perf) => perf,
            Err(error) => {
                let told = error.to_string();
                assert!(told.contains("leave out --sampler perf"), "{told}");
                stop.store(true, Ordering::Relaxed);
                burning.join().unwrap();
                return;
            }
        };
        perf.go().await.unwrap();
        let ended = timeout(PATIENCE, perf.process.wait()).await;
        ended.expect("its limit ends it").unwrap();
        stop.store(true, Ordering::Relaxed);
        burning.join().unwrap();
        perf.halt().await.unwrap();
        let taken = perf.finish(&place).await.unwrap();
        assert_eq!(taken.cut, Some(Cut::Size));
        let samples: u64 = taken.threads.values().map(Stacks::total).sum();
        assert!(samples > 50, "{samples}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "its files are gone");
    }

    #[test]
    fn what_perf_says_becomes_what_to_do() {
        let words = "Error:\nAccess to performance monitoring and observability operations is limited.\nConsider adjusting /proc/sys/kernel/perf_event_paranoid";
        let told = refusal(words, "exit status: 255");
        assert!(
            told.contains("sysctl kernel.perf_event_paranoid=1"),
            "{told}"
        );
        assert!(told.contains("is limited"), "{told}");
        let told = refusal("", "exit status: 1");
        assert!(
            told.starts_with("perf failed (exit status: 1): it said nothing; "),
            "{told}"
        );
        assert!(told.contains("leave out --sampler perf"), "{told}");
    }
}
