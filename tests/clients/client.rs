//! Running a client that is not ours: to its end or to a limit, with whatever it started.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{signal, stderr, stdout, wait_until};

/// Longer than any client here needs on a busy machine of two cores.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a client to its end; fails where it cannot be started (`remedy` says what to install) or does not end.
#[track_caller]
pub fn run(command: &mut Command, remedy: &str) -> Output {
    run_within(LIMIT, command, remedy)
}

/// The same with a limit of its own.
#[track_caller]
pub fn run_within(limit: Duration, command: &mut Command, remedy: &str) -> Output {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What the clients here talk to is on this machine.
        .env("NO_PROXY", "127.0.0.1")
        // Its own group: a launcher is killed with the program that it launched.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| {
            let program = command.get_program();
            panic!("{program:?} cannot be started ({error}); {remedy}")
        });
    let stdout = drained(process.stdout.take());
    let stderr = drained(process.stderr.take());
    let mut process = Group(process);
    let mut status = None;
    wait_until(&format!("{command:?} ends"), limit, || {
        status = process.0.try_wait().expect("it is a child");
        status.is_some()
    });
    Output {
        status: status.expect("it has ended"),
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    }
}

/// Both outputs, for the message of a failure.
pub fn said(output: &Output) -> String {
    format!(
        "{}\nstdout:\n{}\nstderr:\n{}",
        output.status,
        stdout(output),
        stderr(output)
    )
}

/// A process and its group, killed when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            signal(-(self.0.id() as i32), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

/// Reads beside the waiting: a client that fills a pipe would never end.
fn drained(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before a broken pipe is worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
