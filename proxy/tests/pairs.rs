//! Two sidecars, one beside the application and one beside the backend: plain HTTP goes in, comes out, and travels between
//! them by any channel.

mod stack;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use stack::{Seen, Stack, create, exchange, get, raw, run, trace};
use tokenlag_channel::tls::{self, ClientTls, Identity};
use tokenlag_channel::{BaseUrl, ChannelError};
use tokenlag_probes::{Encoding, FailureKind, Outcome, TraceId, Transport};
use tokenlag_proxy::{Patience, ProxyOptions, StateAt};
use tokenlag_scripted::{Script, ScriptedBackend};

type Leg = (Transport, Encoding);

/// Every channel between the two.
const LEGS: [Leg; 7] = [
    (Transport::HttpCold, Encoding::Events),
    (Transport::Http, Encoding::Events),
    (Transport::Http2, Encoding::Events),
    (Transport::Http3, Encoding::Events),
    (Transport::Ws, Encoding::Events),
    (Transport::Quic, Encoding::Events),
    (Transport::Quic, Encoding::Compact),
];

/// How the application asks: a connection for each request.
const APPLICATION: Leg = (Transport::HttpCold, Encoding::Events);

struct Pair {
    /// Beside the backend.
    far: Stack,
    /// Beside the application.
    near: Stack,
}

impl Pair {
    fn start(leg: Leg, script: &str) -> Self {
        Self::between(leg, Stack::start(script), false, |options| options)
    }

    /// A sidecar in front of `far`; with `tls`, what is TCP between them is encrypted too.
    fn between(
        leg: Leg,
        far: Stack,
        tls: bool,
        adjust: impl FnOnce(ProxyOptions) -> ProxyOptions,
    ) -> Self {
        let trusted = run(get(far.addresses.admin, "/certificate")).1;
        let address = match leg.0 {
            Transport::Http3 | Transport::Quic => far.addresses.quic.unwrap(),
            _ => far.addresses.listen,
        };
        let upstream = BaseUrl::of(address.ip().to_string(), address.port()).with_tls(tls);
        // It has nothing to say: the far sidecar is what is asked.
        let nobody = ScriptedBackend::start(Script::default()).unwrap();
        let near = Stack::in_front_of(nobody, upstream, |options| {
            adjust(ProxyOptions {
                upstream_channel: leg.0,
                upstream_encoding: leg.1,
                upstream_tls: Some(ClientTls::trusting(trusted.as_bytes()).unwrap()),
                ..options
            })
        });
        Self { far, near }
    }

    async fn ask(&self, trace: TraceId, body: &str) -> Result<Seen, ChannelError> {
        self.ask_with(trace, body, &[]).await
    }

    async fn ask_with(
        &self,
        trace: TraceId,
        body: &str,
        headers: &[(String, String)],
    ) -> Result<Seen, ChannelError> {
        let channel = self.near.channel(APPLICATION.0);
        exchange(&channel, APPLICATION, trace, body, headers).await
    }
}

fn script(line: &str) -> Script {
    Script::default().with(line).unwrap()
}

/// What the backend says to a request that is asked of it directly, being its first.
fn directly(line: &str, body: &str) -> Seen {
    let backend = ScriptedBackend::start(script(line)).unwrap();
    let dial = tokenlag_channel::Dial {
        tls: None,
        ..stack::dial(backend.address(), &certificate())
    };
    let channel = tokenlag_channel::Channel::new(Transport::HttpCold, dial);
    run(exchange(&channel, APPLICATION, trace(1), body, &[])).unwrap()
}

fn certificate() -> String {
    tls::self_signed(&["127.0.0.1"]).unwrap().cert_pem
}

fn check(tls: bool, leg: Leg) {
    let line = "ttft=5ms,gap=1ms";
    let expected = directly(line, &create("hello", 20));
    let pair = Pair::between(leg, Stack::start(line), tls, |options| options);
    let label = format!("{} {}", leg.0, leg.1);
    run(async {
        for turn in 0..3 {
            let trace = trace(turn);
            let seen = pair.ask(trace, &create("hello", 20)).await.unwrap();
            assert_eq!(seen.outcome, Some(Outcome::Complete), "{label}");
            if turn == 0 {
                assert_eq!(seen.body, expected.body, "{label}");
            }
            assert_eq!(seen.marks.len(), 20, "{label}");

            let near = pair.near.record(trace).await;
            let far = pair.far.record(trace).await;
            let emitted = pair.far.backend.emissions(trace).unwrap();
            assert_eq!(near.channel, "http", "{label}");
            assert_eq!(far.channel, name(leg), "{label}");
            assert_eq!(near.outcome, Outcome::Complete, "{label}");
            assert_eq!(far.outcome, Outcome::Complete, "{label}");
            assert_eq!(near.usage, far.usage, "{label}");
            assert_eq!(near.usage.map(|usage| usage.output), Some(20), "{label}");
            let stamps = [
                &emitted,
                &far.up_token,
                &far.out_token,
                &near.up_token,
                &near.out_token,
            ];
            for (earlier, later) in stamps.iter().zip(&stamps[1..]) {
                assert_eq!((earlier.len(), later.len()), (20, 20), "{label}");
                assert!(earlier.iter().zip(*later).all(|(a, b)| a <= b), "{label}");
            }
            let arrived: Vec<_> = seen.marks.iter().map(|mark| mark.at).collect();
            let mut ends = near.out_token.iter().zip(&arrived);
            assert!(ends.all(|(out, at)| out <= at), "{label}");
            // A write that waits for the connection is stamped where it left.
            assert!(near.in_body <= near.up_written.unwrap(), "{label}");
            assert!(near.up_written.unwrap() <= far.in_body, "{label}");
            assert!(near.up_end.unwrap() <= seen.end.unwrap(), "{label}");
            // The leg is warm from the second exchange on.
            let anew = turn == 0 || leg.0 == Transport::HttpCold;
            assert_eq!(near.up_connected_anew, anew, "{label}, turn {turn}");
        }
    });
}

/// The name under which the far sidecar books what comes by a leg.
fn name(leg: Leg) -> &'static str {
    match leg.0 {
        Transport::HttpCold | Transport::Http => "http",
        Transport::Http2 => "http2",
        Transport::Http3 => "http3",
        Transport::Ws => "ws",
        Transport::Quic => "quic",
        other => panic!("{other}"),
    }
}

#[test]
fn what_comes_out_is_what_the_backend_said_token_by_token() {
    for leg in LEGS {
        check(false, leg);
    }
}

#[test]
fn the_leg_can_be_encrypted_whatever_it_is() {
    for leg in LEGS {
        check(true, leg);
    }
}

/// The body of a whole answer, its chunks put together.
fn body_of(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let mut rest = body;
    let mut whole = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    whole
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nx-own: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn whatever_else_http_asks_travels_too() {
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#;
    let get = "GET /v1/models?a=b HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".to_owned();
    let head = get.replace("GET", "HEAD");
    let asked = [
        get,
        post("/v1/chat/completions", chat),
        post(
            "/v1/chat/completions",
            &chat.replace("\"stream\":true", "\"stream\":false"),
        ),
        post(
            "/v1/completions",
            r#"{"prompt":"x","max_tokens":3,"stream":true}"#,
        ),
        post("/v1/responses", r#"{"input":"x","max_output_tokens":3}"#),
        post(
            "/v1/responses",
            r#"{"input":"x","max_output_tokens":3,"stream":true,"background":true}"#,
        ),
        post("/v1/responses", "no json"),
        post("/v1/nothing", "{}"),
        "DELETE /v1/responses/resp_1 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            .to_owned(),
        head,
    ];
    let backend = ScriptedBackend::start(script("ttft=0,gap=0")).unwrap();
    let expected: Vec<_> = asked
        .iter()
        .map(|request| run(raw(backend.address(), request.as_bytes())))
        .collect();
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=0,gap=0");
        run(async {
            for (request, expected) in asked.iter().zip(&expected) {
                let answer = raw(pair.near.addresses.listen, request.as_bytes()).await;
                let label = format!("{} {}: {request}", leg.0, leg.1);
                assert_eq!(answer[9..12], expected[9..12], "{label}");
                if !request.starts_with("HEAD") {
                    assert_eq!(body_of(&answer), body_of(expected), "{label}");
                }
                let kind = |answer: &str| {
                    let mut lines = answer.lines();
                    lines.find_map(|line| Some(line.strip_prefix("content-type: ")?.to_owned()))
                };
                assert_eq!(kind(&answer), kind(expected), "{label}");
            }
            let requests = pair.far.backend.requests();
            assert_eq!(requests[0].path, "/v1/models?a=b");
            assert_eq!(requests[1].header("x-own"), Some("1"));
            assert_eq!(requests[1].body, chat.as_bytes());
        });
    }
}

#[test]
fn an_upstreams_refusal_keeps_its_status_on_every_leg() {
    for leg in LEGS {
        let pair = Pair::start(leg, "status=429");
        run(async {
            for _ in 0..2 {
                let answer = raw(
                    pair.near.addresses.listen,
                    post("/v1/responses", &create("x", 3)).as_bytes(),
                )
                .await;
                let label = format!("{} {}: {answer}", leg.0, leg.1);
                assert!(
                    answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
                    "{label}"
                );
                let body: Value = serde_json::from_str(&body_of(&answer)).unwrap();
                assert_eq!(body["error"]["message"], "as the script says", "{label}");
            }
        });
    }
}

#[test]
fn only_what_is_new_travels_where_the_far_sidecar_keeps_the_state() {
    for leg in LEGS {
        for state_at in [StateAt::Proxy, StateAt::Upstream] {
            let pair = Pair::between(leg, Stack::start("gap=0ms"), false, |options| {
                ProxyOptions {
                    state_at,
                    ..options
                }
            });
            run(async {
                let label = format!("{} {} {state_at:?}", leg.0, leg.1);
                let first = pair.ask(trace(1), &create("one", 4)).await.unwrap();
                let done: Value = serde_json::from_slice(&first.terminal).unwrap();
                let mut next: Value = serde_json::from_str(&create("two", 4)).unwrap();
                next["previous_response_id"] = done["response"]["id"].clone();
                let second = pair.ask(trace(2), &next.to_string()).await.unwrap();
                assert_eq!(second.outcome, Some(Outcome::Complete), "{label}");
                let asked = pair.far.backend.take_requests().pop().unwrap();
                let asked: Value = serde_json::from_slice(&asked.body).unwrap();
                assert_eq!(asked.get("previous_response_id"), None, "{label}");
                assert_eq!(asked["input"].as_array().unwrap().len(), 3, "{label}");
            });
        }
    }
}

#[test]
fn an_unknown_response_is_refused_as_over_http() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "gap=0ms");
    run(async {
        let mut body: Value = serde_json::from_str(&create("two", 4)).unwrap();
        body["previous_response_id"] = json!("resp_no");
        let answer = raw(
            pair.near.addresses.listen,
            post("/v1/responses", &body.to_string()).as_bytes(),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("previous_response_not_found"), "{answer}");
    });
}

#[test]
fn one_connection_carries_exchanges_side_by_side() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=20ms,gap=1ms");
        run(async {
            // Warm first: what is dialled at once is dialled by each.
            pair.ask(trace(100), &create("x", 2)).await.unwrap();
            let traces: Vec<_> = (0..8).map(|number| trace(200 + number)).collect();
            let body = create("x", 10);
            let asked = traces.iter().map(|&trace| pair.ask(trace, &body));
            for seen in futures_util::future::join_all(asked).await {
                assert_eq!(seen.unwrap().marks.len(), 10);
            }
            let mut anew = 0;
            for trace in traces {
                let record = pair.near.record(trace).await;
                assert_eq!(record.outcome, Outcome::Complete);
                anew += usize::from(record.up_connected_anew);
            }
            let expected = match leg.0 {
                Transport::HttpCold => 8,
                // One exchange at a time on each.
                Transport::Http | Transport::Ws => 7,
                _ => 0,
            };
            assert_eq!(anew, expected, "{} {}", leg.0, leg.1);
        });
    }
}

#[test]
fn a_websocket_of_one_client_carries_nothing_of_anothers() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "gap=0ms");
    let key = |whom: &str| [("authorization".to_owned(), format!("Bearer {whom}"))];
    run(async {
        for (number, whom) in ["me", "you", "me", "you"].into_iter().enumerate() {
            let trace = trace(number as u128);
            pair.ask_with(trace, &create("x", 3), &key(whom))
                .await
                .unwrap();
            let record = pair.near.record(trace).await;
            assert_eq!(record.up_connected_anew, number < 2, "{number}");
            let asked = pair.far.backend.take_requests().pop().unwrap();
            assert_eq!(
                asked.header("authorization"),
                Some(&*format!("Bearer {whom}"))
            );
            assert_eq!(asked.trace, Some(trace));
        }
    });
}

#[test]
fn a_reply_that_the_backend_cuts_off_looks_cut_off() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=5ms,gap=2ms,close=5");
        run(async {
            let trace = trace(1);
            let error = pair.ask(trace, &create("x", 20)).await.unwrap_err();
            let label = format!("{} {}", leg.0, leg.1);
            assert!(
                matches!(error, ChannelError::Lost { .. }),
                "{label}: {error}"
            );
            let near = pair.near.record(trace).await;
            assert!(
                matches!(near.outcome, Outcome::Failed(_)),
                "{label}: {:?}",
                near.outcome
            );
            assert_eq!(near.out_token.len(), 4, "{label}");
        });
    }
}

#[test]
fn a_sidecar_that_dies_cuts_its_replies_off() {
    for leg in LEGS {
        let far = {
            let backend = ScriptedBackend::start(script("ttft=5ms,gap=20ms")).unwrap();
            let upstream = backend.url().parse().unwrap();
            Stack::in_front_of(backend, upstream, |options| ProxyOptions {
                grace: Duration::ZERO,
                ..options
            })
        };
        let mut pair = Pair::between(leg, far, false, |options| ProxyOptions {
            patience: Patience {
                connect: Duration::from_millis(500),
                ..options.patience
            },
            ..options
        });
        let label = format!("{} {}", leg.0, leg.1);
        run(async {
            pair.ask(trace(1), &create("x", 2)).await.unwrap();
            let long = create("x", 500);
            let trace = trace(2);
            let channel = pair.near.channel(APPLICATION.0);
            let request = stack::request(APPLICATION, trace, &long, &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            while reply.next().await.unwrap().is_some_and(|chunk| {
                !String::from_utf8_lossy(&chunk.bytes).contains("output_text.delta")
            }) {}
            let ended = pair.far.begin_shutdown();
            let error = loop {
                match reply.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{label}: the reply ended as if it were whole"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(error, ChannelError::Lost { .. }),
                "{label}: {error}"
            );
            ended.join().unwrap();
            let near = pair.near.record(trace).await;
            assert!(
                matches!(near.outcome, Outcome::Failed(_)),
                "{label}: {:?}",
                near.outcome
            );
        });
        // Nobody is there.
        run(async {
            let trace = trace(3);
            let seen = pair.ask(trace, &create("x", 2)).await.unwrap();
            assert!(matches!(seen.status, 502 | 504), "{label}: {}", seen.status);
            let near = pair.near.record(trace).await;
            let kind = match near.outcome {
                Outcome::Failed(kind) => kind,
                other => panic!("{label}: {other:?}"),
            };
            assert!(
                matches!(
                    kind,
                    FailureKind::Connect | FailureKind::ConnectionLost | FailureKind::Timeout
                ),
                "{label}: {kind:?}"
            );
        });
    }
}

#[test]
fn a_client_that_leaves_ends_the_exchange_at_the_backend() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=5ms,gap=10ms");
        run(async {
            let trace = trace(1);
            let channel = pair.near.channel(APPLICATION.0);
            let long = create("x", 1000);
            let request = stack::request(APPLICATION, trace, &long, &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            reply.next().await.unwrap();
            drop(reply);
            let label = format!("{} {}", leg.0, leg.1);
            assert_eq!(
                pair.near.record(trace).await.outcome,
                Outcome::Cancelled,
                "{label}"
            );
            assert_eq!(
                pair.far.record(trace).await.outcome,
                Outcome::Cancelled,
                "{label}"
            );
        });
    }
}

#[test]
fn a_sidecar_that_came_back_is_asked_as_if_it_had_never_been_away() {
    for leg in LEGS {
        let quick = |options: ProxyOptions| ProxyOptions {
            grace: Duration::ZERO,
            ..options
        };
        let in_front_of = |listen: SocketAddr| {
            let backend = ScriptedBackend::start(script("gap=0ms")).unwrap();
            let upstream = backend.url().parse().unwrap();
            let identity = IDENTITY.with(Clone::clone);
            Stack::in_front_of(backend, upstream, |options| ProxyOptions {
                listen,
                quic: Some(listen),
                identity: Some(identity),
                ..quick(options)
            })
        };
        let mut pair = Pair::between(
            leg,
            in_front_of(([127, 0, 0, 1], 0).into()),
            false,
            |options| options,
        );
        let address = pair.far.addresses.listen;
        let label = format!("{} {}", leg.0, leg.1);
        // Several at once, so that several connections are idle as it goes.
        let ask_three = |pair: &Pair| {
            run(async {
                let body = create("x", 2);
                let asked = (0..3).map(|number| pair.ask(trace(number), &body));
                for seen in futures_util::future::join_all(asked).await {
                    assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete), "{label}");
                }
            });
        };
        ask_three(&pair);
        pair.far.begin_shutdown().join().unwrap();
        pair.far = in_front_of(address);
        ask_three(&pair);
    }
}

thread_local! {
    /// Of a sidecar that comes back.
    static IDENTITY: Identity = tls::self_signed(&["localhost", "127.0.0.1"]).unwrap();
}
