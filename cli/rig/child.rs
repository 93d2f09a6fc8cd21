//! One child process: started, awaited until it is ready, watched until it is asked to end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokenlag_probes::{Clock, MonoClock};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Alarm, address};
use crate::{http, program};

/// How long a child may take until it is ready.
const READY: Duration = Duration::from_secs(20);
/// Between two looks at its health.
const POLL: Duration = Duration::from_millis(5);
/// Between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(1);
/// How much of its standard error is kept.
const TAIL: usize = 4_096;

/// What a child says when it has bound its addresses: one line of JSON on its standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Where it takes requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where it takes the QUIC channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    /// Where it serves its health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

/// A child that is running, or was.
pub struct Child {
    name: String,
    pid: u32,
    end: Option<oneshot::Sender<()>>,
    watch: JoinHandle<()>,
    fallen: Rc<RefCell<Option<String>>>,
}

/// A child that has not said yet that it is ready.
pub struct Starting {
    child: Child,
    stdout: ChildStdout,
}

impl Child {
    /// Starts this program once more, with other arguments.
    pub fn start(
        name: &str,
        args: Vec<OsString>,
        core: Option<usize>,
        alarm: &Alarm,
    ) -> anyhow::Result<Starting> {
        let start = |program: &Path| command(program, &args, core).spawn();
        let mut process =
            program::again(start).with_context(|| format!("cannot start the {name}"))?;
        let (Some(pid), Some(stdout), Some(stderr)) =
            (process.id(), process.stdout.take(), process.stderr.take())
        else {
            bail!("the {name} ended as soon as it was started");
        };
        let (end, asked) = oneshot::channel();
        let fallen = Rc::new(RefCell::new(None));
        let watch = tokio::task::spawn_local(watch(Watched {
            name: name.to_owned(),
            process,
            stderr,
            asked,
            fallen: fallen.clone(),
            alarm: alarm.clone(),
        }));
        let child = Self {
            name: name.to_owned(),
            pid,
            end: Some(end),
            watch,
            fallen,
        };
        Ok(Starting { child, stdout })
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Why it is gone, if it went before it was asked to.
    pub fn casualty(&self) -> Option<String> {
        self.fallen.borrow().clone()
    }

    /// Asks it to end.
    pub fn ask_to_end(&mut self) {
        if let Some(end) = self.end.take() {
            // Where nobody is there to be asked, it has ended.
            let _ = end.send(());
        }
    }

    /// Waits until it has ended.
    pub async fn ended(self) {
        let _ = self.watch.await;
    }
}

impl Starting {
    /// Waits until the child has bound its addresses and answers `path` at the one that `health` picks.
    ///
    /// # Errors
    /// It ended, it was not ready in time, or the run was stopped.
    pub async fn ready(
        self,
        path: &str,
        health: impl Fn(Ready) -> Option<String>,
        alarm: &Alarm,
    ) -> anyhow::Result<(Child, Ready)> {
        let Self { child, stdout } = self;
        let steps = async {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            stdout.read_line(&mut line).await?;
            // Read on, so that the child never blocks on a pipe that is full.
            tokio::task::spawn_local(drain(stdout));
            let ready: Ready = serde_json::from_str(&line)
                .map_err(|_| anyhow!("the {} did not say where it listens", child.name))?;
            let base = address(&health(ready.clone()).unwrap_or_default())?;
            let deadline = MonoClock.now() + READY;
            while let Err(error) = http::get(&base, None, path, &[], READY).await {
                if MonoClock.now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(POLL).await;
            }
            anyhow::Ok(ready)
        };
        let outcome = alarm.stop.or(timeout(READY, steps)).await;
        let name = &child.name;
        match outcome {
            Some(Ok(Ok(ready))) => return Ok((child, ready)),
            Some(Ok(Err(error))) => {
                // An end of its output comes just before its end: its last words say more.
                tokio::time::sleep(Duration::from_millis(100)).await;
                match child.casualty() {
                    Some(reason) => bail!(reason),
                    None => return Err(error.context(format!("the {name} did not become ready"))),
                }
            }
            Some(Err(_)) => bail!("the {name} was not ready within {READY:?}"),
            None => {}
        }
        match child.casualty() {
            Some(reason) => bail!(reason),
            None => bail!("stopped while the {name} was starting"),
        }
    }
}

struct Watched {
    name: String,
    process: tokio::process::Child,
    stderr: ChildStderr,
    asked: oneshot::Receiver<()>,
    fallen: Rc<RefCell<Option<String>>>,
    alarm: Alarm,
}

/// Waits for the child's end, whoever wants it.
async fn watch(mut watched: Watched) {
    let tail = Rc::new(RefCell::new(VecDeque::new()));
    let reading = tokio::task::spawn_local(keep_tail(watched.stderr, tail.clone()));
    tokio::select! {
        status = watched.process.wait() => {
            // Its last words may still be in the pipe.
            let _ = timeout(Duration::from_millis(100), reading).await;
            *watched.fallen.borrow_mut() = Some(obituary(&watched.name, status.ok(), &tail.borrow()));
            watched.alarm.stopper.stop();
        }
        _ = watched.asked => {
            terminate(&mut watched.process).await;
            reading.abort();
        }
    }
}

async fn terminate(process: &mut tokio::process::Child) {
    if let Some(pid) = process.id() {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    if timeout(GRACE, process.wait()).await.is_err() {
        let _ = process.kill().await;
    }
}

fn obituary(name: &str, status: Option<ExitStatus>, tail: &VecDeque<u8>) -> String {
    let status = status.map_or_else(
        || "for reasons unknown".to_owned(),
        |status| status.to_string(),
    );
    let words: Vec<u8> = tail.iter().copied().collect();
    let words = String::from_utf8_lossy(&words);
    match words.trim() {
        "" => format!("the {name} ended early ({status}) and said nothing"),
        words => format!("the {name} ended early ({status}); its last words:\n{words}"),
    }
}

async fn keep_tail(mut stderr: ChildStderr, tail: Rc<RefCell<VecDeque<u8>>>) {
    let mut buffer = [0; 1_024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let mut tail = tail.borrow_mut();
        tail.extend(&buffer[..count]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}

async fn drain(mut stdout: BufReader<ChildStdout>) {
    let mut buffer = [0; 1_024];
    while let Ok(1..) = stdout.read(&mut buffer).await {}
}

/// What starts `program` as a child of this one.
fn command(program: &Path, args: &[OsString], core: Option<usize>) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .arg("--report-ready")
        .arg(format!("--die-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Signals to this process's group (Ctrl-C, `timeout`) are this process's to act upon: a child that ended
        // by them would end before what it was measured at is kept.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(core) = core {
        command.arg(format!("--pin={core}"));
    }
    // What the user set for this command is not meant for its children.
    for (variable, _) in std::env::vars_os() {
        let ours = variable
            .to_str()
            .is_some_and(|name| name.starts_with("TOKENLAG_"));
        if ours || variable == "OPENAI_API_KEY" {
            command.env_remove(variable);
        }
    }
    command
}
