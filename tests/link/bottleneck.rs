//! A relay that more is asked of than it can do, for real.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::geteuid;

use crate::may_link;
use crate::support::tokenlag;

/// In its environment a process is told to be the command that sends too much.
const FLOODS: &str = "TOKENLAG_TEST_FLOODS";
/// Threads that send, and datagrams of each: without a priority of its own the relay has a share of the cores like each of them,
/// and takes longer for a packet than they do. Its devices hold 10,000.
const THREADS: usize = 8;
const DATAGRAMS: usize = 20_000;

#[test]
fn a_command_that_sends_more_than_a_relay_can_take() {
    if std::env::var_os(FLOODS).is_none() {
        return;
    }
    let server = std::env::var("TOKENLAG_LINK_SERVER").expect("it is behind a link");
    let flood = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
        // Nobody is there: the answers that say so make the relay's work no less.
        socket
            .connect((server.as_str(), 9))
            .expect("there is a way");
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

#[test]
fn a_link_that_drops_what_it_should_carry_says_so() {
    if !may_link() || !geteuid().is_root() {
        return;
    }
    let own = std::env::current_exe().expect("the test has a file");
    let own = own.to_str().expect("it has a name");
    let test = "bottleneck::a_command_that_sends_more_than_a_relay_can_take";
    let link = ["link", "--rtt", "0", "--", own, test, "--exact"];
    let plain = tokenlag(&link);
    // Without CAP_SYS_NICE the relay goes before nobody.
    let mut command = Command::new("setpriv");
    for (variable, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(variable);
    }
    let output = command
        .args(["--bounding-set", "-sys_nice"])
        .arg(plain.get_program())
        .args(plain.get_args())
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
