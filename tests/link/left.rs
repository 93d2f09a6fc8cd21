//! What is left of a link: nothing, however it and the command behind it end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;

use crate::support::{
    assert_code, children_of_rig, heeding_signals, run, signal, stdout, tokenlag, wait_until,
};
use crate::{PATIENCE, behind, host, is_used, may_link, namespace_of, started};

#[test]
fn nothing_is_left_of_a_link_that_was_killed() {
    if !may_link() {
        return;
    }
    let before = host();
    let (mut child, pid) = started("echo $$; exec sleep 1000");
    let namespace = namespace_of(&pid).expect("the command runs");
    assert_ne!(Some(&namespace), namespace_of("self").as_ref());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the command and its network are gone", PATIENCE, || {
        namespace_of(&pid).is_none() && !is_used(&namespace)
    });
    assert_eq!(host(), before);
}

/// The numbers of the processes in that namespace.
fn used_by(namespace: &PathBuf) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let numbers = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    numbers
        .filter(|pid| namespace_of(pid).as_ref() == Some(namespace))
        .collect()
}

#[test]
fn the_next_start_ends_what_a_killed_link_left() {
    if !may_link() {
        return;
    }
    let before = host();
    // One that lives on must not be taken for one that is gone.
    let (mut living, living_pid) = started("sleep 1000 & echo $$; wait");
    let lives_in = namespace_of(&living_pid).expect("the command runs");
    // Its children outlive the shell, one of them without its environment, one that asking does not end.
    let script = "sleep 1000 & env -i sleep 1000 & (trap '' TERM; while :; do sleep 1; done) & echo $$; wait";
    let (mut killed, pid) = started(script);
    let namespace = namespace_of(&pid).expect("the command runs");
    // This process, the shell, and its three.
    wait_until("the children are there", PATIENCE, || {
        used_by(&namespace).len() >= 5
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("the command is gone", PATIENCE, || {
        namespace_of(&pid).is_none()
    });
    let output = run(&["link", "--rtt", "1ms", "--", "true"]);
    assert_code(&output, 0);
    // Another test's start may have been the next one.
    wait_until("what was left is gone", PATIENCE, || !is_used(&namespace));
    assert_eq!(
        used_by(&lives_in).len(),
        3,
        "this process, the shell, and its child"
    );
    signal(living.id() as i32, Signal::SIGTERM);
    living.wait().unwrap();
    wait_until("the other one is gone", PATIENCE, || !is_used(&lives_in));
    assert_eq!(host(), before);
}

#[test]
fn a_command_leaves_nobody_behind_the_link() {
    if !may_link() {
        return;
    }
    // The child holds the test's pipe: who waits for its end would wait for a thousand seconds.
    let output = behind(&[], "sleep 1000 & readlink /proc/self/ns/net; exit 3");
    assert_code(&output, 3);
    let namespace = PathBuf::from(stdout(&output).trim());
    assert!(
        namespace.to_string_lossy().starts_with("net:"),
        "{namespace:?}"
    );
    assert!(!is_used(&namespace));
}

/// A comparison over a link, with a sidecar on the client's side, that has gone behind it; and where that is.
fn comparing(out: &Path) -> (Child, PathBuf) {
    let fixed = "compare --link rtt=2ms --channels http,pair-ws --state full --no-direct --blocks 1000 --turns 2 --isl 48 --later-isl 8 \
                 --osl 6 --ui none --allow-untrusted --out";
    let mut args: Vec<&str> = fixed.split_whitespace().collect();
    args.push(out.to_str().expect("text"));
    let child = heeding_signals(&tokenlag(&args))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let pid = child.id().to_string();
    let own = namespace_of("self");
    let mut behind = None;
    wait_until("the load generator is behind the link", PATIENCE, || {
        // For what it asks beside the load it goes home for a moment.
        behind = namespace_of(&pid).filter(|it| Some(it) != own.as_ref());
        behind.is_some() && out.join("exchanges.jsonl").exists()
    });
    (child, behind.expect("it was waited for"))
}

#[test]
fn a_comparison_over_a_link_leaves_nothing_however_it_ends() {
    if !may_link() {
        return;
    }
    let before = host();
    for end in [Signal::SIGINT, Signal::SIGKILL] {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, namespace) = comparing(&folder.path().join("run"));
        let pid = child.id();
        // Backend, proxy, and the sidecar before it.
        assert_eq!(children_of_rig(pid).len(), 3, "{:?}", children_of_rig(pid));
        signal(pid as i32, end);
        let status = child.wait().unwrap();
        let expected = (end == Signal::SIGINT).then_some(1);
        assert_eq!(status.code(), expected, "{end}");
        wait_until("its children and its networks are gone", PATIENCE, || {
            children_of_rig(pid).is_empty() && !is_used(&namespace)
        });
        assert_eq!(host(), before, "{end}");
    }
}
