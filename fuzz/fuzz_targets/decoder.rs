//! Decoders of every dialect: any split of the bytes gives the same marks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{Stamp, TokenMark};

fn marks(dialect: Dialect, bytes: &[u8], cut: usize) -> Vec<TokenMark> {
    let mut decoder = Decoder::new(dialect, Framing::Sse);
    let mut marks = Vec::new();
    for piece in bytes.chunks(cut) {
        if decoder.feed(Stamp::default(), 0, piece, &mut marks).is_err() {
            break;
        }
    }
    marks
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    for dialect in Dialect::ALL {
        let whole = marks(dialect, bytes, bytes.len().max(1));
        assert_eq!(marks(dialect, bytes, usize::from(cut).max(1)), whole);
    }
});
