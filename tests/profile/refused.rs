//! Processes that the system does not let sample themselves: each is told, with the cause, before time is spent on it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use tokenlag_scripted::ScriptedBackend;

use super::support::{assert_code, assert_tells, signal, stderr, tokenlag, wait_until};
use super::{ask, protobuf, small, words};

/// Has what follows run under a filter that refuses `setitimer` with EPERM (seccomp(2); its numbers are those of linux/filter.h,
/// linux/seccomp.h and the syscall tables of both machines).
const FILTERED: &str = r"
import ctypes, os, platform, struct, sys
setitimer = {'x86_64': 38, 'aarch64': 103}[platform.machine()]
program = [(0x20, 0, 0, 0), (0x15, 0, 1, setitimer), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in program))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
program = Filter(len(program), ctypes.addressof(code))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
";

/// The same command under that filter.
fn filtered(command: &Command) -> Command {
    let mut filtered = Command::new("python3");
    filtered
        .args(["-c", FILTERED])
        .arg(command.get_program())
        .args(command.get_args());
    filtered
}

/// Started with the sampler's signal blocked, which a process has of the thread that starts it.
fn blocked(command: &mut Command) -> Child {
    let profiled = SigSet::from(Signal::SIGPROF);
    profiled.thread_block().expect("a mask");
    let started = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    profiled.thread_unblock().expect("a mask");
    started.expect("it starts")
}

/// A proxy, and where it listens; killed when dropped.
struct Proxy {
    process: Child,
    listen: String,
    admin: String,
}

impl Proxy {
    fn of(mut process: Child) -> Self {
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn proxy(upstream: &str) -> Command {
    let flags =
        "proxy --listen 127.0.0.1:0 --no-quic --admin 127.0.0.1:0 --report-ready --upstream";
    let flags: Vec<&str> = flags.split(' ').chain([upstream]).collect();
    tokenlag(&flags)
}

/// A run that would take a minute ended before it began.
#[track_caller]
fn assert_refused(output: &Output, cause: &str) {
    assert_code(output, 1);
    assert_tells(output, "cannot sample the load generator");
    assert_tells(output, cause);
    assert_tells(output, "--sampler perf");
    assert!(!stderr(output).contains("warming up"), "{}", stderr(output));
}

#[test]
fn a_blocked_signal_is_told_before_the_run_and_at_the_endpoint() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let flags = small(place, &["--channels", "http", "--duration", "60s"]);
    let output = blocked(&mut tokenlag(&flags)).wait_with_output();
    assert_refused(&output.expect("it ends"), "SIGPROF blocked");

    let proxy = Proxy::of(blocked(&mut proxy("http://127.0.0.1:9")));
    for (method, what) in [("GET", "profile"), ("GET", "flamegraph"), ("POST", "start")] {
        let path = format!("/debug/pprof/{what}?seconds=300");
        let (status, why) = words(ask(&proxy.admin, method, &path));
        assert_eq!(status, 503, "{why}");
        assert!(why.contains("SIGPROF blocked"), "{why}");
    }
}

#[test]
fn a_timer_that_is_refused_is_told_before_the_run_and_at_the_endpoint() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let flags = small(place, &["--channels", "http", "--duration", "60s"]);
    let output = filtered(&tokenlag(&flags)).output().expect("it starts");
    assert_refused(&output, "setitimer");

    let script = "ttft=1ms,gap=1ms,tokens=200".parse();
    let backend = ScriptedBackend::start(script.expect("a script")).expect("it starts");
    let started = filtered(&proxy(&backend.url()))
        .stdout(Stdio::piped())
        .spawn();
    let proxy = Proxy::of(started.expect("it starts"));
    let url = format!("http://{}", proxy.listen);
    let load = "load --model m --concurrency 8 --duration 120s --ui none --allow-untrusted --url";
    let load: Vec<&str> = load.split(' ').chain([url.as_str()]).collect();
    let load = tokenlag(&load)
        .arg("--out")
        .arg(folder.path().join("load"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut load = load.expect("it starts");
    // Profiles that are too short to tell are empty, and what the process used in them adds up.
    let mut said = String::new();
    wait_until("the cause is told", Duration::from_secs(60), || {
        let (status, why) = words(ask(&proxy.admin, "GET", "/debug/pprof/profile?seconds=1"));
        assert_eq!(status, 503, "{why}");
        said = why;
        said.contains("setitimer")
    });
    assert!(said.starts_with("cannot sample this process"), "{said}");
    signal(load.id() as i32, Signal::SIGINT);
    let _ = load.wait();
}

#[test]
fn no_room_for_temporary_files_is_told_and_there_may_be_some_later() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let later = folder.path().join("later");
    let mut proxy = proxy("http://127.0.0.1:9");
    let started = proxy.env("TMPDIR", &later).stdout(Stdio::piped()).spawn();
    let proxy = Proxy::of(started.expect("it starts"));
    let asked = |what: &str| ask(&proxy.admin, "POST", &format!("/debug/pprof/{what}"));
    for _ in 0..2 {
        let (status, why) = words(asked("start?seconds=60"));
        assert_eq!(status, 500, "{why}");
        assert!(why.contains("TMPDIR") && why.contains("later"), "{why}");
    }
    std::fs::create_dir(&later).expect("it is made");
    assert_eq!(asked("start?seconds=60").0, 200);
    let (status, packed) = asked("stop");
    assert_eq!(status, 200);
    protobuf::decode(&packed).expect("a profile, if an empty one");
}
