//! A relay that more is asked of than it can do, for real.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::geteuid;
use tokenlag_link::Namespace;

use crate::support::{assert_code, json, stdout, tokenlag, wait_until};
use crate::{PATIENCE, may_link};

/// In its environment a process is told to be the command that sends too much.
const FLOODS: &str = "TOKENLAG_TEST_FLOODS";
/// Threads that send, and datagrams of each: without a priority of its own the relay has a share of the cores like each of them,
/// and takes longer for a packet than they do. Its devices hold 10,000.
const THREADS: usize = 8;
const DATAGRAMS: usize = 20_000;

#[test]
fn a_command_that_sends_more_than_a_relay_can_take() {
    if std::env::var_os(FLOODS).is_some() {
        let server = std::env::var("TOKENLAG_LINK_SERVER").expect("it is behind a link");
        flood(&server);
    }
}

/// Sends from all threads, from the calling one's network.
fn flood(server: &str) {
    let flood = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
        // Nobody is there: the answers that say so make the relay's work no less.
        socket.connect((server, 9)).expect("there is a way");
        for _ in 0..DATAGRAMS {
            let _ = socket.send(&[0]);
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(flood);
        }
    });
}

/// The same command without CAP_SYS_NICE: its relay goes before nobody.
fn without_priority(plain: &Command) -> Command {
    let mut command = Command::new("setpriv");
    for (variable, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(variable);
    }
    command
        .args(["--bounding-set", "-sys_nice"])
        .arg(plain.get_program())
        .args(plain.get_args());
    command
}

#[test]
fn a_link_that_drops_what_it_should_carry_says_so() {
    if !may_link() || !geteuid().is_root() {
        return;
    }
    let own = std::env::current_exe().expect("the test has a file");
    let own = own.to_str().expect("it has a name");
    let test = "bottleneck::a_command_that_sends_more_than_a_relay_can_take";
    let link = ["link", "--rtt", "0", "--", own, test, "--exact"];
    let output = without_priority(&tokenlag(&link))
        .env(FLOODS, "1")
        .stdout(Stdio::null())
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8_lossy(&output.stderr);
    let warning = told.lines().find(|line| line.contains("the bottleneck"));
    let warning = warning.unwrap_or_else(|| panic!("{told}"));
    assert!(warning.contains("warning: the emulated link was the bottleneck: its relay dropped"));
    assert!(!warning.contains("dropped 0 packets"), "{warning}");
}

#[test]
fn a_comparison_whose_link_drops_what_it_should_carry_is_not_trusted() {
    if !may_link() || !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let fixed = "compare --link rtt=0 --channels http --state full --no-direct --blocks 3 --turns 3 --isl 48 --later-isl 8 --osl 12 \
                 --ui none --out";
    let mut args: Vec<&str> = fixed.split_whitespace().collect();
    args.push(out.to_str().unwrap());
    let child = without_priority(&tokenlag(&args))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A neighbour on the client's side, as soon as there is one.
    let path = format!("/proc/{}/ns/net", child.id());
    let home = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let mut behind = None;
    wait_until("the load generator is behind the link", PATIENCE, || {
        let file = File::open(&path).ok();
        behind = file.filter(|file| file.metadata().is_ok_and(|it| it.ino() != home));
        behind.is_some()
    });
    let behind = Namespace::inherited(behind.unwrap().as_raw_fd()).unwrap();
    behind.within(|| flood("198.18.0.2")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 3);
    let report = json(&out.join("report.json"));
    let mut warnings = report["verdict"]["warnings"].as_array().unwrap().iter();
    let warning = warnings.find(|it| it["code"] == "link_bottleneck");
    let warning = warning.unwrap_or_else(|| panic!("{}", report["verdict"]));
    let message = warning["message"].as_str().unwrap();
    assert!(
        message.starts_with("the emulated link was the bottleneck"),
        "{message}"
    );
    let did = &report["link"];
    let dropped = did["unread"].as_u64().unwrap() + did["up"]["overflow"].as_u64().unwrap();
    let busiest = did["relay_busiest_share"].as_f64().unwrap();
    assert!(dropped > 0 || busiest > 0.8, "{did}");
    // What the relay read and what it never came to: the flood, and more.
    let came = did["unread"].as_u64().unwrap() + did["up"]["packets"].as_u64().unwrap();
    assert!(came > DATAGRAMS as u64, "{did}");
    let text = stdout(&output);
    assert!(text.contains("in its busiest 100 ms"), "{text}");
}
