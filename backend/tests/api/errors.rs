//! Faults: the right status, the right member, words that help.

use serde_json::{Value, json};
use tokenlag_backend::ServerOptions;

use crate::client::{Reply, Stream};
use crate::harness::{check, with_server};

fn refused(reply: &Reply, status: u16, param: Value, words: &str) {
    let error = &reply.json()["error"];
    assert_eq!(reply.status, status, "{error}");
    assert_eq!(error["param"], param, "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(words),
        "{error}"
    );
    assert!(error["type"].is_string(), "{error}");
}

#[test]
fn requests_that_make_no_sense() {
    check(async |server| {
        let post = async |path: &str, body: &str| server.client.request("POST", path, body).await;
        let malformed = post("/v1/chat/completions", "{\n  \"messages\": [,]}").await;
        refused(&malformed, 400, Value::Null, "line 2 column");
        refused(
            &post("/v1/completions", "").await,
            400,
            Value::Null,
            "line 1 column 0",
        );
        refused(
            &post("/v1/completions", "{}").await,
            400,
            json!("prompt"),
            "missing",
        );
        refused(
            &post("/v1/completions", r#"{"prompt":[]}"#).await,
            400,
            json!("prompt"),
            "empty",
        );
        refused(
            &post("/v1/responses", "{}").await,
            400,
            json!("input"),
            "missing",
        );
        refused(
            &post("/v1/responses", r#"{"input":7}"#).await,
            400,
            json!("input"),
            "string",
        );
        refused(
            &post("/v1/responses", "[]").await,
            400,
            Value::Null,
            "object",
        );
        let two = r#"{"messages":[{"role":"user","content":"a"}],"n":2}"#;
        refused(
            &post("/v1/chat/completions", two).await,
            400,
            json!("n"),
            "one choice",
        );
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#;
        refused(
            &post("/v1/chat/completions", image).await,
            400,
            json!("messages"),
            "text only",
        );
        let hot = r#"{"prompt":"a","temperature":3}"#;
        refused(
            &post("/v1/completions", hot).await,
            400,
            json!("temperature"),
            "at most 2",
        );
    });
}

#[test]
fn paths_and_methods_that_are_not_there() {
    check(async |server| {
        refused(
            &server.client.get("/v2/models").await,
            404,
            Value::Null,
            "/v1/responses",
        );
        refused(
            &server.client.get("/").await,
            404,
            Value::Null,
            "/v1/models",
        );
        let wrong = server.client.get("/v1/completions").await;
        refused(&wrong, 405, Value::Null, "POST");
        assert!(wrong.head.contains("allow: post"), "{}", wrong.head);
        refused(
            &server.client.post("/v1/models", &json!({})).await,
            405,
            Value::Null,
            "GET",
        );
        assert_eq!(server.client.get("/health/?x=1").await.status, 200);
    });
}

#[test]
fn a_prompt_longer_than_the_context() {
    let options = ServerOptions {
        context: Some(64),
        ..ServerOptions::default()
    };
    with_server(options, async |server| {
        let body = json!({"prompt": "word ".repeat(200)});
        let reply = server.client.post("/v1/completions", &body).await;
        refused(&reply, 400, json!("prompt"), "context ends at 64");
        assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
        let body = json!({"prompt": "word", "max_tokens": 1_000, "ignore_eos": true});
        let reply = server.client.post("/v1/completions", &body).await.ok();
        assert_eq!(reply["choices"][0]["finish_reason"], "length");
        assert_eq!(reply["usage"]["total_tokens"], 64);
    });
}

#[test]
fn a_body_that_is_too_large_is_refused_by_its_length() {
    check(async |server| {
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            65 << 20
        );
        let socket = server.client.raw(head.as_bytes()).await.unwrap();
        let reply = Stream::of(socket).await.rest().await;
        refused(&reply, 413, Value::Null, "64 MiB");
    });
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let options = ServerOptions {
        slots: 1,
        queue: 1,
        ..ServerOptions::default()
    };
    with_server(options, async |server| {
        let endless =
            json!({"prompt": "a", "max_tokens": 100_000, "ignore_eos": true, "stream": true});
        let _running = server.client.open("/v1/completions", &endless).await;
        let _waiting = server
            .client
            .send("POST", "/v1/completions", &endless.to_string())
            .await;
        server.until("tokenlag_backend_jobs_waiting", 1).await;
        let reply = server.client.post("/v1/completions", &endless).await;
        refused(&reply, 503, Value::Null, "queue");
        assert_eq!(reply.json()["error"]["code"], "queue_full");
        assert!(reply.head.contains("retry-after: 1"), "{}", reply.head);
    });
}
