//! What goes wrong in the world: ports in use, servers that are down, children that die, disks that are full, Ctrl-C.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{
    Backend, Proxy, assert_code, assert_tells, children_of_rig, closed_port, failing_server,
    heeding_signals, run, seconds_since, signal, stderr, stdout, tokenlag, wait_until,
};
use tokenlag_probes::{Clock, MonoClock};

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let backend = run(&["backend", "--listen", &address]);
    let proxy = run(&["proxy", "--listen", &address, "--admin", "127.0.0.1:0"]);
    for output in [backend, proxy] {
        assert_code(&output, 1);
        assert_tells(&output, &address);
        assert_tells(&output, "in use");
    }
}

#[test]
fn files_that_make_no_certificate_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, missing) = (file("cert.pem"), file("key.pem"), file("missing.pem"));
    fs::write(&cert, "no certificate").unwrap();
    fs::write(&key, "no key").unwrap();
    for (cert, key, named) in [
        (&cert, &key, [&cert, &key]),
        (&cert, &missing, [&missing, &missing]),
        (&missing, &key, [&missing, &missing]),
    ] {
        let proxy = run(&[
            "proxy",
            "--listen",
            "127.0.0.1:0",
            "--cert",
            cert,
            "--key",
            key,
        ]);
        assert_code(&proxy, 1);
        for name in named {
            assert_tells(&proxy, name);
        }
    }
}

#[test]
fn a_public_admin_endpoint_names_the_flag_that_allows_it() {
    let proxy = run(&["proxy", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]);
    assert_code(&proxy, 1);
    assert_tells(&proxy, "0.0.0.0:0");
    assert_tells(&proxy, "--admin-public");
}

#[test]
fn a_server_that_is_down_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", closed_port());
    for command in ["compare", "load"] {
        let out = folder.path().join(command);
        let output = run(&[
            command,
            "--url",
            &url,
            "--model",
            "m",
            "--ui",
            "none",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_code(&output, 1);
        assert_tells(&output, "cannot connect");
        assert!(!out.exists(), "nothing was measured, so nothing is left");
    }
}

#[test]
fn a_run_in_which_everything_failed_fails_and_says_why() {
    // Two requests calibrate, one warms up; from then on all fail.
    for (good, says) in [
        (0, "calibrating prompt lengths failed at a prompt of"),
        (3, "4 x status 500: out of tokens"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let url = format!("http://{}", failing_server(good));
        let output = run(&[
            "load",
            "--url",
            &url,
            "--model",
            "m",
            "--num-prompts",
            "4",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_code(&output, 1);
        assert_tells(&output, says);
        assert_tells(&output, "out of tokens");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named_before_any_work() {
    let output = run(&["compare", "--out", "/proc/nowhere/run"]);
    assert_code(&output, 1);
    assert_tells(&output, "/proc/nowhere/run");
}

#[test]
fn a_disk_that_is_full_ends_the_run_with_one_error() {
    let backend = Backend::start();
    let mut load = vec!["load", "--url", &backend.url, "--ui", "none"];
    load.extend(["--isl", "48", "--osl", "8", "--duration", "5m"]);
    load.extend(["--keep-tokens", "--out"]);
    let compare = endless(Path::new(""), CHANNELS);
    let compare: Vec<&str> = compare.iter().map(String::as_str).collect();
    for command in [&compare[..compare.len() - 1], &load] {
        let folder = tempfile::tempdir().unwrap();
        let mount = |args: &[&str]| {
            let done = Command::new("mount").args(args).arg(folder.path()).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !mount(&["-t", "tmpfs", "-o", "size=96k", "none"]) {
            eprintln!("not tested: this user may not mount a small disk");
            return;
        }
        let out = folder.path().join("run");
        let output = tokenlag(command).arg(&out).output().unwrap();
        let unmounted = Command::new("umount").arg(folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        assert_code(&output, 1);
        let said = stderr(&output);
        assert!(said.contains("free some space"), "{said}");
        assert_eq!(said.matches("error:").count(), 1, "{said}");
    }
}

/// Channels of a run that is to be broken off.
const CHANNELS: &str = "http,ws,quic";

/// A comparison that goes on until it is stopped.
fn endless(out: &Path, channels: &str) -> Vec<String> {
    let mut args: Vec<String> = [
        "compare",
        "--channels",
        channels,
        "--blocks",
        "100000",
        "--turns",
        "2",
    ]
    .into_iter()
    .chain([
        "--isl",
        "48",
        "--later-isl",
        "8",
        "--osl",
        "8",
        "--ui",
        "none",
        "--keep-tokens",
        "--out",
    ])
    .map(str::to_owned)
    .collect();
    args.push(out.to_string_lossy().into_owned());
    args
}

/// Starts it in a process group of its own, as a terminal does, and waits until two blocks are on disk.
fn started(out: &Path, channels: &str) -> Child {
    let child = heeding_signals(&tokenlag(&[]))
        .args(endless(out, channels))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let exchanges = out.join("exchanges.jsonl");
    wait_until("two blocks are recorded", Duration::from_secs(60), || {
        let text = fs::read_to_string(&exchanges).unwrap_or_default();
        text.lines().any(|line| line.contains("\"block\":2"))
    });
    child
}

#[track_caller]
fn check_kept(out: &Path) {
    let shown = run(&["report", "show", out.to_str().unwrap()]);
    assert_code(&shown, 0);
    assert!(
        stdout(&shown).contains("ws/incremental"),
        "{}",
        stdout(&shown)
    );
}

/// Signals the whole process group in the middle of a run, as a terminal, `timeout` and a closed terminal do.
#[track_caller]
fn check_stopped_and_kept(asked: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let child = started(&out, CHANNELS);
    let pid = child.id();
    assert_eq!(children_of_rig(pid).len(), 2);
    let pressed = MonoClock.now();
    signal(-(pid as i32), asked);
    let output = child.wait_with_output().unwrap();
    let took = seconds_since(pressed);
    assert!(took < 2.0, "it took {took} s");
    assert_code(&output, 1);
    assert_tells(&output, "error: interrupted");
    assert!(
        stdout(&output).contains("ws/incremental"),
        "what was measured is printed: {}",
        stdout(&output)
    );
    assert_eq!(children_of_rig(pid), []);
    check_kept(&out);
}

#[test]
fn ctrl_c_stops_within_two_seconds_and_keeps_what_was_measured() {
    check_stopped_and_kept(Signal::SIGINT);
}

#[test]
fn a_group_that_is_terminated_keeps_what_was_measured() {
    check_stopped_and_kept(Signal::SIGTERM);
}

#[test]
fn a_closed_terminal_keeps_what_was_measured() {
    check_stopped_and_kept(Signal::SIGHUP);
}

/// Runs a command that comes to ask `silent`, which never answers, and presses Ctrl-C then.
#[track_caller]
fn check_interrupted(silent: &TcpListener, args: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let child = tokenlag(args)
        .args(["--ui", "none", "--out"])
        .arg(out.path().join("run"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _asked = silent.accept().unwrap();
    let pressed = MonoClock.now();
    signal(child.id() as i32, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    let took = seconds_since(pressed);
    assert!(took < 2.0, "it took {took} s");
    assert_code(&output, 1);
    assert_tells(&output, "stopped before anything was measured");
}

#[test]
fn ctrl_c_is_heeded_while_a_server_keeps_silent() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    check_interrupted(&silent, &["load", "--url", &silent_url]);
    check_interrupted(&silent, &["compare", "--url", &silent_url]);
    check_interrupted(&silent, &["load", "--url", &silent_url, "--model", "m"]);

    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let listen = format!("http://{}", proxy.listen);
    let mut args = vec!["compare", "--url", &backend.url, "--proxy", &listen];
    args.extend(["--proxy-admin", &silent_url, "--channels", "http"]);
    check_interrupted(&silent, &args);
}

/// Kills the child of this name, whose command line has this word, in the middle of a run.
#[track_caller]
fn check_told_of_the_dead(name: &str, word: &str, channels: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let child = started(&out, channels);
    let pid = child.id();
    let children = children_of_rig(pid);
    let killed_one = children
        .iter()
        .find(|(line, _)| line.contains(&format!(" {word} ")))
        .expect("it is there");
    let killed = MonoClock.now();
    signal(killed_one.1, Signal::SIGKILL);
    let output = child.wait_with_output().unwrap();
    assert!(
        seconds_since(killed) < 5.0,
        "it took {} s",
        seconds_since(killed)
    );
    assert_code(&output, 1);
    assert!(
        stderr(&output).contains(&format!("the {name} ended early (signal: 9")),
        "{}",
        stderr(&output)
    );
    let place = format!("the run is in {}", out.display());
    assert_tells(&output, &place);
    assert!(
        stdout(&output).contains("ws/incremental"),
        "what was measured is printed: {}",
        stdout(&output)
    );
    assert_eq!(children_of_rig(pid), []);
    check_kept(&out);
}

#[test]
fn a_child_that_dies_ends_the_run_with_its_last_words() {
    check_told_of_the_dead("backend", "backend", CHANNELS);
    check_told_of_the_dead("proxy", "proxy", CHANNELS);
    check_told_of_the_dead("sidecar of pair-ws", "--upstream-channel", "ws,pair-ws");
}

#[test]
fn ctrl_c_while_warming_up_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let child = tokenlag(&["compare", "--channels", "http", "--ui", "none"])
        .args(["--num-warmups", "10000", "--out"])
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    wait_until("the rig is up", Duration::from_secs(20), || {
        children_of_rig(pid).len() == 2
    });
    // The calibration is over by then, and the warm-up is not for a long time.
    std::thread::sleep(Duration::from_secs(1));
    signal(pid as i32, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 1);
    assert_tells(
        &output,
        "error: interrupted: stopped before anything was measured",
    );
    assert!(!out.exists(), "nothing was measured, so nothing is left");
}

#[test]
fn children_do_not_outlive_a_parent_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = started(&folder.path().join("run"), CHANNELS);
    let pid = child.id();
    signal(pid as i32, Signal::SIGKILL);
    child.wait().unwrap();
    wait_until("its children are gone", Duration::from_secs(2), || {
        children_of_rig(pid).is_empty()
    });
    check_kept(&folder.path().join("run"));
}
