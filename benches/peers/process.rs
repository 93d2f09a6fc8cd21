//! A process under test: started on its core, ended with this one, and what it has spent.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenlag_probes::{Clock, MonoClock, Stamp};

use crate::install::Program;

/// Between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A running process, which ends when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    words: PathBuf,
}

impl Process {
    /// Starts `program` on `core`. What it says goes to a file in `folder`.
    ///
    /// The kernel ends it with this thread: the one that starts processes must be that which outlives them.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Program,
        arguments: impl IntoIterator<Item = A>,
        core: usize,
        folder: &Path,
    ) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{name} cannot be started: {error}");
        let path = folder.join(format!("{name}.words"));
        let words = File::create(&path).map_err(failed)?;
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &core.to_string()])
            .args(["setpriv", "--pdeathsig", "TERM"])
            .arg(&program.path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(words.try_clone().map_err(failed)?)
            .stderr(words);
        if let Some(libraries) = &program.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(Self {
            name: name.to_owned(),
            child: command.spawn().map_err(failed)?,
            words: path,
        })
    }

    /// The first line that it writes.
    pub fn first_line(&mut self, deadline: Stamp) -> Result<String, String> {
        let mut line = String::new();
        let words = self.words.clone();
        let whole = || {
            let said = fs::read_to_string(&words).unwrap_or_default();
            let found = said.split_once('\n');
            line = found.map_or(String::new(), |(first, _)| first.to_owned());
            found.is_some()
        };
        self.wait_until(whole, deadline)?;
        Ok(line)
    }

    /// Waits until `ready`, at most until `deadline`; an error where the process is gone before.
    pub fn wait_until(
        &mut self,
        mut ready: impl FnMut() -> bool,
        deadline: Stamp,
    ) -> Result<(), String> {
        while !ready() {
            if self.has_ended() {
                return Err(self.obituary());
            }
            if MonoClock.now() > deadline {
                return Err(format!("{} took too long", self.name));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, with its last words.
    pub fn obituary(&mut self) -> String {
        let status = self.child.wait();
        let status = status.map_or("for reasons unknown".to_owned(), |status| {
            status.to_string()
        });
        let words = fs::read_to_string(&self.words).unwrap_or_default();
        let tail: Vec<&str> = words.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{} ended ({status}): {}", self.name, tail.join("; "))
    }

    /// CPU time in nanoseconds that it and its descendants have taken so far.
    ///
    /// A thread's time goes with it when it ends; those of the programs here stay.
    pub fn cpu(&self) -> u64 {
        let of_thread = |task: PathBuf| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.family()
            .into_iter()
            .flat_map(tasks)
            .filter_map(of_thread)
            .sum()
    }

    /// Memory in bytes that is resident, of it and its descendants.
    pub fn resident(&self) -> u64 {
        let of_process = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        self.family().into_iter().filter_map(of_process).sum()
    }

    /// It and its descendants.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            next += 1;
            for task in tasks(pid) {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                family.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
        }
        family
    }
}

/// The folders of a process's threads.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.map_or(Vec::new(), |threads| {
        threads.flatten().map(|thread| thread.path()).collect()
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its family ends with it: each is asked, since some programs leave their children behind.
        let family = self.family();
        for pid in &family {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGTERM);
        }
        let deadline = MonoClock.now() + GRACE;
        while !self.has_ended() && MonoClock.now() < deadline {
            std::thread::sleep(POLL);
        }
        if !self.has_ended() {
            for pid in family {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}
