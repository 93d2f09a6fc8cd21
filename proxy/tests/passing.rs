//! HTTP that is passed on, and HTTP that is refused.

mod stack;

use stack::{IDLE, Stack, get, raw, run};
use tokenlag_probes::clock::clock_name;
use tokenlag_probes::{Clock, ClockReply, MonoClock};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An upstream that notes one request and gives one answer, byte for byte.
async fn pass(request: &str, answer: &'static str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let backend = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(backend, upstream.parse().unwrap(), |options| options);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 64 * 1024];
        let mut length = 0;
        // The request is whole when nothing came for a while: nobody here knows how it is framed.
        while let Ok(read) = tokio::time::timeout(
            std::time::Duration::from_millis(100),
            stream.read(&mut seen[length..]),
        )
        .await
        {
            length += read.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(seen[..length].to_vec()).unwrap()
    };
    let (seen, got) = tokio::join!(serve, raw(stack.addresses.listen, request.as_bytes()));
    (seen, got)
}

#[test]
fn what_is_not_understood_passes_unchanged() {
    run(async {
        let request = "PUT /any/thing?q=1 HTTP/1.1\r\nHost: model.example\r\nX-Odd: a  b\r\nAuthorization: Bearer k\r\n\
                       Connection: close\r\nContent-Length: 5\r\n\r\nhello";
        let answer = "HTTP/1.1 207 Multi-Status\r\nX-Back: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\n\r\nabc";
        let (seen, got) = pass(request, answer).await;
        let (line, rest) = seen.split_once("\r\n").unwrap();
        assert_eq!(line, "PUT /any/thing?q=1 HTTP/1.1");
        // The upstream is asked by its own name; all else is as it came.
        let (host, rest) = rest.split_once("\r\n").unwrap();
        assert!(host.starts_with("host: 127.0.0.1:"), "{host}");
        let fields = "X-Odd: a  b\r\nAuthorization: Bearer k\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(rest, fields);
        let expected = "HTTP/1.1 207 Multi-Status\r\nX-Back: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                        Content-Length: 3\r\nconnection: close\r\n\r\nabc";
        assert_eq!(got, expected);
    });
}

#[test]
fn a_chunked_request_stays_chunked() {
    run(async {
        let request = "POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let (seen, got) = pass(request, "HTTP/1.1 204 No Content\r\n\r\n").await;
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(body, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 204 No Content\r\n"), "{got}");
    });
}

#[test]
fn a_body_up_to_the_close_is_chunked_for_1_1_and_raw_for_1_0() {
    run(async {
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nall of it";
        let (_, got) = pass("GET / HTTP/1.0\r\nhost: a\r\n\r\n", answer).await;
        assert!(got.ends_with("\r\n\r\nall of it"), "{got}");
        assert!(!got.contains("chunked"), "{got}");
    });
}

#[test]
fn an_upgrade_that_is_not_ours_is_tunnelled() {
    run(async {
        let request =
            "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\nbytes of odd/1";
        let (seen, got) = pass(request, answer).await;
        assert!(seen.contains("upgrade: odd/1"), "{seen}");
        assert_eq!(got, answer);
    });
}

#[test]
fn an_offer_of_http2_with_a_body_is_served_as_if_nothing_was_offered() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let body = stack::create("x", 3);
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\
             http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\ncontent-length: {}\r\n\r\n{body}\
             GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answer = raw(stack.addresses.listen, request.as_bytes()).await;
        assert!(answer.contains("response.completed"), "{answer}");
        let asked = &stack.backend.requests()[0];
        assert_eq!(asked.header("upgrade"), None);
        assert_eq!(asked.header("http2-settings"), None);
    });
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let stack = Stack::start("");
    run(async {
        let request = "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\nGET /health HTTP/1.1\r\nhost: a\r\n\r\n\
                       GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = raw(stack.addresses.listen, request.as_bytes()).await;
        let statuses: Vec<_> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .collect();
        assert_eq!(statuses, ["200", "200", "404"], "{answer}");
    });
}

#[test]
fn a_large_body_waits_for_the_go_ahead() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let body = format!(
            r#"{{"model":"m","input":"{}","stream":true,"max_output_tokens":2}}"#,
            "x".repeat(300_000)
        );
        let head = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut go_ahead = [0; 25];
        stream.read_exact(&mut go_ahead).await.unwrap();
        assert_eq!(&go_ahead[..], b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(IDLE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains("response.completed"), "{answer}");
        assert_eq!(stack.backend.requests()[0].body.len(), body.len());
    });
}

#[test]
fn garbage_and_smuggling_are_refused() {
    let stack = Stack::start("");
    run(async {
        for request in [
            "\x15\x03\x01\x02\x00\x01\x00",
            "hello\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ] {
            let answer = raw(stack.addresses.listen, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
        }
        assert!(stack.backend.requests().is_empty());
        assert_eq!(
            get(stack.addresses.listen, "/health").await.0,
            200,
            "it still serves"
        );
    });
}

#[test]
fn pages_of_a_browser_do_not_act_on_the_process() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let admin = stack.addresses.admin;
        let ask = async |method: &str, target: &str, fields: &str| {
            let request =
                format!("{method} {target} HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
            let answer = raw(admin, request.as_bytes()).await;
            let status: u16 = answer[9..12].parse().unwrap();
            (status, answer)
        };
        let here = format!("host: {admin}\r\n");
        let pages = [
            format!("{here}origin: https://example.com\r\nsec-fetch-site: cross-site\r\n"),
            format!("{here}origin: null\r\n"),
            format!("{here}sec-fetch-site: same-site\r\n"),
            // A name that leads here since its page was loaded.
            "host: example.com\r\norigin: http://example.com\r\n".to_owned(),
            "host: example.com\r\n".to_owned(),
        ];
        for fields in &pages {
            for (method, target) in [
                ("POST", "/shutdown"),
                ("GET", "/distance"),
                ("POST", "/debug/pprof/start?seconds=1"),
                ("POST", "/debug/pprof/stop"),
                ("GET", "/debug/pprof/profile?seconds=1"),
                ("GET", "/debug/pprof/flamegraph?seconds=1"),
            ] {
                let (status, answer) = ask(method, target, fields).await;
                assert_eq!(status, 403, "{method} {target}, {fields}: {answer}");
                assert!(answer.contains("costs it time"), "{answer}");
            }
            // Figures are scraped by whoever can.
            for target in ["/live", "/metrics", "/clock"] {
                assert_eq!(ask("GET", target, fields).await.0, 200, "{target}");
            }
        }
        // What was refused has not begun, and the proxy lives; the endpoint's own page may ask.
        let own = format!("{here}origin: http://{admin}\r\nsec-fetch-site: same-origin\r\n");
        assert_eq!(ask("GET", "/ready", &own).await.0, 200);
        assert_eq!(ask("POST", "/debug/pprof/stop", &own).await.0, 409);
        assert_eq!(ask("GET", "/distance", &own).await.0, 200);
    });
}

#[test]
fn the_admin_endpoint_tells_and_stops() {
    let mut stack = Stack::start("gap=0ms");
    run(async {
        let admin = stack.addresses.admin;
        assert_eq!(get(admin, "/live").await.0, 200);
        assert_eq!(get(admin, "/ready").await.0, 200);
        assert_eq!(get(admin, "/nothing").await.0, 404);
        assert_eq!(get(admin, "/shutdown").await.0, 405);
        assert_eq!(get(admin, "/exchanges?since=x").await.0, 400);
        let (_, certificate) = get(admin, "/certificate").await;
        assert!(
            certificate.starts_with("-----BEGIN CERTIFICATE-----"),
            "{certificate}"
        );
        assert!(!certificate.contains("PRIVATE"), "the key stays inside");
        let (_, config) = get(admin, "/config").await;
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["upstream"], stack.backend.url());
        let before = MonoClock.now();
        let (_, told) = get(admin, "/clock").await;
        let after = MonoClock.now();
        let told = ClockReply::parse(told.as_bytes()).unwrap();
        assert!(before <= told.received && told.received <= told.replied && told.replied <= after);
        assert_eq!(told.clock, clock_name(), "it is the clock of this test too");

        let body = stack::create("x", 3);
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(stack.addresses.listen, request.as_bytes()).await;
        let mut lines = Vec::new();
        for _ in 0..200 {
            lines = get(admin, "/exchanges")
                .await
                .1
                .lines()
                .map(str::to_owned)
                .collect();
            if lines.len() > 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[1], r#"{"next":1,"evicted":0}"#);
        let (_, metrics) = get(admin, "/metrics").await;
        assert!(
            metrics.contains(r#"tokenlag_exchanges_total{channel="http",outcome="complete"} 1"#),
            "{metrics}"
        );
        assert!(
            metrics.contains(r#"tokenlag_deltas_total{channel="http"} 3"#),
            "{metrics}"
        );
        assert!(
            !metrics.contains("# EOF") && !metrics.contains("trace_id"),
            "{metrics}"
        );
        let newer = "GET /metrics HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text; version=1.0.0\r\n\
                     connection: close\r\n\r\n";
        let metrics = raw(admin, newer.as_bytes()).await;
        assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
        let (_, histograms) = get(admin, "/histograms").await;
        assert!(histograms.contains("Tag=http.model_ttft"), "{histograms}");

        let post = format!("POST /shutdown HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        assert!(
            raw(admin, post.as_bytes())
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    });
    stack.begin_shutdown().join().unwrap();
}
