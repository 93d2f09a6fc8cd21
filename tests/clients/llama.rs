//! llama-server with Gemma 3 270M, a backend that is not ours, under the proxy and the load generator.
//!
//! Left out unless asked for, since its build takes minutes: `cargo test --test clients -- --ignored --nocapture`.
//! `LLAMA_SERVER=FILE` uses one that is there already.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::codex::{Codex, Way, assert_is_of};
use crate::install;
use crate::python::{WEBSOCKET, check};
use crate::stage::{Proxy, assert_complete, channels, get};
use crate::support::{closed_port, json, run, stderr, stdout, wait_until};

#[test]
#[ignore = "builds llama.cpp"]
fn llama_server_is_measured_and_gets_a_websocket() {
    let server = Llama::start();
    let proxy = Proxy::start(&server.url);

    println!("Codex over the WebSocket");
    let turn = Codex::new(&proxy, Way::WebSocket).turn("Say hello.");
    let records = proxy.records(2);
    assert_eq!(channels(&records), ["ws", "ws"]);
    assert_complete(&records);
    assert_is_of(&records[1], &turn);

    println!("the openai package over the WebSocket");
    let count = check(WEBSOCKET, &proxy.url("http"), &[]);
    assert_eq!(channels(&proxy.records(2 + count)), vec!["ws"; 2 + count]);

    let out = tempfile::tempdir().expect("there is room for files");
    let folder = |name: &str| out.path().join(name).to_str().expect("text").to_owned();
    for api in ["responses", "chat", "completions"] {
        println!("load, {api}");
        let work = ["--num-prompts", "6", "--isl", "40", "--osl", "16"];
        let target = [
            "load",
            "--url",
            &server.url,
            "--api",
            api,
            "--out",
            &folder(api),
        ];
        let output = run(&[&target[..], &work].concat());
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{}",
            stderr(&output)
        );
        println!("{}", stdout(&output));
    }

    println!("compare");
    let folder = folder("compare");
    let output = run(&[
        "compare",
        "--url",
        &server.url,
        "--quick",
        "--osl",
        "8",
        "--out",
        &folder,
    ]);
    println!("{}", stdout(&output));
    // So short a run of so slow a model may say that it is not to be trusted.
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}",
        stderr(&output)
    );
    let report = json(&PathBuf::from(folder).join("report.json"));
    let rows = report["channels"].as_array().expect("rows");
    for row in rows {
        assert_eq!(row["failed"], 0, "{row:#}");
        assert!(row["completed"].as_u64() > Some(0), "{row:#}");
    }
}

/// A running llama-server; killed when dropped.
struct Llama {
    process: Child,
    url: String,
}

impl Llama {
    fn start() -> Self {
        let installed = install::llama();
        let program = std::env::var_os("LLAMA_SERVER").map_or(installed.server, PathBuf::from);
        let address = closed_port();
        let mut command = Command::new(&program);
        command
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            // Repacked weights use instructions that some machines promise and do not have.
            .args(["--no-repack", "--threads", "1", "--parallel", "1"])
            // The model is not one that knows when it has answered.
            .args(["--predict", "64"])
            .arg("--model")
            .arg(&installed.model);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?} cannot be started: {error}"));
        let mut llama = Self {
            process,
            url: format!("http://{address}"),
        };
        wait_until("the model is loaded", Duration::from_secs(120), || {
            let ended = llama.process.try_wait().expect("it is a child");
            assert!(ended.is_none(), "{program:?} ended: {ended:?}");
            get(&address.to_string(), "/health").is_some()
        });
        llama
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
