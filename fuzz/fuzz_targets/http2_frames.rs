//! The walk over HTTP/2 frames: any bytes, in any split, give the same streams, bytes and ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_channel::http2::frames::{Found, Walker};
use tokenlag_probes::Stamp;

/// What a walk finds that does not depend on where the bytes are split.
fn walk(bytes: &[u8], cut: usize) -> Vec<Found> {
    let mut walker = Walker::default();
    let mut all: Vec<Found> = Vec::new();
    for piece in bytes.chunks(cut) {
        walker.walk(
            piece,
            Stamp::default(),
            &mut |found| match (all.last_mut(), found) {
                (
                    Some(Found::Data { stream, bytes }),
                    Found::Data {
                        stream: same,
                        bytes: more,
                    },
                ) if *stream == same => *bytes += more,
                _ => all.push(found),
            },
        );
    }
    all
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let found = walk(bytes, usize::from(cut).max(1));
    assert_eq!(found, walk(bytes, bytes.len().max(1)));
    let counted: usize = found
        .iter()
        .map(|found| match found {
            Found::Data { bytes, .. } => *bytes,
            _ => 0,
        })
        .sum();
    assert!(counted <= bytes.len());
});
