//! Whole replies in the shapes that each API documents (tests/fixtures): what they mean, however their bytes are cut.

use proptest::prelude::*;
use tokenlag_dialect::{Decoder, Dialect, Framing, Terminal};
use tokenlag_probes::{DeltaKind, FailureKind, Outcome, Stamp, TokenMark, Usage};

use DeltaKind::{Content, Reasoning, Tool};

/// A recorded reply, and what is to be read in it.
struct Fixture {
    name: &'static str,
    dialect: Dialect,
    bytes: &'static [u8],
    kinds: &'static [DeltaKind],
    /// Input, of it cached, output.
    usage: Option<(u64, Option<u64>, u64)>,
    terminal: Terminal,
}

macro_rules! fixture {
    ($name:literal, $dialect:ident, $kinds:expr, $usage:expr, $terminal:expr) => {
        Fixture {
            name: $name,
            dialect: Dialect::$dialect,
            bytes: include_bytes!(concat!("fixtures/", $name)),
            kinds: &$kinds,
            usage: $usage,
            terminal: $terminal,
        }
    };
}

const FIXTURES: [Fixture; 10] = [
    fixture!(
        "chat.sse",
        Chat,
        [Content, Content, Content, Tool, Tool, Tool],
        Some((82, Some(64), 41)),
        Terminal::Done
    ),
    fixture!(
        "completions.sse",
        Completions,
        [Content; 4],
        Some((3, None, 4)),
        Terminal::Done
    ),
    fixture!(
        "responses.sse",
        Responses,
        [
            Reasoning, Reasoning, Content, Content, Content, Content, Content, Tool, Tool, Tool,
            Tool, Tool
        ],
        Some((91, Some(80), 37)),
        Terminal::Completed
    ),
    // A signature is no output, and the first piece of a tool's input is empty.
    fixture!(
        "anthropic.sse",
        Anthropic,
        [Reasoning, Reasoning, Content, Content, Tool, Tool],
        Some((2125, Some(2000), 89)),
        Terminal::Done
    ),
    fixture!(
        "anthropic-overloaded.sse",
        Anthropic,
        [Reasoning],
        Some((2125, Some(2000), 1)),
        Terminal::Failed(FailureKind::ServerError)
    ),
    fixture!(
        "ollama-chat.ndjson",
        Ollama,
        [Reasoning, Reasoning, Content, Content, Tool, Tool],
        Some((31, None, 14)),
        Terminal::Done
    ),
    fixture!(
        "ollama-generate.ndjson",
        Ollama,
        [Reasoning, Content, Content, Content],
        Some((31, None, 14)),
        Terminal::Done
    ),
    fixture!(
        "ollama-error.ndjson",
        Ollama,
        [Content],
        None,
        Terminal::Failed(FailureKind::Model)
    ),
    fixture!(
        "llama-server-chat.sse",
        Chat,
        [Reasoning, Reasoning, Content, Content, Tool, Tool],
        Some((237, Some(236), 6)),
        Terminal::Done
    ),
    fixture!(
        "vllm-chat.sse",
        Chat,
        [Reasoning, Reasoning, Content, Content, Content],
        Some((48, Some(32), 11)),
        Terminal::Done
    ),
];

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

fn decode<'a>(
    dialect: Dialect,
    framing: Framing,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Known {
    let mut decoder = Decoder::new(dialect, framing);
    let mut marks: Vec<TokenMark> = Vec::new();
    for (chunk, piece) in (0u32..).zip(pieces) {
        let at = Stamp::from_nanos(u64::from(chunk));
        decoder.feed(at, chunk, piece, &mut marks).unwrap();
    }
    // Whatever the cuts, an event is marked by the chunk that completed it, so marks come in the order of the chunks.
    assert!(marks.is_sorted_by_key(|mark| mark.chunk));
    Known {
        kinds: marks.iter().map(|mark| mark.kind).collect(),
        terminal: decoder.terminal().copied(),
        outcome: decoder.outcome(),
        usage: decoder.usage(),
        terminal_event: decoder.terminal_event().map(<[u8]>::to_vec),
        unreadable: decoder.unreadable(),
    }
}

impl Fixture {
    fn decode<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Known {
        decode(self.dialect, self.dialect.framing(), pieces)
    }

    /// The same reply with other line ends, and with a byte order mark before it.
    fn variants(&self) -> Vec<Vec<u8>> {
        let text = std::str::from_utf8(self.bytes).unwrap();
        let mut variants = vec![
            self.bytes.to_vec(),
            text.replace('\n', "\r\n").into_bytes(),
            [b"\xEF\xBB\xBF", self.bytes].concat(),
        ];
        if self.dialect.framing() == Framing::Sse {
            variants.push(text.replace('\n', "\r").into_bytes());
        }
        variants
    }
}

#[test]
fn each_reply_means_what_its_api_documents() {
    for fixture in &FIXTURES {
        let name = fixture.name;
        let known = fixture.decode([fixture.bytes]);
        assert_eq!(known.kinds, fixture.kinds, "{name}");
        assert_eq!(known.terminal, Some(fixture.terminal), "{name}");
        let usage = known
            .usage
            .map(|usage| (usage.input, usage.cached_input, usage.output));
        assert_eq!(usage, fixture.usage, "{name}");
        let outcome = match fixture.terminal {
            Terminal::Failed(kind) => Outcome::Failed(kind),
            _ => Outcome::Complete,
        };
        assert_eq!(known.outcome, Some(outcome), "{name}");
        assert_eq!(known.unreadable, 0, "{name}");
    }
}

#[test]
fn a_reply_that_is_cut_off_has_no_outcome() {
    for fixture in &FIXTURES {
        // All but the last line's end: SSE's empty line, NDJSON's break.
        let bytes = &fixture.bytes[..fixture.bytes.len() - 1];
        let known = fixture.decode([bytes]);
        assert_eq!(known.kinds, fixture.kinds, "{}", fixture.name);
        assert_eq!(
            (known.terminal, known.outcome),
            (None, None),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn every_cut_in_two_and_every_size_gives_the_same() {
    for fixture in &FIXTURES {
        let name = fixture.name;
        let known = fixture.decode([fixture.bytes]);
        let variants = fixture.variants();
        // With two bytes to each line end there is no place to cut that is not met.
        let widest = &variants[1];
        for cut in 0..widest.len() {
            let (left, right) = widest.split_at(cut);
            assert_eq!(fixture.decode([left, right]), known, "{name} at {cut}");
        }
        for variant in variants {
            for size in 1..9 {
                assert_eq!(fixture.decode(variant.chunks(size)), known, "{name}");
            }
        }
    }
}

#[test]
fn one_decoder_reads_one_reply_after_the_other() {
    for dialect in Dialect::ALL {
        let mut decoder = Decoder::new(dialect, dialect.framing());
        for fixture in FIXTURES.iter().filter(|other| other.dialect == dialect) {
            decoder.reset();
            let mut marks = Vec::new();
            decoder
                .feed(Stamp::default(), 0, fixture.bytes, &mut marks)
                .unwrap();
            assert_eq!(marks.len(), fixture.kinds.len(), "{}", fixture.name);
            assert_eq!(
                decoder.usage(),
                fixture.decode([fixture.bytes]).usage,
                "{}",
                fixture.name
            );
        }
    }
}

#[test]
fn lines_are_the_same_events_as_messages() {
    for fixture in FIXTURES
        .iter()
        .filter(|fixture| fixture.dialect == Dialect::Ollama)
    {
        let messages = fixture.bytes.split_inclusive(|&byte| byte == b'\n');
        let mut known = fixture.decode([fixture.bytes]);
        if let Some(event) = &mut known.terminal_event {
            event.push(b'\n');
        }
        assert_eq!(
            decode(Dialect::Ollama, Framing::Messages, messages),
            known,
            "{}",
            fixture.name
        );
    }
}

#[test]
fn a_line_beyond_the_limit_is_an_error_once_and_for_all() {
    let mut decoder = Decoder::with_limit(Dialect::Ollama, Framing::Lines, 64);
    let mut marks = Vec::new();
    let mut feed = |bytes: &[u8]| decoder.feed(Stamp::default(), 0, bytes, &mut marks);
    feed(b"{\"response\":\"a\"}\n{\"response\":").unwrap();
    let error = feed(&[b'x'; 64]).unwrap_err();
    assert!(error.to_string().contains("64 bytes"), "{error}");
    assert!(feed(b"\n{\"response\":\"b\"}\n").is_err());
    assert_eq!(marks.len(), 1);
}

#[test]
fn lines_that_are_no_events_are_counted_or_passed_by() {
    let stream = b"\n\r\n  \n{\"response\":\"a\"} \r\nnot json\n[1]\n{\"response\":7}\n{\"done\":\"yes\"}\n[DONE]\n{\"done\":true}\n{\"response\":\"late\"}\n";
    let known = decode(Dialect::Ollama, Framing::Lines, [&stream[..]]);
    // A number is something, if nothing that Ollama would say.
    assert_eq!(known.kinds, [Content, Content]);
    assert_eq!(known.unreadable, 3);
    assert_eq!(known.terminal, Some(Terminal::Done));
    assert_eq!(known.usage, None);
}

#[test]
fn counts_of_anthropic_come_in_parts() {
    let read = |stream: &str| {
        decode(Dialect::Anthropic, Framing::Sse, [stream.as_bytes()])
            .usage
            .map(|usage| (usage.input, usage.cached_input, usage.output))
    };
    let start = |usage: &str| {
        format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"usage\":{usage}}}}}\n\n"
        )
    };
    let delta = |usage: &str| format!("data: {{\"type\":\"message_delta\",\"usage\":{usage}}}\n\n");
    assert_eq!(
        read(&start("{\"input_tokens\":5,\"output_tokens\":1}")),
        Some((5, None, 1))
    );
    // The later event repeats what it knows, and what it leaves out stays.
    let stream = start("{\"input_tokens\":5,\"cache_read_input_tokens\":7,\"output_tokens\":1}")
        + &delta("{\"input_tokens\":6,\"cache_creation_input_tokens\":2,\"output_tokens\":9}");
    assert_eq!(read(&stream), Some((15, Some(7), 9)));
    assert_eq!(
        read(&(start("null") + &delta("{\"output_tokens\":3}"))),
        Some((0, None, 3))
    );
    assert_eq!(read(&start("[]")), None);
    // Without a type the event's name tells.
    let stream = "event: message_delta\ndata: {\"usage\":{\"output_tokens\":4}}\n\nevent: message_stop\ndata: {}\n\n";
    assert_eq!(read(stream), Some((0, None, 4)));
}

#[test]
fn errors_of_anthropic_are_told_by_their_type() {
    for (kind, failure) in [
        ("rate_limit_error", FailureKind::ClientError),
        ("invalid_request_error", FailureKind::ClientError),
        ("api_error", FailureKind::ServerError),
        ("strange", FailureKind::Model),
    ] {
        let stream = format!("data: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\"}}}}\n\n");
        let known = decode(Dialect::Anthropic, Framing::Sse, [stream.as_bytes()]);
        assert_eq!(known.terminal, Some(Terminal::Failed(failure)), "{kind}");
    }
}

proptest! {
    /// Any split gives the same marks.
    #[test]
    fn any_split_gives_the_same(
        fixture in 0..FIXTURES.len(),
        variant in any::<prop::sample::Index>(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let fixture = &FIXTURES[fixture];
        let variants = fixture.variants();
        let bytes = variant.get(&variants);
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut start = 0;
        let pieces = cuts.iter().map(|&end| {
            let piece = &bytes[start..end];
            start = end;
            piece
        });
        prop_assert_eq!(fixture.decode(pieces), fixture.decode([fixture.bytes]));
    }

    /// Bytes that went wrong on the way are read or passed by, the same however they are cut, and never a panic.
    #[test]
    fn a_damaged_reply_breaks_nothing(
        fixture in 0..FIXTURES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        size in 1..200usize,
    ) {
        let fixture = &FIXTURES[fixture];
        let mut bytes = fixture.bytes.to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        for dialect in Dialect::ALL {
            for framing in [Framing::Sse, Framing::Lines] {
                let whole = decode(dialect, framing, [&bytes[..]]);
                prop_assert_eq!(decode(dialect, framing, bytes.chunks(size)), whole);
            }
        }
    }
}
