//! AIPerf over the same cell, in the same run: what a user of it would have read.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokenlag_probes::{Clock, MonoClock};
use tokenlag_scripted::{Lateness, ScriptedBackend};

use crate::cell::{Cell, TTFT};

/// How long it may take beside the cell's schedule, most of it to start.
const START: Duration = Duration::from_secs(180);
/// How many times as long as the schedule says it may take to measure.
const SLOWNESS: u32 = 10;
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// What AIPerf reported.
pub struct Reported {
    /// Its mean time to the first token minus the true one, in milliseconds.
    pub ttft_error: f64,
    /// The 99th percentile of its time to the first token minus the script's.
    pub ttft_error_p99: f64,
    /// The 99th percentile of its gaps, in milliseconds.
    pub gap_p99: f64,
    pub late: Lateness,
}

/// Has `command` measure the instrument over HTTP/1.1.
pub fn measure(
    command: &str,
    tokenizer: &str,
    cell: Cell,
    backend: &ScriptedBackend,
) -> Result<Reported, String> {
    backend.set_script(cell.script());
    backend.take_lateness();
    let folder = std::env::temp_dir().join(format!("tokenlag-aiperf-{}", std::process::id()));
    let said = folder.with_extension("log");
    let log = || fs::File::create(&said).map_or_else(|_| Stdio::null(), Stdio::from);
    let requests = cell.streams * cell.turns;
    let mut process = Command::new(command)
        .args(["profile", "-m", "scripted", "--endpoint-type", "chat"])
        .args(["--streaming", "--tokenizer", tokenizer, "--ui", "none"])
        .args(["--url", &backend.url()])
        .args(["--concurrency", &cell.streams.to_string()])
        .args(["--request-count", &requests.to_string()])
        .args(["--isl", "64", "--osl", &cell.tokens.to_string()])
        .arg("--output-artifact-dir")
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log())
        // It starts others, which are ended with it.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            format!("cannot run '{command}': {error}; name it with --aiperf=COMMAND, or leave it out with no-aiperf")
        })?;
    let limit = START + cell.span(false) * SLOWNESS;
    let reported = match ended_within(&mut process, limit) {
        Ok(Some(status)) if status.success() => read(&folder),
        Ok(Some(status)) => Err(format!(
            "'{command} profile' ended with {status}: {}; where it cannot fetch a tokenizer, tokenizer=DIRECTORY gives it one",
            last_line(&said)
        )),
        Ok(None) => Err(format!("'{command} profile' was not over within {limit:?}")),
        Err(error) => Err(format!("'{command} profile' is lost: {error}")),
    };
    // It lies in the system's folder for such.
    let _ = fs::remove_dir_all(&folder);
    let _ = fs::remove_file(&said);
    let (ttft, ttft_p99, gap_p99) = reported?;
    let late = backend.take_lateness();
    let script = TTFT.as_secs_f64() * 1e3;
    Ok(Reported {
        ttft_error: ttft - script - late.mean / 1e6,
        ttft_error_p99: ttft_p99 - script,
        gap_p99,
        late,
    })
}

/// What it said last: its reason, where it names one.
fn last_line(said: &Path) -> String {
    let text = fs::read(said).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing").trim().to_owned()
}

/// How the process ended; `None` where it did not in time, and was ended with all that it had started.
fn ended_within(process: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let until = MonoClock.now() + limit;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if MonoClock.now() >= until {
            // Its group has its number. What is gone already need not be ended.
            let _ = killpg(Pid::from_raw(process.id() as i32), Signal::SIGKILL);
            return process.wait().map(|_| None);
        }
        thread::sleep(LOOK);
    }
}

/// Mean and 99th percentile of the time to the first token, and that of the gaps.
fn read(folder: &Path) -> Result<(f64, f64, f64), String> {
    let path = folder.join("profile_export_aiperf.json");
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| named(&error))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| named(&error))?;
    let figure = |name: &str, which: &str| {
        let value = json[name][which].as_f64();
        value.ok_or_else(|| named(&format!("no {name}.{which}")))
    };
    Ok((
        figure("time_to_first_token", "avg")?,
        figure("time_to_first_token", "p99")?,
        figure("inter_chunk_latency", "p99").or_else(|_| figure("inter_token_latency", "p99"))?,
    ))
}
