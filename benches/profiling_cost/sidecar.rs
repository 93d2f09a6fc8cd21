//! The proxy that is measured: its profiles, and the CPU time that it uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;
use tokenlag_probes::clock::wall_clock;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokenlag_profiling::{Frame, protobuf};

/// Between two looks at the CPU time.
const TICK: Duration = Duration::from_millis(20);
/// Samples of which some are in functions of the proxy itself.
const SAMPLES: u64 = 20;

/// A proxy in a process of its own; killed when dropped.
pub struct Sidecar {
    process: Child,
    pub listen: String,
    pub admin: String,
}

/// When a profile was asked for, its first sample could come, its last, and it was there.
#[derive(Clone, Copy, Debug)]
pub struct Profiled {
    pub asked: Stamp,
    pub began: Stamp,
    pub ended: Stamp,
    pub answered: Stamp,
}

impl Sidecar {
    pub fn start(upstream: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tokenlag"))
            .args(["proxy", "--listen", "127.0.0.1:0", "--no-quic"])
            .args(["--admin", "127.0.0.1:0", "--upstream", upstream])
            .args(["--upstream-api", "responses", "--report-ready"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it speaks");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        Self {
            listen: address("listen"),
            admin: address("admin"),
            process,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a process"))
    }

    /// Takes a profile at the usual rate. `None` where nothing was to be sampled, which the endpoint says.
    pub fn profile(&self, seconds: u64) -> Option<Profiled> {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin endpoint listens");
        let request = format!(
            "GET /debug/pprof/profile?seconds={seconds} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.admin
        );
        let (wall, asked) = (wall_clock(), MonoClock.now());
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answered = MonoClock.now();
        let status = answer.get(9..12).unwrap_or_default();
        if status == b"503" {
            return None;
        }
        assert!(status == b"200", "{}", String::from_utf8_lossy(&answer));
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let body = &answer[head.expect("a whole head") + 4..];
        has_names(body);
        let span = protobuf::span(body).expect("a profile");
        let span = span.expect("it says when it was taken");
        // Both clocks are of one host, and nobody sets the one within a second or two.
        let until = span.began.duration_since(wall).expect("it began later");
        let nanos = |span: Duration| i64::try_from(span.as_nanos()).expect("seconds");
        let began = asked.moved_by(nanos(until));
        Some(Profiled {
            asked,
            began,
            ended: began.moved_by(nanos(span.lasted)),
            answered,
        })
    }
}

/// A function of the proxy's own was sampled, under its name and with a line of its file: the build that is shipped keeps both.
fn has_names(profile: &[u8]) {
    let stacks = protobuf::decode(profile).expect("a profile");
    // Of an idle moment nothing is known.
    if stacks.total() < SAMPLES {
        return;
    }
    let is_own = |frame: &Frame| {
        let in_file = frame.file.contains("proxy/src/") && frame.line > 0;
        in_file && frame.function.contains("proxy::")
    };
    let has_own = (stacks.iter()).any(|(stack, _)| stack.iter().any(|frame| is_own(frame)));
    assert!(
        has_own,
        "none of the proxy's functions has a name and a line: {:?}",
        stacks.functions().into_keys().collect::<Vec<_>>()
    );
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads a process' CPU time now and then.
pub struct CpuTicks {
    over: Arc<AtomicBool>,
    reading: JoinHandle<Cpu>,
}

/// CPU time of all threads of a process, in nanoseconds, at moments one after another.
#[derive(Default)]
pub struct Cpu(Vec<(Stamp, f64)>);

impl CpuTicks {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of a process' CPU time, which no figure of an exchange is taken with"
    )]
    pub fn of(pid: Pid) -> Self {
        let clock = ClockId::pid_cpu_clock_id(pid).expect("processes have such a clock");
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let reading = thread::spawn(move || {
            let mut cpu = Cpu::default();
            while !seen.load(Ordering::Relaxed) {
                let used = clock_gettime(clock).expect("the process is there");
                let nanos = Duration::from(used).as_nanos() as f64;
                cpu.0.push((MonoClock.now(), nanos));
                thread::sleep(TICK);
            }
            cpu
        });
        Self { over, reading }
    }

    pub fn stop(self) -> Cpu {
        self.over.store(true, Ordering::Relaxed);
        self.reading.join().expect("it reads")
    }
}

impl Cpu {
    /// Until then, on the straight line between two looks; `None` before the first and after the last.
    pub fn at(&self, moment: Stamp) -> Option<f64> {
        let after = self.0.partition_point(|(at, _)| *at < moment);
        let (then, before) = self.0.get(after.checked_sub(1)?)?;
        let (now, used) = self.0.get(after)?;
        let share = moment.since(*then) as f64 / now.since(*then) as f64;
        Some(before + (used - before) * share)
    }
}
