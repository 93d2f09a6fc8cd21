//! `perf record` on both ends of a row while it has its turn: 4,000 samples in a second of CPU time, with the kernel's functions.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokenlag_profiling::Stacks;
use tokenlag_profiling::perf::{FIELDS, Thread, parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Samples in a second of CPU time.
pub const HERTZ: u32 = 4_000;
/// Bytes of its stack that are kept with a sample, from which its frames are found afterwards.
const STACK: &str = "dwarf,16384";
/// How long it may take to begin, and to put its samples in order.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names that are tried for its folder.
const NAMES: u32 = 100;

/// A recording that is under way; dropped, it ends and its file goes.
pub struct Perf {
    process: Child,
    folder: Folder,
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
    /// Begins to sample the processes `pids`; its files are in `folder` until it is over.
    ///
    /// # Errors
    /// There is no perf, or it may not.
    pub async fn start(pids: &[u32], folder: &Path) -> anyhow::Result<Self> {
        let folder = Folder::make(folder)?;
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
        Ok(Self { process, folder })
    }

    /// Ends it: the stacks of each thread.
    ///
    /// # Errors
    /// perf failed.
    pub async fn finish(mut self) -> anyhow::Result<BTreeMap<Thread, Stacks>> {
        if let Some(pid) = self.process.id() {
            // Where it has ended already, its file is there.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGINT);
        }
        let ended = timeout(PATIENCE, self.process.wait()).await;
        ended.with_context(|| format!("perf record did not end within {PATIENCE:?}"))??;
        let printed = command("script")
            .arg("-i")
            .arg(self.folder.0.join("data"))
            // Looking up what was inlined takes perf minutes.
            .args(["--no-inline", "-F", FIELDS])
            .output();
        let printed = timeout(PATIENCE, printed).await;
        let printed =
            printed.with_context(|| format!("perf script was not done within {PATIENCE:?}"))?;
        let printed = printed.map_err(not_started)?;
        if !printed.status.success() {
            bail!(refusal(
                &String::from_utf8_lossy(&printed.stderr),
                &printed.status.to_string()
            ));
        }
        Ok(parse(&String::from_utf8_lossy(&printed.stdout)))
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
