//! `tokenlag profile` and the sidecar's profiles, as a user has them: their files are read back, and what goes wrong is said.

#[path = "support/flamegraph.rs"]
mod flamegraph;
#[path = "profile/refused.rs"]
mod refused;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    Backend, Proxy, assert_code, assert_tells, children_of_rig, heeding_signals, json, run,
    seconds_since, signal, stderr, stdout, tokenlag, wait_until,
};
use tokenlag_probes::{Clock, MonoClock};
use tokenlag_profiling::{Stacks, folded, protobuf};
use tokenlag_scripted::ScriptedBackend;

/// A profile that is small, with `more` flags.
fn small<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let small = "profile --state full --no-direct --turns 2 --isl 48 --later-isl 8 --osl 32 --ui none --allow-untrusted";
    let small = small.split(' ').chain(["--out", out]);
    small.chain(more.iter().copied()).collect()
}

fn names(stacks: &Stacks) -> Vec<String> {
    stacks.functions().into_keys().map(str::to_owned).collect()
}

#[track_caller]
fn read(folder: &Path, file: &Value) -> Vec<u8> {
    let path = folder.join("profiles").join(file.as_str().expect("a name"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn both_ends_of_each_row_are_profiled_and_every_file_reads_back() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let rows = [
        "--channels",
        "http-cold,ws",
        "--blocks",
        "3",
        "--output",
        "json",
    ];
    let output = run(&small(place, &rows));
    assert_code(&output, 0);
    let shown: Value = serde_json::from_str(&stdout(&output)).expect("standard output is JSON");
    assert_eq!(json(&out.join("profile.json")), shown);
    assert_eq!(shown["schema"], "tokenlag.profile/1");
    assert_eq!(shown["baseline"], "http-cold/full");
    let rows = shown["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(row["tokens"].as_u64() > Some(0), "{row}");
        let ends = row["ends"].as_array().expect("ends");
        assert_eq!(
            (&ends[0]["end"], &ends[1]["end"]),
            (&"client".into(), &"proxy".into())
        );
        for end in ends {
            let samples = end["samples"].as_u64().expect("a count");
            assert!(samples > 0, "{end}");
            // The system booked it: it is no estimate.
            assert!(end["cpu_ns_per_token"].as_f64() > Some(0.0) && end["error_ns"].is_null());
            // A moment's profile is not exact to five points, and says how long a better one takes.
            assert_eq!(end["needs_s"].is_null(), samples >= 385, "{end}");
            let text = String::from_utf8(read(&out, &end["files"][1])).expect("text");
            let stacks = folded::parse(&text).expect("folded stacks");
            let svg = flamegraph::read(&read(&out, &end["files"][0]));
            let name = row["row"].as_str().expect("a name");
            assert!(svg.words.iter().any(|it| it.contains(name)), "{svg:?}");
            assert_eq!(svg.frames.get("all"), Some(&vec![samples]));
            // Each frame that is drawn is one of the folded stacks', as wide as that.
            let mut folded = flamegraph::frames_of(&stacks);
            folded.insert("all".to_owned(), vec![samples]);
            for (name, counts) in &svg.frames {
                let whole = folded.get(name);
                let whole = whole.unwrap_or_else(|| panic!("{name}: {folded:?}"));
                assert!(
                    flamegraph::is_part(counts, whole),
                    "{name}: {counts:?} {whole:?}"
                );
            }
            let packed = protobuf::decode(&read(&out, &end["files"][2])).expect("a profile");
            assert_eq!((stacks.total(), packed.total()), (samples, samples));
            assert_eq!(folded::text(&packed), text);
            for glue in ["catch_unwind", "with_budget", "{closure", "{{closure"] {
                let kept = names(&stacks).into_iter().find(|name| name.contains(glue));
                assert_eq!(kept, None);
            }
        }
    }
    let differences = shown["differences"].as_array().expect("differences");
    assert_eq!(differences.len(), 2, "ws against http-cold at both ends");
    for difference in differences {
        assert_eq!(difference["row"], "ws/full");
        let svg = flamegraph::read(&read(&out, &difference["file"]));
        let title = |it: &String| it.ends_with("against http-cold/full");
        assert!(svg.words.iter().any(title), "{svg:?}");
        assert!(svg.frames.len() > 3, "{svg:?}");
        drawn_by_time(&svg, &out, &shown, difference);
        let own = &difference["functions"][0]["own"];
        assert!(own["error_ns"].as_f64() > Some(0.0), "{own}");
    }
}

/// Each frame of a difference is as wide as its samples, in time a token: what the row's folded stacks have, to the last digit that is
/// written.
#[track_caller]
fn drawn_by_time(svg: &flamegraph::Picture, out: &Path, shown: &Value, difference: &Value) {
    let rows = shown["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["row"] == difference["row"]);
    let ends = row.expect("its row")["ends"].as_array().expect("ends");
    let end = ends.iter().find(|end| end["end"] == difference["end"]);
    let end = end.expect("its end");
    let text = String::from_utf8(read(out, &end["files"][1])).expect("text");
    let stacks = folded::parse(&text).expect("folded stacks");
    let cost = end["cpu_ns_per_token"].as_f64().expect("a cost");
    let sample_ns = cost / stacks.total() as f64;
    let picoseconds = if sample_ns < 1.0 { 1e3 } else { 1.0 };
    let written = |count: &u64| (*count as f64 * sample_ns * picoseconds).round();
    let mut folded = flamegraph::frames_of(&stacks);
    folded.insert("all".to_owned(), vec![stacks.total()]);
    for (name, widths) in &svg.frames {
        let whole = folded.get(name);
        let whole = whole.unwrap_or_else(|| panic!("{name}: {folded:?}"));
        let mut left: Vec<f64> = whole.iter().map(written).collect();
        for width in widths {
            // The last digits of a sum of floats may make it the next number.
            let at = (left.iter()).position(|it| (it - *width as f64).abs() <= 1.0);
            let at = at.unwrap_or_else(|| panic!("{name}: {widths:?}, {whole:?} of {sample_ns}"));
            left.swap_remove(at);
        }
    }
}

#[test]
fn raw_profiles_keep_what_passes_calls_on() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let output = run(&small(
        place,
        &["--channels", "http", "--blocks", "2", "--raw"],
    ));
    assert_code(&output, 0);
    assert!(stdout(&output).contains("http/full"), "{}", stdout(&output));
    let text = fs::read_to_string(out.join("profiles/http-full.proxy.folded")).expect("a file");
    assert!(text.contains("catch_unwind"), "{text}");
}

#[test]
fn perf_samples_the_kernel_too_or_says_why_it_does_not() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let flags = ["--channels", "http", "--blocks", "2", "--sampler", "perf"];
    // Requests, and little else.
    let words = "profile --state full --no-direct --turns 8 --isl 16 --later-isl 8 --osl 2 --ui none --allow-untrusted --out";
    let words: Vec<&str> = words.split(' ').chain([place]).chain(flags).collect();
    let output = run(&words);
    if output.status.success() {
        let shown = json(&out.join("profile.json"));
        assert_eq!(
            (&shown["sampler"], &shown["hertz"]),
            (&"perf".into(), &4000.0.into())
        );
        let text = fs::read_to_string(out.join("profiles/http-full.proxy.folded")).expect("a file");
        assert!(text.contains("_[k]") && text.contains("proxy::"), "{text}");
        reads_have_their_callers(&folded::parse(&text).expect("folded stacks"));
        assert!(!out.join(".perf-0").exists(), "perf's own files are gone");
    } else {
        assert_code(&output, 1);
        assert_tells(&output, "perf");
        assert_tells(&output, "leave out --sampler perf");
        eprintln!(
            "not checked, as perf does not sample here: {}",
            stderr(&output)
        );
    }
    let without = folder.path().join("without");
    let mut command = tokenlag(&small(without.to_str().expect("text"), &flags));
    let output = command.env("PATH", "").output().expect("it starts");
    assert_code(&output, 1);
    assert_tells(&output, "perf is not installed");
}

/// Samples within the read of a request have the front above them that reads it: nothing on the stack hides it from perf.
#[track_caller]
fn reads_have_their_callers(stacks: &Stacks) {
    let (mut reads, mut orphans) = (0, Vec::new());
    for (stack, count) in stacks.iter() {
        let place = |name: &str| stack.iter().position(|it| it.function.starts_with(name));
        let Some(read) = place("channel::wire::Wire::poll_sized") else {
            continue;
        };
        reads += count;
        if place("proxy::front").is_none_or(|front| front > read) {
            orphans.push(stack);
        }
    }
    assert!(reads > 0, "{:?}", names(stacks));
    assert!(orphans.is_empty(), "of {reads}: {orphans:?}");
}

#[test]
fn a_proxy_that_was_there_already_has_shares_but_no_price() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let flags = ["--channels", "http-cold,ws", "--blocks", "3", "--url"];
    let there = ["--proxy", &proxy.listen, "--proxy-admin", &proxy.admin];
    let more = [&flags[..], &[&backend.url], &there[..]].concat();
    let output = run(&small(place, &more));
    assert_code(&output, 0);
    assert_tells(&output, "what a token costs the proxy is not told");
    let shown = json(&out.join("profile.json"));
    for row in shown["rows"].as_array().expect("rows") {
        let [client, proxy] = [&row["ends"][0], &row["ends"][1]];
        assert!(client["cpu_ns_per_token"].as_f64() > Some(0.0), "{client}");
        assert!(proxy["samples"].as_u64() > Some(0), "{proxy}");
        assert!(proxy["resolution"].is_number(), "{proxy}");
        assert!(proxy["cpu_ns_per_token"].is_null(), "{proxy}");
    }
    let differences = shown["differences"].as_array().expect("differences");
    let ends: Vec<&Value> = differences.iter().map(|it| &it["end"]).collect();
    assert_eq!(ends, ["client"]);
}

#[test]
fn a_profile_that_is_not_to_be_trusted_ends_like_any_run() {
    let script = "ttft=2ms,gap=1ms,tokens_per_event=4".parse();
    let backend = ScriptedBackend::start(script.expect("a script")).expect("it starts");
    let folder = tempfile::tempdir().expect("there is room for files");
    let url = backend.url();
    let flags = [
        "--channels",
        "http",
        "--blocks",
        "1",
        "--model",
        "m",
        "--url",
        &url,
    ];
    for (allowed, code) in [(false, 3), (true, 0)] {
        let out = folder.path().join(code.to_string());
        let place = out.to_str().expect("text");
        let words = small(place, &flags);
        let words = words
            .into_iter()
            .filter(|it| allowed || *it != "--allow-untrusted");
        let output = run(&words.collect::<Vec<_>>());
        assert_code(&output, code);
        assert!(
            stdout(&output).contains("coalesced_tokens"),
            "{}",
            stdout(&output)
        );
        let verdict = &json(&out.join("profile.json"))["verdict"];
        assert_eq!(verdict["trusted"], false);
        let warnings = verdict["warnings"].as_array().expect("warnings");
        let codes: Vec<_> = warnings.iter().map(|it| &it["code"]).collect();
        assert!(codes.contains(&&"coalesced_tokens".into()), "{codes:?}");
        assert!(!codes.contains(&&"few_blocks".into()), "{codes:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (flags, says) in [
        (["--until", "2%"], "--resolution"),
        (["--output", "csv"], "--output json"),
        (
            ["--fail-if", "ws/full.ttft.p99 > 1s"],
            "--fail-if is of compare",
        ),
        (["--resolution", "0"], "write it like 2%"),
    ] {
        let output = run(&["profile", flags[0], flags[1]]);
        assert_code(&output, 2);
        assert_tells(&output, says);
    }
}

#[test]
fn profiles_that_cannot_be_written_are_said() {
    let folder = tempfile::tempdir().expect("there is room for files");
    fs::write(folder.path().join("profiles"), "in the way").expect("it is written");
    let place = folder.path().to_str().expect("text");
    let output = run(&small(place, &["--channels", "http", "--blocks", "1"]));
    assert_code(&output, 1);
    assert_tells(&output, "cannot make");
    assert_eq!(
        json(&folder.path().join("profile.json"))["rows"][0]["row"],
        "http/full"
    );
    assert!(
        stdout(&output).contains("us of CPU a token"),
        "what was found is shown: {}",
        stdout(&output)
    );
    assert!(
        folder.path().join("report.json").exists(),
        "the run itself is kept"
    );
}

#[test]
fn a_picture_that_cannot_be_written_does_not_lose_the_others() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path();
    fs::create_dir_all(out.join("profiles/http-full.proxy.svg")).expect("it is made");
    let place = out.to_str().expect("text");
    let output = run(&small(place, &["--channels", "http", "--blocks", "2"]));
    assert_code(&output, 1);
    assert_tells(&output, "http-full.proxy.svg");
    let end = &json(&out.join("profile.json"))["rows"][0]["ends"][1];
    let text = String::from_utf8(read(out, &end["files"][1])).expect("text");
    let samples = folded::parse(&text).expect("folded stacks").total();
    assert_eq!(end["samples"], samples);
    protobuf::decode(&read(out, &end["files"][2])).expect("a profile");
}

#[test]
fn what_was_sampled_is_kept_when_the_proxy_dies() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let place = out.to_str().expect("text");
    let mut command = tokenlag(&small(place, &["--channels", "http", "--duration", "60s"]));
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the command starts");
    let exchanges = out.join("exchanges.jsonl");
    wait_until("a turn is over", Duration::from_secs(60), || {
        fs::metadata(&exchanges).is_ok_and(|file| file.len() > 0)
    });
    let children = children_of_rig(child.id());
    let proxy = children.iter().find(|(line, _)| line.contains(" proxy "));
    signal(proxy.expect("the proxy runs").1, Signal::SIGKILL);
    let output = child.wait_with_output().expect("it ends");
    assert_code(&output, 1);
    assert_tells(&output, "the proxy ended early");
    let shown = json(&out.join("profile.json"));
    assert_eq!(shown["rows"][0]["row"], "http/full", "{}", stderr(&output));
}

/// A perf that records nothing, does as it is told, and ends when it is interrupted.
const RECORD: &str = r#"#!/bin/sh
here=$(dirname "$0")
if [ "$1" = record ]; then
    for word in "$@"; do case "$word" in --control=fifo:*) pipes=${word#--control=fifo:} ;; esac; done
    trap 'exit 0' INT
    while read -r _; do printf 'a'; done < "${pipes%,*}" > "${pipes#*,}" &
    while :; do sleep 0.01; done
fi
"#;

/// Its samples are in order at once for the first turn, and never for the second.
const SLOW_SCRIPT: &str = r#"
if mkdir "$here/printed"; then
    echo "tokenlag $PPID/$PPID "
    echo "	          5eb663 loadgen::run (/usr/bin/tokenlag)"
    echo
    echo "tokenlag $PPID/$PPID PERF_RECORD_LOST lost 7"
    exit 0
fi
touch "$here/hangs"
exec sleep 1000
"#;

/// A path on which perf is this one.
fn with_perf(folder: &Path, script: &str) -> String {
    let perf = folder.join("perf");
    fs::write(&perf, format!("{RECORD}{script}")).expect("it is written");
    let mut execute = fs::metadata(&perf).expect("it is there").permissions();
    execute.set_mode(0o755);
    fs::set_permissions(&perf, execute).expect("it may be run");
    format!("{}:/usr/bin:/bin", folder.display())
}

#[test]
fn not_one_sample_is_said() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let path = with_perf(folder.path(), "exit 0\n");
    let place = out.to_str().expect("text");
    let flags = ["--channels", "http", "--blocks", "1", "--sampler", "perf"];
    let mut command = tokenlag(&small(place, &flags));
    let output = command.env("PATH", path).output().expect("it starts");
    assert_code(&output, 1);
    assert_tells(&output, "not one sample was taken");
    let table = stdout(&output);
    assert!(table.contains("no sample: more load"), "{table}");
    let row = &json(&out.join("profile.json"))["rows"][0];
    assert!(row["tokens"].as_u64() > Some(0), "{row}");
    for end in row["ends"].as_array().expect("ends") {
        assert_eq!(end["samples"], 0, "{end}");
        assert!(end["cpu_ns_per_token"].is_null() && end["resolution"].is_null());
        assert_eq!(end["files"], Value::Array(Vec::new()));
    }
    let files = fs::read_dir(out.join("profiles")).expect("it is there");
    assert_eq!(files.count(), 0);
}

#[test]
fn ctrl_c_while_names_are_looked_up_ends_the_run_at_once_and_keeps_earlier_turns() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    let path = with_perf(folder.path(), SLOW_SCRIPT);
    let place = out.to_str().expect("text");
    let flags = ["--channels", "http", "--sampler", "perf"];
    let mut command = heeding_signals(tokenlag(&small(place, &flags)).env("PATH", path));
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the command starts");
    let hangs = folder.path().join("hangs");
    wait_until("perf hangs", Duration::from_secs(120), || hangs.exists());
    let pressed = MonoClock.now();
    signal(child.id() as i32, Signal::SIGINT);
    let output = child.wait_with_output().expect("it ends");
    let took = seconds_since(pressed);
    // perf would have a minute.
    assert!(took < 20.0, "{took} s");
    assert_code(&output, 1);
    assert_tells(&output, "interrupted");
    let shown = json(&out.join("profile.json"));
    let row = &shown["rows"][0];
    assert!(row["tokens"].as_u64() > Some(0), "{row}");
    let client = &row["ends"][0];
    assert_eq!(
        (&client["samples"], &client["lost"]),
        (&1.into(), &7.into()),
        "{row}"
    );
    let left = fs::read_dir(&out).expect("it is there").flatten();
    let left: Vec<_> = left.map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|name| name == ".perf-0"), "{left:?}");
}

/// Status and body of an answer of the admin endpoint.
fn ask(admin: &str, method: &str, path: &str) -> (u16, Vec<u8>) {
    let mut stream = asking(admin, method, path);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    (status.expect("a status"), answer[end + 4..].to_vec())
}

fn asking(admin: &str, method: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

fn words(answer: (u16, Vec<u8>)) -> (u16, String) {
    (answer.0, String::from_utf8_lossy(&answer.1).into_owned())
}

#[test]
fn a_sidecar_profiles_itself_under_load_and_one_at_a_time() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let url = format!("http://{}", proxy.listen);
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("load");
    let mut load = tokenlag(&[
        "load",
        "--url",
        &url,
        "--concurrency",
        "8",
        "--duration",
        "180s",
        "--osl",
        "64",
        "--ui",
        "none",
    ]);
    let load = load.arg("--out").arg(&out).arg("--allow-untrusted");
    let mut load = load
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("the load is on", Duration::from_secs(60), || {
        out.join("run.json").exists()
    });

    let asked =
        |method: &str, what: &str| ask(&proxy.admin, method, &format!("/debug/pprof/{what}"));
    assert_eq!(asked("POST", "start?seconds=60").0, 200);
    for (method, what) in [("GET", "profile"), ("GET", "flamegraph"), ("POST", "start")] {
        let (status, why) = words(asked(method, what));
        assert_eq!(status, 409, "{why}");
        assert!(why.contains("already"), "{why}");
    }
    let (status, packed) = asked("POST", "stop");
    assert_eq!(status, 200);
    protobuf::decode(&packed).expect("a profile");
    let (status, why) = words(asked("POST", "stop"));
    assert_eq!(status, 409, "{why}");

    let (status, packed) = asked("GET", "profile?seconds=3");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&packed));
    let stacks = protobuf::decode(&packed).expect("a profile");
    let span = protobuf::span(&packed).expect("a profile");
    let lasted = span.expect("it says when it was taken").lasted;
    assert!(lasted >= Duration::from_secs(3), "{lasted:?}");
    let seen = names(&stacks);
    assert!(
        seen.iter().any(|name| name.starts_with("proxy::")),
        "{seen:?}"
    );
    let (status, svg) = words(asked("GET", "flamegraph?seconds=3"));
    assert_eq!(status, 200, "{svg}");
    let svg = flamegraph::read(svg.as_bytes());
    let proxys = |name: &String| name.starts_with("proxy::");
    assert!(svg.frames.keys().any(proxys), "{svg:?}");
    signal(load.id() as i32, Signal::SIGINT);
    let _ = load.wait();
}

#[test]
fn a_sidecars_profiles_are_bounded_and_end_with_their_client() {
    // Nobody is behind it, and nothing comes: it does nothing.
    let proxy = Proxy::start("http://127.0.0.1:9");
    for (path, says) in [
        ("profile?seconds=301", "1 to 300"),
        ("profile?seconds=0", "1 to 300"),
        ("flamegraph?seconds=soon", "1 to 300"),
        ("profile?hz=4000", "1 to 250"),
        ("profile?minutes=1", "seconds=1..300"),
    ] {
        let (status, why) = words(ask(&proxy.admin, "GET", &format!("/debug/pprof/{path}")));
        assert_eq!(status, 400, "{path}: {why}");
        assert!(why.contains(says), "{path}: {why}");
    }
    assert_eq!(ask(&proxy.admin, "GET", "/debug/pprof/heap").0, 404);
    assert_eq!(ask(&proxy.admin, "POST", "/debug/pprof/profile").0, 405);
    let post = |what: &str| ask(&proxy.admin, "POST", &format!("/debug/pprof/{what}"));
    let mut clients = Vec::new();
    wait_until(
        "a client's profile is taken",
        Duration::from_secs(20),
        || {
            clients.push(asking(
                &proxy.admin,
                "GET",
                "/debug/pprof/profile?seconds=300",
            ));
            let status = post("start?seconds=60").0;
            if status == 200 {
                // It came before the client.
                assert_eq!(post("stop").0, 200);
            }
            status == 409
        },
    );
    drop(clients);
    let limit = Duration::from_secs(20);
    wait_until("it stops when its client goes away", limit, || {
        post("start?seconds=1").0 == 200
    });
    // What was begun and is not fetched is given up after its second.
    wait_until("it ends by itself", limit, || {
        post("start?seconds=60").0 == 200
    });
    let (status, packed) = post("stop");
    assert_eq!(status, 200);
    protobuf::decode(&packed).expect("a profile, if an empty one");
    let (status, why) = words(ask(&proxy.admin, "GET", "/debug/pprof/profile?seconds=1"));
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("not one sample"), "{why}");
}

/// A proxy whose admin endpoint others can reach; killed when dropped.
struct Public(Child);

impl Drop for Public {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn on_a_public_address_there_are_no_profiles() {
    let flags = "proxy --listen 127.0.0.1:0 --no-quic --upstream http://127.0.0.1:9 --admin 0.0.0.0:0 --admin-public --report-ready";
    let flags: Vec<&str> = flags.split(' ').collect();
    let started = tokenlag(&flags).stdout(Stdio::piped()).spawn();
    let mut proxy = Public(started.expect("it starts"));
    let mut line = String::new();
    let stdout = proxy.0.stdout.as_mut().expect("it is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it speaks");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let port = ready["admin"]
        .as_str()
        .and_then(|it| it.rsplit_once(':'))
        .expect("an address")
        .1;
    let admin = format!("127.0.0.1:{port}");
    assert_eq!(ask(&admin, "GET", "/live").0, 200);
    for (method, what) in [("GET", "profile"), ("GET", "flamegraph"), ("POST", "start")] {
        let (status, why) = words(ask(
            &admin,
            method,
            &format!("/debug/pprof/{what}?seconds=1"),
        ));
        assert_eq!(status, 403, "{why}");
        assert!(why.contains("127.0.0.1"), "{why}");
    }
}
