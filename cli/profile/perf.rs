//! `perf record` on both ends of a row while it has its turn: 4,000 samples in a second of CPU time, with the kernel's functions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokenlag_profiling::Stacks;
use tokenlag_profiling::perf::{FIELDS, Printed, Thread};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::sampling::Place;
use crate::pinning;

/// Samples in a second of CPU time.
pub const HERTZ: u32 = 4_000;
/// Bytes of its stack that are kept with a sample, from which its frames are found afterwards.
const STACK: &str = "dwarf,16384";
/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a turn's recording may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the disk, in bytes: a sample is 17 KB, so that a second of CPU time is 70 MB.
    bytes: u64,
    /// To end, and to put its samples in order, each.
    time: Duration,
}

/// Those of a run: 15 s of CPU time.
pub const LIMITS: Limits = Limits {
    bytes: 1 << 30,
    time: Duration::from_secs(60),
};

/// Why a recording has not all of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// Its file had become as large as it may.
    Size,
    /// perf ended before the turn did, for a reason of its own.
    Ended,
    /// Its samples could not all be put in order in time.
    Time,
}

impl Cut {
    /// What is to be told of so many turns.
    pub fn told(self, turns: u32) -> String {
        let turns = match turns {
            1 => "one turn".to_owned(),
            turns => format!("{turns} turns"),
        };
        match self {
            Self::Size => format!(
                "perf's profile of {turns} has only the beginning: its file had reached {} MiB; have shorter turns (--num-prompts)",
                LIMITS.bytes >> 20
            ),
            Self::Ended => format!(
                "perf's profile of {turns} has only the beginning: it ended early, as it does where the disk is full"
            ),
            Self::Time => format!(
                "perf's profile of {turns} has a part of the samples: putting them in order took longer than {:?}; have shorter turns \
                 (--num-prompts)",
                LIMITS.time
            ),
        }
    }
}

/// What a recording has.
#[derive(Debug)]
pub struct Taken {
    /// The stacks of each thread.
    pub threads: BTreeMap<Thread, Stacks>,
    /// Why that is not all.
    pub cut: Option<Cut>,
}

/// Names that are tried for its folder.
const NAMES: u32 = 100;

/// A recording that is under way; dropped, it ends and its file goes.
pub struct Perf {
    process: Child,
    folder: Folder,
    limits: Limits,
}

/// Where perf's files are, while there are any: a folder that was made for them, and nobody else's.
struct Folder(PathBuf);

impl Folder {
    /// One in `place`, under the first name that is not taken.
    ///
    /// # Errors
    /// It cannot be made, or every name is taken.
    fn make(place: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        for number in 0..NAMES {
            let path = place.join(format!(".perf-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let shown = path.display();
                    return Err(error).with_context(|| format!("cannot make {shown}"));
                }
            }
        }
        bail!(
            "cannot make a folder for perf in {}: .perf-0 to .perf-{} are there already; remove those that no run uses",
            place.display(),
            NAMES - 1
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is perf's own format, and big: nobody asked for it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Perf {
    /// Begins to sample the processes `pids`, in `place`, for as long as it is within `limits`.
    ///
    /// # Errors
    /// There is no perf, or it may not.
    pub async fn start(pids: &[u32], place: &Place, limits: Limits) -> anyhow::Result<Self> {
        let folder = Folder::make(&place.folder)?;
        let (control, answer) = (folder.0.join("control"), folder.0.join("answer"));
        for fifo in [&control, &answer] {
            mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("cannot make {}", fifo.display()))?;
        }
        let both_ways = || {
            let mut options = pipe::OpenOptions::new();
            options.read_write(true);
            options
        };
        let mut ask = both_ways()
            .open_sender(&control)
            .context("cannot open a pipe to perf")?;
        let mut told = both_ways()
            .open_receiver(&answer)
            .context("cannot open a pipe to perf")?;
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
            .arg(folder.0.join("data"))
            .arg(format!("--max-size={}B", limits.bytes))
            // It begins when it is told to, and says so.
            .args(["-D", "-1"])
            .arg(format!(
                "--control=fifo:{},{}",
                control.display(),
                answer.display()
            ))
            .stdout(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        // It copies 70 MB a second: it shall not take that from what it samples.
        run_on(&process, place.beside.as_deref());
        let began = async {
            ask.write_all(b"enable\n").await?;
            told.read_u8().await
        };
        tokio::select! {
            began = timeout(PATIENCE, began) => match began {
                Ok(began) => began.context("perf does not answer").map(|_| ())?,
                Err(_) => bail!("perf did not begin to sample within {PATIENCE:?}"),
            },
            ended = process.wait() => {
                let mut words = String::new();
                if let Some(mut stderr) = process.stderr.take() {
                    let _ = stderr.read_to_string(&mut words).await;
                }
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                bail!(refusal(&words, &status));
            }
        }
        Ok(Self {
            process,
            folder,
            limits,
        })
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
        let data = self.folder.0.join("data");
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
        let words = self.folder.0.join("words");
        let errors = File::create(&words);
        let errors = errors.with_context(|| format!("cannot write {}", words.display()))?;
        let mut process = command("script")
            .arg("-i")
            .arg(data)
            // Looking up what was inlined takes perf minutes.
            .args(["--no-inline", "-F", FIELDS])
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
        false => format!("perf failed ({status}): {first}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_lies_in_the_runs_folder_already_stays() {
        let place = tempfile::tempdir().unwrap();
        let theirs = [place.path().join("perf"), place.path().join(".perf-0")];
        for folder in &theirs {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("mine"), "kept").unwrap();
        }
        let folder = Folder::make(place.path()).unwrap();
        let other = Folder::make(place.path()).unwrap();
        let ours = [folder.0.clone(), other.0.clone()];
        assert_ne!(ours[0], ours[1]);
        fs::write(ours[0].join("data"), "samples").unwrap();
        drop((folder, other));
        assert!(ours.iter().all(|folder| !folder.exists()));
        for folder in &theirs {
            assert_eq!(fs::read_to_string(folder.join("mine")).unwrap(), "kept");
        }
        let file = place.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert!(Folder::make(&file).is_err());
    }

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
        let ended = timeout(PATIENCE, perf.process.wait()).await;
        ended.expect("its limit ends it").unwrap();
        stop.store(true, Ordering::Relaxed);
        burning.join().unwrap();
        let taken = perf.finish(&place).await.unwrap();
        assert_eq!(taken.cut, Some(Cut::Size));
        let samples: u64 = taken.threads.values().map(Stacks::total).sum();
        assert!(samples > 50, "{samples}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "its files are gone");
        assert!(Cut::Size.told(1).contains("1024 MiB"));
        assert!(Cut::Time.told(3).contains("3 turns"));
    }

    #[test]
    fn every_name_taken_is_said() {
        let place = tempfile::tempdir().unwrap();
        let all: Vec<Folder> = (0..NAMES)
            .map(|_| Folder::make(place.path()).unwrap())
            .collect();
        let told = Folder::make(place.path()).err().unwrap().to_string();
        assert!(told.contains("remove those"), "{told}");
        drop(all);
        assert!(Folder::make(place.path()).is_ok());
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
        assert_eq!(
            refusal("", "exit status: 1"),
            "perf failed (exit status: 1): it said nothing"
        );
    }
}
