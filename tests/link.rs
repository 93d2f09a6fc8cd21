//! `tokenlag link`, and `--link`, as users run them. Where this process may make no namespaces, each test checks that the
//! error says what is missing.

#[path = "link/bottleneck.rs"]
mod bottleneck;
#[path = "link/left.rs"]
mod left;
#[path = "link/runs.rs"]
mod runs;
#[path = "link/signals.rs"]
mod signals;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use support::{
    assert_code, assert_tells, heeding_signals, not_checked, run, stderr, stdout, tokenlag,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is said where the rights are missing.
const RIGHTS: &str = "an emulated link needs CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// Whether the process may make links; checks the error where it may not.
fn may_link() -> bool {
    let output = run(&["link", "--rtt", "1ms", "--", "true"]);
    if !stderr(&output).contains(RIGHTS) {
        return true;
    }
    assert_code(&output, 1);
    assert_tells(&output, "sudo");
    not_checked(stderr(&output).trim());
    false
}

/// Runs `script` by the shell behind a link with `flags`.
fn behind(flags: &[&str], script: &str) -> Output {
    let mut args = vec!["link"];
    args.extend(flags);
    args.extend(["--", "bash", "-c", script]);
    run(&args)
}

/// Starts `script` behind a link; gives its first line too.
fn started(script: &str) -> (Child, String) {
    let behind = tokenlag(&["link", "--rtt", "4ms", "--", "bash", "-c", script]);
    let mut child = heeding_signals(&behind)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it has a standard output");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it can be read");
    (child, line.trim().to_owned())
}

/// The network namespace of a process; `None`: there is no such process.
fn namespace_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// Whether any process is in that namespace.
fn is_used(namespace: &PathBuf) -> bool {
    let processes = fs::read_dir("/proc").expect("there is a /proc").flatten();
    processes
        .filter_map(|process| namespace_of(&process.file_name().to_string_lossy()))
        .any(|used| used == *namespace)
}

/// What of the host's network a link could leave behind.
fn host() -> (Vec<String>, String, Vec<String>) {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
    let name = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
    let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let named = fs::read_dir("/run/netns").map_or_else(
        |_| Vec::new(),
        |files| {
            let names = files.flatten().map(|file| file.file_name());
            names.map(|name| name.to_string_lossy().into()).collect()
        },
    );
    (devices.lines().filter_map(name).collect(), routes, named)
}

#[test]
fn a_command_is_told_of_the_link_and_its_end_is_passed_on() {
    if !may_link() {
        return;
    }
    let script = "echo $TOKENLAG_LINK_SERVER $TOKENLAG_LINK_CLIENT; echo $TOKENLAG_LINK_SPEC; cat /proc/net/dev; exit 7";
    let output = behind(
        &["--link", "metro", "--jitter", "2ms", "--cc", "reno"],
        script,
    );
    assert_code(&output, 7);
    let said = stdout(&output);
    assert!(
        said.starts_with("198.18.0.2 198.18.0.1\ndelay=2.5ms,jitter=2ms,rate=1gbit,"),
        "{said}"
    );
    assert!(said.contains(" link:") && !said.contains("eth0"), "{said}");
    assert_tells(
        &output,
        "TCP reno on the client's side, reno on the server's; the server is 198.18.0.2",
    );
    assert_tells(&output, "packets up");
    assert_code(&behind(&["--rtt", "0"], "kill -9 $$"), 128 + 9);
    let missing = run(&["link", "--rtt", "0", "--", "/no/such/program"]);
    assert_code(&missing, 127);
    assert_tells(&missing, "cannot run '/no/such/program'");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    for (args, says) in [
        (&["--rtt", "40", "--", "true"][..], "--rtt: write a span"),
        (
            &["--link", "moon", "--", "true"],
            "known: loopback, lan, metro",
        ),
        (
            &["--rtt", "1ms", "--delay", "1ms", "--", "true"],
            "cannot be used with",
        ),
        (&["--forward", "x", "--", "true"], "PORT=HOST:PORT"),
        (&["--rtt", "1ms"], "name what to run"),
        (&["--check", "--", "true"], "leave the command out"),
        (&["--show", "moon"], "no link is named 'moon'"),
    ] {
        let output = run(&[&["link"], args].concat());
        assert_code(&output, 2);
        assert_tells(&output, says);
    }
    let compare = run(&["compare", "--link", "rtt=40ms,rtt=50ms"]);
    assert_code(&compare, 2);
    assert_tells(&compare, "rtt is there twice");
    let given = [
        "--proxy",
        "http://127.0.0.1:9",
        "--proxy-admin",
        "http://127.0.0.1:9",
    ];
    let given = run(&[&["compare", "--link", "lan"], &given[..]].concat());
    assert_code(&given, 2);
    assert_tells(&given, "leave --proxy out");
    let netem = run(&["link", "--link-via", "netem", "--", "true"]);
    assert_code(&netem, 1);
    assert_tells(&netem, "--link-via tun");
}

#[test]
fn a_named_link_can_be_copied_and_is_the_same_then() {
    let shown = run(&["link", "--show", "lte"]);
    assert_code(&shown, 0);
    assert!(stdout(&shown).contains("# Source"), "{}", stdout(&shown));
    if !may_link() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    fs::write(&file, &shown.stdout).unwrap();
    let file = file.to_str().unwrap();
    let script = "echo $TOKENLAG_LINK_SPEC";
    let named = stdout(&behind(&["--link", "lte"], script));
    assert!(named.contains("up-rate=10mbit"), "{named}");
    assert_eq!(stdout(&behind(&["--link", file], script)), named);
    assert_eq!(
        stdout(&behind(&["--plan", file], script)),
        named,
        "its keys are the command's flags too"
    );
    let changed = stdout(&behind(&["--link", file, "--up-rate", "5mbit"], script));
    assert_eq!(changed, named.replace("up-rate=10mbit", "up-rate=5mbit"));
}

#[test]
fn a_service_of_the_host_is_behind_the_link() {
    if !may_link() {
        return;
    }
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = service.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
    });
    let script = "exec 3<>/dev/tcp/$TOKENLAG_LINK_SERVER/80; cat <&3";
    let forward = format!("80=127.0.0.1:{port}");
    let output = behind(&["--rtt", "10ms", "--forward", &forward], script);
    assert_code(&output, 0);
    assert_eq!(stdout(&output), "from the host\n");
    serving.join().unwrap();
}

#[test]
fn links_side_by_side_do_not_meet() {
    if !may_link() {
        return;
    }
    let before = host();
    let both = ["read line; echo $line"; 2].map(|_| {
        tokenlag(&[
            "link",
            "--rtt",
            "2ms",
            "--",
            "bash",
            "-c",
            "echo up; read line; ls -l /proc/self/ns/net",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
    });
    let said: Vec<String> = both
        .into_iter()
        .map(|mut child| {
            child.stdin.take().unwrap().write_all(b"\n").unwrap();
            let output = child.wait_with_output().unwrap();
            assert_code(&output, 0);
            stdout(&output)
        })
        .collect();
    let namespace = |text: &str| text.split("net:").nth(1).map(str::to_owned);
    assert!(namespace(&said[0]).is_some());
    assert_ne!(namespace(&said[0]), namespace(&said[1]));
    assert_eq!(host(), before);
}

#[test]
fn what_was_to_be_ignored_the_command_ignores_as_well() {
    if !may_link() {
        return;
    }
    let link = tokenlag(&["link", "--", "grep", "SigIgn", "/proc/self/status"]);
    let mut nohup = Command::new("env");
    nohup
        .arg("--ignore-signal=HUP")
        .arg("--default-signal=INT")
        .arg(link.get_program())
        .args(link.get_args());
    let output = nohup.output().unwrap();
    assert_code(&output, 0);
    let told = stdout(&output);
    let mask = told.trim().rsplit('\t').next().unwrap_or_default();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    assert_eq!(mask & 0b11, 0b01, "{told}");
}

#[test]
fn without_rights_one_error_says_how_to_get_them() {
    // Somebody who is nobody: a user namespace may give what is missing, if TUN devices are everybody's here.
    let mut command = tokenlag(&["link", "--rtt", "1ms", "--", "true"]);
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let Ok(output) = command.output() else {
        // Nobody may not even read the program, where it was built.
        return;
    };
    if output.status.success() {
        return;
    }
    assert_code(&output, 1);
    let told = stderr(&output);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains(RIGHTS)
            && told.contains("sudo setcap cap_sys_admin,cap_net_admin,cap_sys_nice+ep"),
        "{told}"
    );
}
