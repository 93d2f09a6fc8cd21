//! The instrument against a client of a few lines: schedules, shapes of writes, endings, errors.

mod support;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Client, Reply};
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Clock, MonoClock, Outcome, Stamp, TraceId};
use tokenlag_scripted::{Pace, Script, ScriptedBackend};

/// How late a write may be on a machine that does other things too.
const LATE: i64 = 30_000_000;

fn backend() -> ScriptedBackend {
    ScriptedBackend::start(Script::default()).unwrap()
}

/// One streamed exchange, and when the backend wrote its deltas, counted from the request.
fn streamed(backend: &ScriptedBackend, dialect: Dialect, script: &str) -> (Reply, Vec<i64>) {
    let trace = TraceId::from_bits(u128::from(MonoClock.now().as_nanos()));
    let reply = Client::connect(backend).stream(dialect, trace, script);
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.trace, Some(trace));
    let since = |stamp: Stamp| stamp.since(request.at);
    let written = backend.emissions(trace).unwrap();
    (reply, written.into_iter().map(since).collect())
}

/// Each delta was written at its moment or a little later, and never before.
#[track_caller]
fn check_schedule(written: &[i64], due_millis: &[i64]) {
    assert_eq!(written.len(), due_millis.len(), "{written:?}");
    for (nanos, millis) in written.iter().zip(due_millis) {
        let late = nanos - millis * 1_000_000;
        assert!((0..LATE).contains(&late), "{late} ns late: {written:?}");
    }
}

#[test]
fn every_dialect_streams_on_schedule_and_ends_with_its_usage() {
    let backend = backend();
    for dialect in Dialect::ASKED {
        let script = "ttft=20ms,gap=5ms,tokens=4,input=11,cached=3";
        let (reply, written) = streamed(&backend, dialect, script);
        assert_eq!(reply.status, 200);
        assert!(reply.whole);
        check_schedule(&written, &[20, 25, 30, 35]);
        let (decoder, marks) = reply.decoded(dialect);
        assert_eq!(decoder.outcome(), Some(Outcome::Complete), "{dialect}");
        let usage = decoder.usage().unwrap();
        assert_eq!(
            (usage.input, usage.cached_input, usage.output),
            (11, Some(3), 4)
        );
        assert_eq!(marks.len(), 4);
    }
}

#[test]
fn what_was_written_is_read_soon_after() {
    let backend = backend();
    let trace = TraceId::from_bits(7);
    let reply =
        Client::connect(&backend).stream(Dialect::Chat, trace, "ttft=5ms,gap=2ms,tokens=20");
    let written = backend.emissions(trace).unwrap();
    let (_, marks) = reply.decoded(Dialect::Chat);
    assert_eq!(marks.len(), written.len());
    for (mark, written) in marks.iter().zip(written) {
        let late = mark.at.since(written);
        assert!((0..LATE).contains(&late), "{late}");
    }
}

#[test]
fn several_tokens_in_an_event_are_one_delta() {
    let script = "ttft=4ms,gap=4ms,tokens=5,tokens_per_event=2";
    let (reply, written) = streamed(&backend(), Dialect::Chat, script);
    // Tokens 2, 4 and 5 complete the three events.
    check_schedule(&written, &[8, 16, 20]);
    let (decoder, marks) = reply.decoded(Dialect::Chat);
    assert_eq!(marks.len(), 3);
    assert_eq!(decoder.usage().unwrap().output, 5);
    assert!(reply.text().contains(r#"" t3 t4""#));
}

#[test]
fn several_events_in_a_write_share_its_stamp() {
    let script = "ttft=4ms,gap=4ms,tokens=5,events_per_write=2";
    let (reply, written) = streamed(&backend(), Dialect::Completions, script);
    check_schedule(&written, &[8, 8, 16, 16, 20]);
    assert_eq!(written[0], written[1]);
    let (_, marks) = reply.decoded(Dialect::Completions);
    let chunks: Vec<u32> = marks.iter().map(|mark| mark.chunk).collect();
    assert_eq!(chunks, [0, 0, 1, 1, 2]);
}

#[test]
fn an_event_in_pieces_is_stamped_before_its_last() {
    let script = "ttft=5ms,gap=20ms,tokens=2,writes_per_event=4,piece_pause=2ms";
    let (reply, written) = streamed(&backend(), Dialect::Chat, script);
    check_schedule(&written, &[11, 31]);
    let (decoder, marks) = reply.decoded(Dialect::Chat);
    assert_eq!(marks.len(), 2);
    assert_eq!(decoder.outcome(), Some(Outcome::Complete));
    // The head's role chunk, twice four pieces, and the end.
    assert_eq!(reply.chunks.len(), 1 + 8 + 1);
}

#[test]
fn what_stands_before_the_first_delta_comes_early_or_with_it() {
    let backend = backend();
    let millis_to_first_chunk = |script| {
        let (reply, _) = streamed(&backend, Dialect::Responses, script);
        let request = backend.requests().pop().unwrap();
        assert!(reply.text().contains("response.created"));
        reply.chunks[0].0.since(request.at) / 1_000_000
    };
    assert!(millis_to_first_chunk("ttft=200ms,tokens=1,early=head") < 150);
    assert!(millis_to_first_chunk("ttft=200ms,tokens=1,early=token") >= 200);
    assert!(millis_to_first_chunk("ttft=1ms,tokens=1,head=100ms") >= 100);
}

#[test]
fn pings_are_no_deltas() {
    let (reply, written) = streamed(&backend(), Dialect::Chat, "ttft=30ms,tokens=2,pings=2");
    assert_eq!(reply.text().matches(": ping").count(), 2);
    let (_, marks) = reply.decoded(Dialect::Chat);
    assert_eq!((marks.len(), written.len()), (2, 2));
    assert!(written[0] >= 30_000_000);
}

#[test]
fn a_stall_delays_all_that_follows() {
    let script = "ttft=5ms,gap=5ms,tokens=4,stall=3:50ms";
    let (_, written) = streamed(&backend(), Dialect::Chat, script);
    check_schedule(&written, &[5, 10, 65, 70]);
}

#[test]
fn tokens_of_a_burst_are_due_together_each_in_a_write_of_its_own() {
    let script = "ttft=10ms,gap=5ms,tokens=6,burst=4";
    let (reply, written) = streamed(&backend(), Dialect::Chat, script);
    check_schedule(&written, &[10, 10, 10, 10, 30, 30]);
    assert!(written.is_sorted());
    assert_eq!(reply.decoded(Dialect::Chat).1.len(), 6);
    // The head's role chunk, a chunk for each token, and the end.
    assert_eq!(reply.chunks.len(), 1 + 6 + 1);
}

#[test]
fn a_stream_that_is_late_does_not_keep_others_from_their_turn() {
    let backend = backend();
    let long = TraceId::from_bits(71);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let script = "ttft=1ms,gap=0,tokens=200000";
            Client::connect(&backend).stream(Dialect::Completions, long, script)
        });
        while backend.requests().is_empty() {
            std::thread::yield_now();
        }
        let (_, written) = streamed(&backend, Dialect::Chat, "ttft=20ms,gap=5ms,tokens=4");
        check_schedule(&written, &[20, 25, 30, 35]);
        assert!(busy.join().unwrap().whole);
    });
    assert_eq!(backend.emissions(long).unwrap().len(), 200_000);
}

#[test]
fn a_reply_of_a_million_tokens_leaves_whole() {
    let backend = backend();
    let trace = TraceId::from_bits(72);
    let script = "ttft=1ms,gap=0,tokens=1000000,events_per_write=500";
    let reply = Client::connect(&backend).stream(Dialect::Completions, trace, script);
    assert!(reply.whole);
    let (decoder, marks) = reply.decoded(Dialect::Completions);
    assert_eq!(decoder.outcome(), Some(Outcome::Complete));
    assert_eq!(marks.len(), 1_000_000);
    assert_eq!(backend.emissions(trace).unwrap().len(), 1_000_000);
    assert!(backend.take_lateness().emissions >= 2_000);
}

#[test]
fn it_tells_how_late_it_was_since_it_was_asked() {
    let address = ([127, 0, 0, 1], 0).into();
    for pace in [Pace::Spin, Pace::RealTime] {
        let backend = ScriptedBackend::start_with(address, Script::default(), pace).unwrap();
        let (_, written) = streamed(&backend, Dialect::Chat, "ttft=5ms,gap=1ms,tokens=50");
        let late = backend.take_lateness();
        assert_eq!(late.emissions, 50);
        let due = |k: usize| 5_000_000 + k as i64 * 1_000_000;
        let latest = written.iter().enumerate().map(|(k, at)| at - due(k)).max();
        // The histogram keeps three digits.
        let apart = (late.max - latest.unwrap()).abs();
        assert!(apart <= late.max / 500 + 1, "{late:?}, {latest:?}");
        assert!(late.mean >= 0.0 && late.p99 <= late.max);
        assert!(late.to_string().contains("over 50 emissions, with "));
        assert_eq!(backend.take_lateness().emissions, 0);
    }
}

#[test]
fn two_thousand_streams_of_several_turns_are_all_in_the_log() {
    const STREAMS: usize = 2_000;
    const TURNS: usize = 3;
    raise_open_files();
    let backend = ScriptedBackend::start("ttft=1ms,gap=1ms,tokens=3".parse().unwrap()).unwrap();
    let trace =
        |stream: usize, turn: usize| TraceId::from_bits((stream * TURNS + turn + 1) as u128);
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| Client::connect(&backend)).collect();
    for turn in 0..TURNS {
        // All of a turn are under way at once.
        for (stream, client) in clients.iter_mut().enumerate() {
            client.begin_stream(Dialect::Responses, trace(stream, turn), "tokens=3");
        }
        for client in &mut clients {
            assert!(client.receive().whole);
        }
    }
    let emissions = backend.take_emissions();
    assert_eq!(emissions.len(), STREAMS * TURNS);
    assert!(emissions.values().all(|stamps| stamps.len() == 3));
}

/// Two thousand connections are four thousand sockets in one process.
fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most > 4_500, "at most {most} files may be open here");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[test]
fn many_streams_at_once_keep_their_schedules_apart() {
    let backend = backend();
    let (streams, tokens) = (64, 20);
    std::thread::scope(|scope| {
        for number in 0..streams {
            let backend = &backend;
            scope.spawn(move || {
                let trace = TraceId::from_bits(1_000 + number);
                let script = format!("ttft=20ms,gap=5ms,tokens={tokens}");
                let reply = Client::connect(backend).stream(Dialect::Chat, trace, &script);
                assert_eq!(reply.decoded(Dialect::Chat).1.len(), tokens);
            });
        }
    });
    let emissions = backend.take_emissions();
    assert_eq!(emissions.len(), streams as usize);
    for request in backend.requests() {
        let stamps = &emissions[&request.trace.unwrap()];
        let early = |(k, stamp): (usize, &Stamp)| {
            stamp.since(request.at) < 20_000_000 + k as i64 * 5_000_000
        };
        assert!(!stamps.iter().enumerate().any(early));
        assert_eq!(stamps.len(), tokens);
    }
    assert!(backend.emissions(TraceId::from_bits(1_000)).is_none());
}

#[test]
fn a_truncated_body_is_whole_http_without_a_terminal_event() {
    let (reply, written) = streamed(&backend(), Dialect::Chat, "ttft=1ms,tokens=9,truncate=3");
    assert!(reply.whole && reply.error.is_none());
    assert_eq!(written.len(), 2);
    let (decoder, marks) = reply.decoded(Dialect::Chat);
    assert_eq!((marks.len(), decoder.outcome()), (2, None));
}

#[test]
fn a_close_ends_the_connection_within_the_body() {
    let (reply, written) = streamed(&backend(), Dialect::Chat, "ttft=1ms,tokens=9,close=4");
    assert!(!reply.whole && reply.error.is_none());
    assert_eq!(written.len(), 3);
}

#[test]
fn a_reset_is_an_error_of_the_clients_socket() {
    let (reply, written) = streamed(
        &backend(),
        Dialect::Chat,
        "ttft=1ms,gap=20ms,tokens=9,reset=3",
    );
    assert!(!reply.whole);
    let kind = reply.error.map(|error| error.kind());
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(written.len(), 2);
}

#[test]
fn a_malformed_event_is_counted_as_unreadable() {
    for dialect in Dialect::ASKED {
        let (reply, written) = streamed(&backend(), dialect, "ttft=1ms,tokens=3,malformed=2");
        assert_eq!(written.len(), 2);
        let (decoder, marks) = reply.decoded(dialect);
        assert_eq!((marks.len(), decoder.unreadable()), (2, 1), "{dialect}");
    }
}

#[test]
fn usage_can_be_withheld() {
    let (reply, _) = streamed(&backend(), Dialect::Chat, "ttft=1ms,tokens=2,usage=no");
    assert_eq!(reply.decoded(Dialect::Chat).0.usage(), None);
}

#[test]
fn a_reply_without_tokens_is_still_complete() {
    for early in ["head", "token"] {
        let script = format!("tokens=0,early={early}");
        let (reply, written) = streamed(&backend(), Dialect::Responses, &script);
        assert!(written.is_empty());
        let (decoder, _) = reply.decoded(Dialect::Responses);
        assert_eq!(decoder.outcome(), Some(Outcome::Complete));
    }
}

#[test]
fn a_request_that_is_not_streamed_gets_one_body() {
    let backend = backend();
    let mut client = Client::connect(&backend);
    let headers = "x-script: ttft=1ms,gap=1ms,tokens=3\r\n";
    for (dialect, object) in [
        (Dialect::Responses, "response"),
        (Dialect::Chat, "chat.completion"),
        (Dialect::Completions, "text_completion"),
    ] {
        let reply = client.send("POST", dialect.path(), headers, r#"{"model":"m"}"#);
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json["object"], object);
        assert!(reply.text().contains(" t1 t2 t3"));
    }
    assert_eq!(backend.connections(), 1, "the connection is kept");
}

#[test]
fn tokens_are_as_many_as_were_asked_for_unless_the_script_says() {
    let backend = backend();
    let body = r#"{"stream":true,"max_tokens":3}"#;
    let path = Dialect::Completions.path();
    let reply = Client::connect(&backend).send("POST", path, "", body);
    assert_eq!(reply.decoded(Dialect::Completions).1.len(), 3);
    backend.set_script("tokens=5".parse().unwrap());
    let reply = Client::connect(&backend).send("POST", path, "", body);
    assert_eq!(reply.decoded(Dialect::Completions).1.len(), 5);
}

/// A request that gets an error with these words.
#[track_caller]
fn check_error(method: &str, path: &str, headers: &str, body: &str, status: u16, words: &str) {
    let reply = Client::connect(&backend()).send(method, path, headers, body);
    assert_eq!(reply.status, status, "{}", reply.text());
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
}

#[test]
fn errors_say_their_reason() {
    let chat = Dialect::Chat.path();
    let body = r#"{"stream":true}"#;
    check_error(
        "POST",
        chat,
        "x-script: ttft=soon\r\n",
        body,
        400,
        "'ttft=soon'",
    );
    check_error("POST", chat, "", "{", 400, "no JSON");
    check_error(
        "POST",
        chat,
        "x-script: status=503\r\n",
        body,
        503,
        "as the script says",
    );
    check_error(
        "POST",
        "/v1/embeddings",
        "",
        "{}",
        404,
        "no POST /v1/embeddings here",
    );
    check_error("GET", chat, "", "", 404, "no GET");
}

#[test]
fn health_and_models_answer() {
    let backend = backend();
    let mut client = Client::connect(&backend);
    assert_eq!(client.send("GET", "/health", "", "").status, 200);
    let models = client.send("GET", "/v1/models", "", "");
    assert!(models.text().contains(r#""id":"scripted""#));
}

#[test]
fn requests_are_kept_as_they_came() {
    let backend = backend();
    let mut client = Client::connect(&backend);
    client.send(
        "POST",
        "/v1/completions?x=1",
        "X-Odd: Yes\r\n",
        r#"{"max_tokens":1}"#,
    );
    client.send("GET", "/health", "", "");
    let requests = backend.take_requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].path, "/v1/completions?x=1");
    assert_eq!(requests[0].header("x-odd"), Some("Yes"));
    assert_eq!(requests[0].body, br#"{"max_tokens":1}"#);
    assert_eq!(requests[0].trace, None);
    assert_eq!((requests[0].connection, requests[1].connection), (0, 0));
    assert!(requests[0].at < requests[1].at);
    assert!(backend.requests().is_empty());
}

#[test]
fn dropping_it_ends_replies_that_have_long_to_go() {
    let backend = backend();
    let address = backend.address();
    let mut client = Client::connect(&backend);
    let waiting = std::thread::spawn(move || {
        let trace = TraceId::from_bits(1);
        client.stream(Dialect::Chat, trace, "ttft=60s,tokens=1")
    });
    while backend.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = MonoClock.now();
    drop(backend);
    assert!(MonoClock.now().since(before) < 2_000_000_000);
    assert!(!waiting.join().unwrap().whole);
    assert!(std::net::TcpStream::connect(address).is_err());
}
