//! What reading one event costs, for each dialect: cargo bench --bench decoders. The figures are per event of one delta; those of
//! the Responses API have 250 bytes of JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tokenlag_dialect::responses::{FromChat, ResponseHead};
use tokenlag_dialect::{Decoder, Dialect, Framing, write_event};
use tokenlag_probes::Stamp;

/// The bytes of JSON in an event of the Responses API.
const RESPONSES_EVENT: usize = 250;

/// One delta as the dialect writes it: the event's name, and its data.
fn delta(dialect: Dialect) -> (Option<&'static str>, Vec<u8>) {
    let text = " token";
    let (name, json) = match dialect {
        Dialect::Responses => return (Some("response.output_text.delta"), responses_delta()),
        Dialect::Chat => (
            None,
            json!({"id": "chatcmpl-Cq7x1b2c3d4e5f6a7b8c9d0e", "object": "chat.completion.chunk", "created": 1_763_800_000, "model": "m-2026-08-01",
                "choices": [{"index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": null}], "usage": null}),
        ),
        Dialect::Completions => (
            None,
            json!({"id": "cmpl-9a8b7c6d5e4f", "object": "text_completion", "created": 1_763_800_000, "model": "m-2026-08-01",
                "choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": null}], "usage": null}),
        ),
        Dialect::Anthropic => (
            Some("content_block_delta"),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": text}}),
        ),
        Dialect::Ollama => (
            None,
            json!({"model": "gemma3:270m", "created_at": "2026-11-22T08:00:00.021000000Z",
                "message": {"role": "assistant", "content": text}, "done": false}),
        ),
    };
    (name, json.to_string().into_bytes())
}

/// As OpenAI writes it: in this order, and padded.
fn responses_delta() -> Vec<u8> {
    let event = |padding: &str| {
        format!(
            r#"{{"type":"response.output_text.delta","sequence_number":42,"item_id":"msg_68f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5","output_index":0,"content_index":0,"delta":" token","logprobs":[],"obfuscation":"{padding}"}}"#
        )
    };
    let padding = "x".repeat(RESPONSES_EVENT - event("").len());
    event(&padding).into_bytes()
}

fn framed(framing: Framing, name: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match framing {
        Framing::Sse => write_event(&mut out, name, data),
        Framing::Lines => {
            out.extend_from_slice(data);
            out.push(b'\n');
        }
        Framing::Messages => out.extend_from_slice(data),
    }
    out
}

fn decoders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for dialect in Dialect::ALL {
        for framing in [dialect.framing(), Framing::Messages] {
            let (name, data) = delta(dialect);
            let bytes = framed(framing, name, &data);
            let mut decoder = Decoder::new(dialect, framing);
            let mut marks = Vec::with_capacity(16);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(format!("{dialect}/{framing:?}"), |bencher| {
                bencher.iter(|| {
                    marks.clear();
                    let fed = decoder.feed(Stamp::default(), 0, black_box(&bytes), &mut marks);
                    assert!(fed.is_ok() && marks.len() == 1);
                });
            });
        }
    }
    group.finish();
}

fn translation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    let (_, data) = delta(Dialect::Chat);
    let head = ResponseHead {
        id: "resp_68f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5".into(),
        ..ResponseHead::default()
    };
    // The text is kept: a new response now and then keeps it as short as real ones are.
    let mut translator = FromChat::new(head.clone());
    let mut deltas = 0;
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("chat to responses", |bencher| {
        bencher.iter(|| {
            deltas += 1;
            if deltas % 1000 == 0 {
                translator = FromChat::new(head.clone());
            }
            let mut bytes = 0;
            translator.event(black_box(&data), &mut |_, event| bytes += event.len());
            assert!(bytes > 0);
        });
    });
    group.finish();
}

criterion_group!(benches, decoders, translation);
criterion_main!(benches);
