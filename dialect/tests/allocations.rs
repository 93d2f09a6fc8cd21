//! A decoder that has seen an event of each size allocates nothing for those that follow: not in any dialect, in any
//! framing, for any kind of delta, whole or in pieces.

use tokenlag_dialect::{Decoder, Dialect, Framing, SseSplitter, write_event};
use tokenlag_probes::Stamp;

const FIXTURES: [(Dialect, &[u8]); 8] = [
    (Dialect::Chat, include_bytes!("fixtures/chat.sse")),
    (
        Dialect::Chat,
        include_bytes!("fixtures/llama-server-chat.sse"),
    ),
    (Dialect::Chat, include_bytes!("fixtures/vllm-chat.sse")),
    (
        Dialect::Completions,
        include_bytes!("fixtures/completions.sse"),
    ),
    (Dialect::Responses, include_bytes!("fixtures/responses.sse")),
    (Dialect::Anthropic, include_bytes!("fixtures/anthropic.sse")),
    (
        Dialect::Ollama,
        include_bytes!("fixtures/ollama-chat.ndjson"),
    ),
    (
        Dialect::Ollama,
        include_bytes!("fixtures/ollama-generate.ndjson"),
    ),
];

/// The events of a recorded reply that do not end it, each framed.
fn events(dialect: Dialect, framing: Framing, reply: &[u8]) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    let mut decoder = Decoder::new(dialect, dialect.framing());
    decoder
        .feed_events(
            Stamp::default(),
            0,
            reply,
            &mut Vec::new(),
            &mut |event, meaning| {
                if meaning.terminal {
                    return;
                }
                let mut framed = Vec::new();
                match framing {
                    Framing::Sse => {
                        let name = std::str::from_utf8(event.name).unwrap();
                        write_event(
                            &mut framed,
                            Some(name).filter(|name| !name.is_empty()),
                            event.data,
                        );
                    }
                    Framing::Lines => framed = [event.data, b"\n"].concat(),
                    Framing::Messages => framed = event.data.to_vec(),
                }
                events.push(framed);
            },
        )
        .unwrap();
    events
}

/// Allocations of a decoder's second and third pass over the events, each cut into pieces of `size` bytes.
fn allocations(dialect: Dialect, framing: Framing, events: &[Vec<u8>], size: usize) -> u64 {
    let mut decoder = Decoder::new(dialect, framing);
    let mut marks = Vec::with_capacity(64);
    let mut pass = || {
        for event in events {
            marks.clear();
            for piece in event.chunks(size) {
                decoder
                    .feed(Stamp::default(), 0, piece, &mut marks)
                    .unwrap();
            }
        }
    };
    pass();
    let measured = allocation_counter::measure(|| {
        pass();
        pass();
    });
    assert_eq!(decoder.unreadable(), 0);
    measured.count_total
}

#[test]
fn a_delta_costs_no_allocation() {
    for (dialect, reply) in FIXTURES {
        for framing in [dialect.framing(), Framing::Messages] {
            let events = events(dialect, framing, reply);
            assert!(events.len() > 3);
            let sizes: &[usize] = match framing {
                Framing::Messages => &[usize::MAX],
                Framing::Sse | Framing::Lines => &[usize::MAX, 100, 7, 1],
            };
            for &size in sizes {
                let count = allocations(dialect, framing, &events, size);
                assert_eq!(count, 0, "{dialect} as {framing:?} by {size}");
            }
        }
    }
}

#[test]
fn nor_do_log_probabilities_beside_it() {
    let list = r#"[{"token":"a","logprob":-0.1,"bytes":[97],"top_logprobs":[{"token":"b","bytes":[98]}]}]"#;
    for (dialect, json) in [
        (
            Dialect::Responses,
            format!(
                r#"{{"type":"response.output_text.delta","delta":"a\n\u00e9","logprobs":{list}}}"#
            ),
        ),
        (
            Dialect::Chat,
            format!(
                r#"{{"choices":[{{"delta":{{"content":"a\n\u00e9"}},"logprobs":{{"content":{list}}}}}]}}"#
            ),
        ),
        (
            Dialect::Completions,
            format!(r#"{{"choices":[{{"text":"a\n\u00e9","logprobs":{{"x":{list}}}}}]}}"#),
        ),
    ] {
        let count = allocations(dialect, Framing::Messages, &[json.into_bytes()], usize::MAX);
        assert_eq!(count, 0, "{dialect}");
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| {
        let mut splitter = SseSplitter::new(1024);
        splitter.feed(b"data: a", &mut |_| ()).unwrap();
    });
    assert!(counted.count_total > 0);
}
