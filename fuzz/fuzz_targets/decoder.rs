//! Decoders of every dialect in every framing: any split of the bytes gives the same marks, end and counts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_dialect::{Decoder, Dialect, Framing, Terminal};
use tokenlag_probes::{Stamp, TokenMark, Usage};

/// Small, so that the limit is met too.
const LIMIT: usize = 4096;

fn read(
    dialect: Dialect,
    framing: Framing,
    bytes: &[u8],
    cut: usize,
) -> (Vec<TokenMark>, Option<Terminal>, Option<Usage>) {
    let mut decoder = Decoder::with_limit(dialect, framing, LIMIT);
    let mut marks = Vec::new();
    for piece in bytes.chunks(cut) {
        if decoder
            .feed(Stamp::default(), 0, piece, &mut marks)
            .is_err()
        {
            break;
        }
    }
    (marks, decoder.terminal().copied(), decoder.usage())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let cut = usize::from(cut).max(1);
    for dialect in Dialect::ALL {
        for framing in [Framing::Sse, Framing::Lines] {
            let whole = read(dialect, framing, bytes, bytes.len().max(1));
            assert_eq!(read(dialect, framing, bytes, cut), whole);
        }
        // A message is never cut.
        read(dialect, Framing::Messages, bytes, bytes.len().max(1));
    }
});
