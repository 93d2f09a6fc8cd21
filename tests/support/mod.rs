//! What the tests of the command share: running it, its children, a backend, a server that misbehaves on purpose.

#![allow(dead_code, reason = "each test binary uses a part of what they share")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokenlag_probes::{Clock, MonoClock, Stamp};

/// The command, without what the environment of the test run would tell it.
pub fn tokenlag(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenlag"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("OPENAI_API_KEY");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TOKENLAG_") {
            command.env_remove(variable);
        }
    }
    command
}

/// The same command, heeding Ctrl-C and the closing of its terminal whatever the test run was started to ignore: `nohup` and a
/// shell's `&` hand that on.
pub fn heeding_signals(command: &Command) -> Command {
    let mut heeding = Command::new("env");
    heeding
        .arg("--default-signal=HUP,INT,QUIT")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => heeding.env(name, value),
            None => heeding.env_remove(name),
        };
    }
    heeding
}

/// Where this variable is set, emulated links can be had, and a test that cannot have one fails.
const MUST_LINK: &str = "TOKENLAG_TESTS_MUST_LINK";

/// Says why a test checks nothing here; a failure where that must not be.
#[track_caller]
pub fn not_checked(why: &str) {
    assert!(std::env::var_os(MUST_LINK).is_none(), "not checked: {why}");
    eprintln!("not checked: {why}");
}

/// A comparison small enough for a test, whole enough to have every part; with `more` flags.
pub fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let small =
        "compare --blocks 2 --turns 2 --isl 48 --later-isl 8 --osl 6 --ui none --allow-untrusted";
    small.split(' ').chain(more.iter().copied()).collect()
}

/// Runs a small comparison that succeeds, with `more` flags; gives its report and its manifest.
#[track_caller]
pub fn compared(more: &[&str]) -> (Value, Value) {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let mut args = small(more);
    args.extend(["--out", out.to_str().expect("text")]);
    assert_code(&run(&args), 0);
    (json(&out.join("report.json")), json(&out.join("run.json")))
}

/// A report's rows by name, as in `quic/full/compact`; every exchange of theirs completed, and all but the control's were
/// joined with the proxy's stamps.
#[track_caller]
pub fn rows_of(report: &Value) -> Vec<(String, &Value)> {
    let rows = report["channels"].as_array().expect("there are rows");
    let named = |row: &Value| {
        let part = |name: &str| row[name].as_str().expect("a name");
        let mut name = format!("{}/{}", part("channel"), part("state"));
        if part("encoding") == "compact" {
            name.push_str("/compact");
        }
        assert_eq!(row["failed"], 0, "{row}");
        let joined = row["metrics"]["roundtrip_overhead"]["count"].as_u64();
        let expected = row["completed"]
            .as_u64()
            .filter(|_| part("channel") != "direct");
        assert_eq!(joined, expected, "{row}");
        name
    };
    rows.iter().map(|row| (named(row), row)).collect()
}

/// A counter of a row; `None` where it was not measured.
pub fn counter(row: &Value, name: &str) -> Option<f64> {
    row["counters"][name].as_f64()
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    tokenlag(args).output().expect("the command starts")
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails unless the command ended with `code`; shows what it said.
#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout:\n{}\nstderr:\n{}",
        stdout(output),
        stderr(output)
    );
    assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
}

/// Fails unless the command said `text` on standard error; shows what it said.
#[track_caller]
pub fn assert_tells(output: &Output, text: &str) {
    assert!(stderr(output).contains(text), "{}", stderr(output));
}

/// A JSON file.
pub fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("the file is JSON")
}

/// Processes that a rig under the process `parent` started and that are still alive: their command lines and numbers.
pub fn children_of_rig(parent: u32) -> Vec<(String, i32)> {
    let mark = format!("--die-with-parent={parent}");
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // A process that is dead and not yet waited for has an empty command line.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        if line.contains(&mark) {
            children.push((line, pid));
        }
    }
    children
}

/// Waits until `done`, for at most `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = MonoClock.now() + limit;
    while !done() {
        assert!(MonoClock.now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Seconds since `start`.
pub fn seconds_since(start: Stamp) -> f64 {
    MonoClock.now().since(start) as f64 / 1e9
}

/// Sends a signal to one process, or with a negative number to its group.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// Starts a server and reads the one line in which it says where it listens.
fn start(args: &[&str]) -> (Child, Value) {
    let mut process = tokenlag(args)
        .arg("--report-ready")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let stdout = process.stdout.as_mut().expect("standard output is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the server speaks");
    let ready = serde_json::from_str(&line).expect("one line of JSON");
    (process, ready)
}

/// `tokenlag backend` on a port of its own; killed when dropped.
pub struct Backend {
    process: Child,
    /// Where it listens, as in `http://127.0.0.1:4000`.
    pub url: String,
}

impl Backend {
    pub fn start() -> Self {
        let (process, ready) = start(&["backend", "--listen", "127.0.0.1:0"]);
        let address = ready["listen"].as_str().expect("it says where it listens");
        Self {
            url: format!("http://{address}"),
            process,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `tokenlag proxy` on ports of its own; killed when dropped.
pub struct Proxy {
    process: Child,
    pub listen: String,
    pub quic: String,
    pub admin: String,
    /// The file with the certificate that it shows on encrypted channels.
    pub trust: String,
    /// The file with its key.
    pub key: String,
    _files: tempfile::TempDir,
}

impl Proxy {
    pub fn start(upstream: &str) -> Self {
        Self::start_with(upstream, &[])
    }

    /// The same with further flags.
    pub fn start_with(upstream: &str, more: &[&str]) -> Self {
        let identity =
            tokenlag_channel::tls::self_signed(&["127.0.0.1"]).expect("a certificate is made");
        let files = tempfile::tempdir().expect("there is room for files");
        let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        fs::write(&cert, &identity.cert_pem).expect("the certificate is written");
        fs::write(&key, &identity.key_pem).expect("the key is written");
        let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
        let any = "127.0.0.1:0";
        let mut args = vec!["proxy", "--listen", any, "--admin", any];
        args.extend(["--upstream", upstream, "--cert", cert, "--key", key]);
        args.extend(more);
        let (process, ready) = start(&args);
        let address = |name: &str| {
            ready[name]
                .as_str()
                .expect("it says where it listens")
                .to_owned()
        };
        Self {
            listen: address("listen"),
            quic: address("quic"),
            admin: address("admin"),
            trust: cert.to_owned(),
            key: key.to_owned(),
            process,
            _files: files,
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that answers chat requests well until `good` of them are done, and then with status 500.
pub fn failing_server(good: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let answered = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answered = answered.clone();
            thread::spawn(move || serve(stream, &answered, good));
        }
    });
    address
}

/// A port on which nobody listens.
pub fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound")
}

const REPLY: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n\
    data: [DONE]\n\n";
const ERROR: &str =
    "HTTP/1.1 500 Oops\r\nconnection: close\r\ncontent-length: 13\r\n\r\nout of tokens";

fn serve(mut stream: TcpStream, answered: &AtomicUsize, good: usize) {
    let mut request = Vec::new();
    let mut buffer = [0; 4_096];
    while !is_whole(&request) {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let reply = if answered.fetch_add(1, Ordering::SeqCst) < good {
        REPLY
    } else {
        ERROR
    };
    let _ = stream.write_all(reply.as_bytes());
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}
