//! The Codex command line over the WebSocket, and how its run would look had it fallen back to HTTP.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{run, said};
use crate::install;
use crate::stage::{Backend, Proxy, assert_complete, channels};
use crate::support::stdout;
use crate::upstream::{Speaks, Upstream};

#[test]
fn codex_finishes_a_turn_over_websocket() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let turn = Codex::new(&proxy, Way::WebSocket).turn("Say hello.");

    // First a warm-up, which the proxy answers by itself, then the turn.
    let records = proxy.records(2);
    assert_eq!(channels(&records), ["ws", "ws"]);
    assert_complete(&records);
    assert!(records[0]["up_written"].is_null(), "{:#}", records[0]);
    assert_is_of(&records[1], &turn);
    assert!(!turn.message().is_empty(), "{}", said(&turn.output));
}

#[test]
fn codex_finishes_a_turn_inside_tls() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let turn = Codex::new(&proxy, Way::WebSocketInTls).turn("Say hello.");

    let records = proxy.records(2);
    assert_eq!(channels(&records), ["ws", "ws"]);
    assert_complete(&records);
    assert_is_of(&records[1], &turn);
}

/// What these proofs would look like if Codex had fallen back.
#[test]
fn codex_over_http_is_booked_as_http() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let turn = Codex::new(&proxy, Way::Http).turn("Say hello.");

    let records = proxy.records(1);
    assert_eq!(channels(&records), ["http"]);
    assert_complete(&records);
    assert_is_of(&records[0], &turn);
}

#[test]
fn codex_calls_a_tool_and_sends_only_what_it_said() {
    check_tool_call(Speaks::Responses);
}

#[test]
fn codex_calls_a_tool_of_a_backend_that_has_only_chat() {
    check_tool_call(Speaks::Chat);
}

#[track_caller]
fn check_tool_call(speaks: Speaks) {
    let upstream = Upstream::start(speaks, "exec_command", &json!({"cmd": "echo forty-two"}));
    let proxy = Proxy::start(&upstream.url());
    let turn = Codex::new(&proxy, Way::WebSocket).turn("What does the tool say?");

    let tool = turn.item("command_execution");
    assert_eq!(tool["exit_code"], 0, "{}", said(&turn.output));
    assert_eq!(turn.message(), upstream.farewell());
    // The warm-up, the call, and what followed.
    let records = proxy.records(3);
    assert_eq!(channels(&records), ["ws"; 3]);
    assert_complete(&records);
    upstream.assert_the_call_came_back("forty-two");
}

/// How Codex is told to reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Http,
    WebSocket,
    WebSocketInTls,
}

/// Codex with a home of its own, whose provider is the proxy.
pub struct Codex {
    home: TempDir,
    folder: TempDir,
    /// What it must trust.
    certificate: String,
}

impl Codex {
    pub fn new(proxy: &Proxy, way: Way) -> Self {
        let codex = Self {
            home: tempfile::tempdir().expect("there is room for files"),
            folder: tempfile::tempdir().expect("there is room for files"),
            certificate: proxy.certificate(),
        };
        let websockets = way != Way::Http;
        let base = proxy.url(if way == Way::WebSocketInTls {
            "https"
        } else {
            "http"
        });
        let config = format!(
            "model = \"tokenlag-tiny\"\n\
             model_provider = \"tokenlag\"\n\
             check_for_update_on_startup = false\n\
             [analytics]\n\
             enabled = false\n\
             [model_providers.tokenlag]\n\
             name = \"tokenlag\"\n\
             base_url = \"{base}/v1\"\n\
             wire_api = \"responses\"\n\
             supports_websockets = {websockets}\n\
             # A second try would hide that the first had failed.\n\
             request_max_retries = 0\n\
             stream_max_retries = 0\n"
        );
        codex.put(codex.home.path(), "config.toml", &config);
        codex
    }

    fn put(&self, folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).expect("the file is written");
    }

    /// Lets it work on a prompt until it is content.
    #[track_caller]
    pub fn turn(&self, prompt: &str) -> Turn {
        let mut command = Command::new(install::codex());
        command
            .args(["exec", "--json", "--skip-git-repo-check"])
            // Its sandbox asks the kernel for what a container may not have; the upstream here is ours.
            .arg("--dangerously-bypass-approvals-and-sandbox")
            .arg(prompt)
            .current_dir(self.folder.path())
            .env("CODEX_HOME", self.home.path())
            .env("CODEX_CA_CERTIFICATE", &self.certificate)
            .env("OPENAI_API_KEY", "none");
        let output = run(&mut command, "install Node.js, as .ci/run does");
        assert!(output.status.success(), "{}", said(&output));
        let events = stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).expect("--json gives a JSON value a line"))
            .collect();
        // What it says where it gives up the WebSocket, without an error in the end.
        let fell_back = stdout(&output).contains("Falling back from WebSockets");
        assert!(!fell_back, "{}", said(&output));
        let turn = Turn { output, events };
        assert!(
            turn.of_type("error").is_none() && turn.of_type("turn.failed").is_none(),
            "{}",
            said(&turn.output)
        );
        turn
    }
}

/// What Codex said of a turn.
pub struct Turn {
    output: Output,
    events: Vec<Value>,
}

impl Turn {
    fn of_type(&self, kind: &str) -> Option<&Value> {
        self.events.iter().find(|event| event["type"] == kind)
    }

    #[track_caller]
    fn usage(&self) -> &Value {
        match self.of_type("turn.completed") {
            Some(event) => &event["usage"],
            None => panic!("no end of the turn: {}", said(&self.output)),
        }
    }

    /// The finished item of that type.
    #[track_caller]
    fn item(&self, kind: &str) -> &Value {
        self.events
            .iter()
            .filter(|event| event["type"] == "item.completed")
            .map(|event| &event["item"])
            .find(|item| item["type"] == kind)
            .unwrap_or_else(|| panic!("no {kind}: {}", said(&self.output)))
    }

    #[track_caller]
    fn message(&self) -> &str {
        let item = self.item("agent_message");
        item["text"].as_str().expect("a message has a text")
    }
}

/// Fails unless the client counted the tokens that the proxy saw pass in that exchange.
#[track_caller]
pub fn assert_is_of(record: &Value, turn: &Turn) {
    let (booked, told) = (&record["usage"], turn.usage());
    assert!(
        booked["output"].as_u64() > Some(0),
        "{record:#}: nothing was written"
    );
    assert_eq!(booked["output"], told["output_tokens"], "{told}");
    assert_eq!(booked["input"], told["input_tokens"], "{told}");
    let passed = record["out_token"].as_array().map_or(0, Vec::len);
    assert!(passed > 0, "no delta passed");
}
