use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Walks `bytes` in pieces of these sizes, the n-th of which comes at n; pieces of a body that came together are one.
fn walk(bytes: &[u8], cuts: &[usize]) -> Vec<(u64, Found)> {
    let mut walker = Walker::default();
    let mut all: Vec<(u64, Found)> = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    let mut piece = 0;
    while !rest.is_empty() {
        let count = cuts.next().map_or(1, |&cut| cut.clamp(1, rest.len()));
        walker.walk(&rest[..count], Stamp::from_nanos(piece), &mut |found| {
            all.push((piece, found));
        });
        rest = &rest[count..];
        piece += 1;
    }
    all
}

/// The same, when nothing depends on where the cuts are: bytes of a body add up.
fn summed(found: &[(u64, Found)]) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for &(_, found) in found {
        match (all.last_mut(), found) {
            (
                Some(Found::Data { stream, bytes }),
                Found::Data {
                    stream: same,
                    bytes: more,
                },
            ) if *stream == same => *bytes += more,
            (_, Found::Headers { stream, .. }) => all.push(Found::Headers {
                stream,
                at: Stamp::default(),
            }),
            _ => all.push(found),
        }
    }
    all
}

#[test]
fn what_a_walk_finds() {
    let mut bytes = frame(0x4, 0, 0, &[0; 12]);
    bytes.extend(frame(HEADERS, END_HEADERS, 1, b"head"));
    bytes.extend(frame(DATA, 0, 1, b"some"));
    bytes.extend(frame(DATA, PADDED, 1, b"\x03dataXXX"));
    bytes.extend(frame(DATA, PADDED | END_STREAM, 3, b"\x02XX"));
    bytes.extend(frame(HEADERS, END_STREAM, 5, b"he"));
    bytes.extend(frame(CONTINUATION, 0, 5, b"a"));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 5, b""));
    bytes.extend(frame(RST_STREAM, 0, 7, &8u32.to_be_bytes()));
    bytes.extend(frame(GOAWAY, 0, 0, b"\0\0\0\x07\0\0\0\x0bwhy"));
    bytes.extend(frame(DATA, END_STREAM, 0x8000_0009, b""));
    let at = Stamp::default();
    let expected = [
        Found::Headers { stream: 1, at },
        Found::Data {
            stream: 1,
            bytes: 8,
        },
        Found::End { stream: 3 },
        Found::Headers { stream: 5, at },
        Found::End { stream: 5 },
        Found::Reset { stream: 7, code: 8 },
        Found::GoAway { code: 11 },
        Found::End { stream: 9 },
    ];
    for cuts in [&[1][..], &[2, 7], &[10_000]] {
        assert_eq!(summed(&walk(&bytes, cuts)), expected, "cuts of {cuts:?}");
    }
}

#[test]
fn a_head_that_stays_half_is_told() {
    let mut walker = Walker::after_preface();
    let mut nothing = |found| assert!(matches!(found, Found::Headers { .. }), "{found:?}");
    let mut walk = |walker: &mut Walker, bytes: &[u8], at| {
        walker.walk(bytes, Stamp::from_nanos(at), &mut nothing);
        walker.half_a_head()
    };
    assert_eq!(walk(&mut walker, PREFACE, 1), None);
    let head = frame(HEADERS, 0, 1, b"abc");
    assert_eq!(walk(&mut walker, &head[..4], 2), Some(Stamp::from_nanos(2)));
    assert_eq!(walk(&mut walker, &head[4..], 3), Some(Stamp::from_nanos(2)));
    let end = frame(CONTINUATION, END_HEADERS, 1, b"abc");
    assert_eq!(walk(&mut walker, &end, 4), None);
    // A body may take its time.
    let data = frame(DATA, 0, 1, b"abc");
    let mut any = |_| {};
    walker.walk(&data[..10], Stamp::from_nanos(5), &mut any);
    assert_eq!(walker.half_a_head(), None);
}

/// Frames that a peer may send, and some that it may not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        DATA,
        DATA,
        DATA,
        HEADERS,
        CONTINUATION,
        RST_STREAM,
        GOAWAY,
        0x4,
        0x8,
        0xfe,
    ]);
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    let one = (kinds, any::<u8>(), 0u32..8, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    prop::collection::vec(one, 1..20).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_split_finds_the_same(bytes in frames(), cuts in prop::collection::vec(1usize..30, 1..20)) {
        prop_assert_eq!(summed(&walk(&bytes, &cuts)), summed(&walk(&bytes, &[usize::MAX])));
    }

    #[test]
    fn each_byte_of_a_body_has_the_stamp_of_its_piece(
        lengths in prop::collection::vec(0usize..60, 1..12),
        cuts in prop::collection::vec(1usize..30, 1..20),
    ) {
        let mut bytes = Vec::new();
        // Where each byte of the body lies.
        let mut places = Vec::new();
        for &length in &lengths {
            places.extend(bytes.len() + HEADER..bytes.len() + HEADER + length);
            bytes.extend(frame(DATA, 0, 1, &vec![7; length]));
        }
        let mut ends = Vec::new();
        let mut cuts_again = cuts.iter().cycle();
        while ends.last().is_none_or(|&end| end < bytes.len()) {
            ends.push(ends.last().unwrap_or(&0) + cuts_again.next().unwrap());
        }
        let piece_of = |place: usize| ends.partition_point(|&end| end <= place) as u64;
        let expected: Vec<u64> = places.iter().map(|&place| piece_of(place)).collect();
        let mut got = Vec::new();
        for (piece, found) in walk(&bytes, &cuts) {
            if let Found::Data { bytes, .. } = found {
                got.extend(std::iter::repeat_n(piece, bytes));
            }
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(1usize..9, 1..9)) {
        let _ = walk(&bytes, &cuts);
    }
}
