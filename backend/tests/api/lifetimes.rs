//! Clients that leave, clients that are slow, servers that stop.

use std::time::Duration;

use serde_json::{Value, json};
use tokenlag_backend::ServerOptions;
use tokenlag_probes::Outcome;
use tokio::io::AsyncReadExt;

use crate::client::Stream;
use crate::harness::with_server;

const PATH: &str = "/v1/completions";

fn one_slot() -> ServerOptions {
    ServerOptions {
        slots: 1,
        grace: Duration::from_secs(60),
        ..ServerOptions::default()
    }
}

fn endless(prompt: &str) -> Value {
    json!({"prompt": prompt, "max_tokens": 100_000, "ignore_eos": true, "stream": true})
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    with_server(one_slot(), async |server| {
        let mut running = server.client.open(PATH, &endless("a")).await;
        running.next().await.unwrap();
        drop(running);
        let short = json!({"prompt": "b", "max_tokens": 3, "ignore_eos": true});
        let reply = server.client.post(PATH, &short).await.ok();
        assert_eq!(reply["usage"]["completion_tokens"], 3);
        assert_eq!(server.metric("tokenlag_backend_jobs_active").await, 0);
    });
}

#[test]
fn a_client_that_leaves_the_queue_is_forgotten() {
    with_server(one_slot(), async |server| {
        let running = server.client.open(PATH, &endless("a")).await;
        let waiting = server
            .client
            .send("POST", PATH, &endless("b").to_string())
            .await;
        server.until("tokenlag_backend_jobs_waiting", 1).await;
        drop(waiting);
        server.until("tokenlag_backend_jobs_waiting", 0).await;
        assert_eq!(server.metric("tokenlag_backend_jobs_active").await, 1);
        drop(running);
        server.until("tokenlag_backend_jobs_active", 0).await;
    });
}

#[test]
fn a_client_that_leaves_while_its_prompt_is_read() {
    let options = ServerOptions {
        prefill_chunk: 1,
        ..one_slot()
    };
    with_server(options, async |server| {
        let long = "word ".repeat(20_000);
        for stream in [true, false] {
            let mut body = endless(&long);
            body["stream"] = json!(stream);
            let reading = server.client.send("POST", PATH, &body.to_string()).await;
            server.until("tokenlag_backend_jobs_active", 1).await;
            drop(reading);
            server.until("tokenlag_backend_jobs_active", 0).await;
        }
        assert_eq!(
            server
                .metric("tokenlag_backend_generated_tokens_total")
                .await,
            0
        );
    });
}

#[test]
fn a_slow_reader_holds_up_nobody_and_loses_nothing() {
    with_server(one_slot(), async |server| {
        let body = json!({"prompt": "a", "max_tokens": 3_000, "temperature": 0, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}});
        let slow = server.client.open(PATH, &body).await;
        let short = json!({"prompt": "b", "max_tokens": 3, "ignore_eos": true});
        server.client.post(PATH, &short).await.ok();
        let streamed = slow.decode(PATH).await;
        assert_eq!(streamed.usage.unwrap().output, 3_000);
        let mut again = body.clone();
        again["stream"] = json!(false);
        let whole = server.client.post(PATH, &again).await.ok();
        assert_eq!(
            streamed.text("/choices/0/text"),
            whole["choices"][0]["text"].as_str().unwrap()
        );
    });
}

#[test]
fn work_in_flight_is_finished_when_the_server_stops() {
    with_server(one_slot(), async |mut server| {
        let body = json!({"prompt": "a", "max_tokens": 300, "ignore_eos": true, "stream": true});
        let stream = server.client.open(PATH, &body).await;
        server.stop();
        let streamed = stream.decode(PATH).await;
        assert_eq!(streamed.outcome, Some(Outcome::Complete));
        assert!(
            server
                .client
                .raw(b"GET /health HTTP/1.1\r\n\r\n")
                .await
                .is_err()
        );
    });
}

#[test]
fn work_that_takes_longer_than_the_grace_is_cut_off() {
    let options = ServerOptions {
        grace: Duration::from_millis(100),
        ..one_slot()
    };
    with_server(options, async |mut server| {
        let stream = server.client.open(PATH, &endless("a")).await;
        server.stop();
        let streamed = stream.decode(PATH).await;
        assert_eq!(streamed.outcome, None);
    });
}

#[test]
fn a_connection_is_kept_for_further_requests() {
    with_server(one_slot(), async |server| {
        let request = "GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
        let mut socket = server
            .client
            .raw(request.repeat(3).as_bytes())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        while bytes
            .windows(15)
            .filter(|window| window == b"{\"status\":\"ok\"}")
            .count()
            < 3
        {
            assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
        }
    });
}

#[test]
fn two_hundred_connections_at_once() {
    with_server(ServerOptions::default(), async |server| {
        let client = &server.client;
        let body = json!({"prompt": "a", "max_tokens": 4, "temperature": 0, "ignore_eos": true, "stream": true});
        let mut streams = Vec::new();
        for _ in 0..200 {
            streams.push(client.send("POST", PATH, &body.to_string()).await);
        }
        let mut texts = std::collections::BTreeSet::new();
        for socket in streams {
            let streamed = Stream::of(socket).await.decode(PATH).await;
            assert_eq!(streamed.outcome, Some(Outcome::Complete));
            texts.insert(streamed.text("/choices/0/text"));
        }
        assert_eq!(texts.len(), 1, "{texts:?}");
    });
}
