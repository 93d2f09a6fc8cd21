//! The decoder on streams in the shapes that OpenAI, llama-server and vLLM document, cut in every way.

use proptest::prelude::*;
use tokenlag_dialect::{Decoder, Dialect, Framing, Terminal};
use tokenlag_probes::{DeltaKind, FailureKind, Outcome, Stamp, TokenMark, Usage};

use DeltaKind::{Content, Reasoning, Tool};
use Dialect::{Chat, Completions, Responses};

/// What a decoder knows at a stream's end.
#[derive(Debug, PartialEq)]
struct Known {
    kinds: Vec<DeltaKind>,
    terminal: Option<Terminal>,
    outcome: Option<Outcome>,
    usage: Option<Usage>,
    terminal_event: Option<Vec<u8>>,
    unreadable: u64,
}

fn decode<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> Known {
    let mut decoder = Decoder::new(dialect, Framing::Sse);
    let mut marks: Vec<TokenMark> = Vec::new();
    for (chunk, piece) in (0u32..).zip(pieces) {
        let at = Stamp::from_nanos(1_000 + u64::from(chunk));
        let before = marks.len();
        decoder.feed(at, chunk, piece, &mut marks).unwrap();
        assert!(
            marks[before..]
                .iter()
                .all(|mark| mark.at == at && mark.chunk == chunk)
        );
    }
    Known {
        kinds: marks.iter().map(|mark| mark.kind).collect(),
        terminal: decoder.terminal().copied(),
        outcome: decoder.outcome(),
        usage: decoder.usage(),
        terminal_event: decoder.terminal_event().map(<[u8]>::to_vec),
        unreadable: decoder.unreadable(),
    }
}

/// Decodes a stream whole, in pieces of every size up to 8, and cut in two at every byte, with each line ending.
fn check(dialect: Dialect, stream: &str, kinds: &[DeltaKind], terminal: Option<Terminal>) -> Known {
    let known = decode(dialect, [stream.as_bytes()]);
    assert_eq!(known.kinds, kinds, "{stream}");
    assert_eq!(known.terminal, terminal, "{stream}");
    for end in ["\n", "\r", "\r\n"] {
        let stream = stream.replace('\n', end);
        let bytes = stream.as_bytes();
        for size in 1..8 {
            assert_eq!(
                decode(dialect, bytes.chunks(size)),
                known,
                "by {size}: {stream}"
            );
        }
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(
                decode(dialect, [left, right]),
                known,
                "cut at {cut}: {stream}"
            );
        }
    }
    known
}

fn usage(input: u64, cached_input: Option<u64>, output: u64) -> Option<Usage> {
    Some(Usage {
        input,
        cached_input,
        output,
    })
}

#[test]
fn chat_of_openai() {
    let known = check(
        Chat,
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3"}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hel\"lo"},"finish_reason":null}],"usage":null,"obfuscation":"x"}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"\n"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":16,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#,
        &[Content, Content],
        Some(Terminal::Done),
    );
    assert_eq!(known.usage, usage(19, Some(16), 10));
    assert_eq!(known.outcome, Some(Outcome::Complete));
    assert_eq!(known.terminal_event.as_deref(), Some(&b"[DONE]"[..]));
    assert_eq!(known.unreadable, 0);
}

#[test]
fn chat_of_llama_server() {
    // Comments keep the connection alive, the reasoning has its own member, the last chunk has timings.
    let known = check(
        Chat,
        r#": ping

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"object":"chat.completion.chunk"}

:

data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm"}}]}

data: {"choices":[{"index":0,"delta":{"content":" ok"}}],"timings":{"cache_n":3}}

data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":8,"total_tokens":10},"timings":{"cache_n":6,"prompt_n":2,"prompt_ms":1.5,"predicted_n":2,"predicted_ms":9.0}}

data: [DONE]

"#,
        &[Reasoning, Content],
        Some(Terminal::Done),
    );
    assert_eq!(known.usage, usage(8, Some(6), 2));
}

#[test]
fn chat_of_vllm() {
    // Usage in every chunk; both names of the reasoning in one delta are one piece of output.
    let known = check(
        Chat,
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0}}

data: {"choices":[{"index":0,"delta":{"reasoning":"a","reasoning_content":"a"},"token_ids":null}],"usage":{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}

data: {"choices":[{"index":0,"delta":{"reasoning":"b","content":"c"}}],"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3,"prompt_tokens_details":null}}

data: [DONE]

"#,
        &[Reasoning, Reasoning, Content],
        Some(Terminal::Done),
    );
    assert_eq!(known.usage, usage(5, None, 3));
}

#[test]
fn several_deltas_in_an_event() {
    check(
        Chat,
        r#"data: {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":""}},{"index":2,"delta":{"content":"b"}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}},{"index":1,"function":{"arguments":"{"}},{"index":2}]}}]}

data: {"choices":[{"delta":{"function_call":{"arguments":"{"}}},{"delta":{"refusal":"No"}},{"delta":null},{}]}

"#,
        &[Content, Content, Tool, Tool, Tool, Content],
        None,
    );
}

#[test]
fn completions() {
    let known = check(
        Completions,
        r#"data: {"id":"cmpl-1","object":"text_completion","choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]}

data: {"choices":[{"text":"","index":0},{"text":"b","index":1}],"usage":{"prompt_tokens":1,"completion_tokens":1}}

data: {"choices":[{"text":"","index":0,"finish_reason":"length"}]}

data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}

data: [DONE]

data: {"choices":[{"text":"after the end","index":0}]}

"#,
        &[Content, Content],
        Some(Terminal::Done),
    );
    assert_eq!(known.usage, usage(1, None, 2));
}

const RESPONSE: &str = r#"event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","status":"in_progress","output":[],"usage":null,"instructions":"delta"}}

event: response.in_progress
data: {"type":"response.in_progress","response":{"id":"resp_1"}}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":0,"item":{"id":"msg_1","type":"message","content":[]}}

event: response.content_part.added
data: {"type":"response.content_part.added","part":{"type":"output_text","text":""}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","delta":"Hm"}

event: response.reasoning_text.delta
data: {"type":"response.reasoning_text.delta","delta":"m"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"é\u00e9\n","sequence_number":4,"logprobs":[],"obfuscation":"Kd8s"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":""}

event: response.refusal.delta
data: {"type":"response.refusal.delta","delta":"no"}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","delta":"{\"a\":"}

event: response.audio.delta
data: {"type":"response.audio.delta","delta":"UklG"}

event: response.output_text.done
data: {"type":"response.output_text.done","text":"éé"}

event: keepalive
data: {"type":"keepalive","sequence_number":3}

"#;

const RESPONSE_KINDS: [DeltaKind; 5] = [Reasoning, Reasoning, Content, Content, Tool];

#[test]
fn responses() {
    let completed = r#"{"type":"response.completed","response":{"id":"resp_1","output":[{"type":"message"}],"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":5},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":11}}}"#;
    let stream = format!("{RESPONSE}event: response.completed\ndata: {completed}\n\n");
    let known = check(
        Responses,
        &stream,
        &RESPONSE_KINDS,
        Some(Terminal::Completed),
    );
    assert_eq!(known.usage, usage(7, Some(5), 4));
    assert_eq!(known.terminal_event.as_deref(), Some(completed.as_bytes()));
    assert_eq!(known.outcome, Some(Outcome::Complete));
    assert_eq!(known.unreadable, 0);
}

#[test]
fn other_ends_of_responses() {
    for (event, terminal, outcome) in [
        (
            r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
            Terminal::Incomplete,
            Outcome::Complete,
        ),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
            Terminal::Failed(FailureKind::Model),
            Outcome::Failed(FailureKind::Model),
        ),
        (
            r#"{"type":"error","status":404,"error":{"type":"invalid_request_error","code":"previous_response_not_found"}}"#,
            Terminal::Failed(FailureKind::ClientError),
            Outcome::Failed(FailureKind::ClientError),
        ),
        (
            r#"{"type":"error","status":503,"error":{}}"#,
            Terminal::Failed(FailureKind::ServerError),
            Outcome::Failed(FailureKind::ServerError),
        ),
    ] {
        let stream = format!("{RESPONSE}data: {event}\n\ndata: [DONE]\n\n");
        let known = check(Responses, &stream, &RESPONSE_KINDS, Some(terminal));
        assert_eq!(known.outcome, Some(outcome));
        assert_eq!(known.usage, None);
    }
    let cut = check(Responses, RESPONSE, &RESPONSE_KINDS, None);
    assert_eq!((cut.outcome, cut.terminal_event), (None, None));
}

#[test]
fn a_type_that_only_the_event_line_tells() {
    check(
        Responses,
        "event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\nevent: response.completed\ndata: {}\n\n",
        &[Content],
        Some(Terminal::Completed),
    );
}

#[test]
fn an_error_within_a_chat_stream_ends_it() {
    let known = check(
        Chat,
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"code\":500}}\n\ndata: [DONE]\n\n",
        &[Content],
        Some(Terminal::Failed(FailureKind::ServerError)),
    );
    assert!(known.terminal_event.unwrap().starts_with(b"{\"error\""));
}

#[test]
fn what_cannot_be_read_is_counted_and_passed_by() {
    let known = check(
        Chat,
        "data: not json\n\ndata: {\"choices\":7}\n\ndata: [1]\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":null,\"usage\":\"odd\"}\n\ndata:\n\n",
        &[Content],
        None,
    );
    assert_eq!(known.unreadable, 3);
}

#[test]
fn content_as_parts_is_content() {
    check(
        Chat,
        "data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}},{\"delta\":{\"content\":[]}}]}\n\n",
        &[Content],
        None,
    );
}

#[test]
fn messages_are_events_by_themselves() {
    let mut decoder = Decoder::new(Responses, Framing::Messages);
    let mut marks = Vec::new();
    let mut shown = Vec::new();
    for (chunk, message) in (0u32..).zip([
        r#"{"type":"response.created","response":{}}"#,
        "{\n\"type\":\"response.output_text.delta\",\n\n\"delta\":\"a\"}",
        r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":1}}}"#,
    ]) {
        let at = Stamp::from_nanos(u64::from(chunk));
        decoder
            .feed_events(at, chunk, message.as_bytes(), &mut marks, &mut |event, meaning| {
                assert_eq!(event.data, message.as_bytes());
                assert!(event.plain && event.name.is_empty());
                shown.push((meaning.deltas, meaning.kind, meaning.terminal));
            })
            .unwrap();
    }
    assert_eq!(
        shown,
        [(0, None, false), (1, Some(Content), false), (0, None, true)]
    );
    assert_eq!(marks.len(), 1);
    assert_eq!((marks[0].chunk, marks[0].at.as_nanos()), (1, 1));
    assert_eq!(decoder.usage(), usage(1, None, 1));

    decoder.reset();
    assert_eq!(
        (decoder.terminal(), decoder.usage(), decoder.outcome()),
        (None, None, None)
    );

    let mut chat = Decoder::new(Chat, Framing::Messages);
    chat.feed(Stamp::from_nanos(0), 0, b"[DONE]", &mut marks)
        .unwrap();
    assert_eq!(chat.terminal(), Some(&Terminal::Done));
}

#[test]
fn a_megabyte_event_and_an_event_past_the_limit() {
    let text = "x".repeat(3 << 20);
    let stream = format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\ndata: [DONE]\n\n");
    let known = decode(Completions, stream.as_bytes().chunks(16 << 10));
    assert_eq!(
        (known.kinds, known.terminal),
        (vec![Content], Some(Terminal::Done))
    );

    for framing in [Framing::Sse, Framing::Messages] {
        let mut decoder = Decoder::with_limit(Completions, framing, 1 << 20);
        let error = decoder
            .feed(Stamp::from_nanos(0), 0, stream.as_bytes(), &mut Vec::new())
            .unwrap_err();
        assert!(error.to_string().contains("1048576 bytes"), "{error}");
    }
}

#[test]
fn a_stamp_is_that_of_the_chunk_that_completes_the_event() {
    let mut decoder = Decoder::new(Completions, Framing::Sse);
    let mut marks = Vec::new();
    let pieces = [
        "data: {\"choices\":[{\"text\"",
        ":\"a\"}]}\n",
        "\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n",
    ];
    for (chunk, piece) in (0u32..).zip(pieces) {
        let at = Stamp::from_nanos(10 * u64::from(chunk));
        decoder
            .feed(at, chunk, piece.as_bytes(), &mut marks)
            .unwrap();
    }
    let stamps: Vec<_> = marks
        .iter()
        .map(|mark| (mark.chunk, mark.at.as_nanos()))
        .collect();
    assert_eq!(stamps, [(2, 20), (2, 20)]);
}

proptest! {
    /// Whatever comes, it is read or passed by: the same however it is cut, and never a panic.
    #[test]
    fn nothing_breaks_the_decoder(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("data: ".to_owned()), Just("\n\n".to_owned()), Just("{\"type\":\"error\",".to_owned()),
                Just("\"choices\":[{\"delta\":{\"content\":".to_owned()), Just("\"text\":\"a\"}]}".to_owned()),
                Just("{\"type\":\"response.output_text.delta\",\"delta\":\"".to_owned()),
                Just("[DONE]".to_owned()), "[\\[\\]{}\",:0-9a-z\\\\ ]{0,6}", "\\PC{0,4}",
            ],
            0..30,
        ),
        size in 1..30usize,
    ) {
        let stream = pieces.concat();
        for dialect in Dialect::ALL {
            let whole = decode(dialect, [stream.as_bytes()]);
            prop_assert_eq!(decode(dialect, stream.as_bytes().chunks(size)), whole);
        }
    }
}
