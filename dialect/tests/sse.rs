//! The splitter of server-sent events: the standard's rules, and the same events however the bytes are cut.

use proptest::prelude::*;
use tokenlag_dialect::{EventTooLarge, SseSplitter, write_event};

/// An event as a test sees it: name, data, plain.
type Seen = (String, String, bool);

fn seen(name: &str, data: &str) -> Seen {
    (name.into(), data.into(), true)
}

/// The events of a stream that comes in pieces.
fn split<'a>(
    limit: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Result<(), EventTooLarge>) {
    let mut splitter = SseSplitter::new(limit);
    let mut events = Vec::new();
    let mut result = Ok(());
    for piece in pieces {
        let fed = splitter.feed(piece, &mut |event| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            events.push((text(event.name), text(event.data), event.plain));
        });
        if fed.is_err() {
            result = fed;
        }
    }
    (events, result)
}

fn check(stream: &[u8], want: &[Seen]) {
    let (whole, result) = split(1 << 20, [stream]);
    assert_eq!(whole, want, "{:?}", String::from_utf8_lossy(stream));
    assert_eq!(result, Ok(()));
    let (bytewise, _) = split(1 << 20, stream.chunks(1));
    assert_eq!(
        bytewise,
        want,
        "byte by byte: {:?}",
        String::from_utf8_lossy(stream)
    );
}

#[test]
fn the_standards_rules() {
    check(b"data: a\n\n", &[seen("", "a")]);
    check(b"data:a\n\ndata:  b\n\n", &[seen("", "a"), seen("", " b")]);
    check(b"event: e\ndata: 1\ndata: 2\n\n", &[seen("e", "1\n2")]);
    // A name lasts for its own event, and the last of several counts.
    check(
        b"event: x\nevent: e\ndata: 1\n\ndata: 2\n\n",
        &[seen("e", "1"), seen("", "2")],
    );
    check(b": comment\n\n:\ndata: a\n: more\n\n", &[seen("", "a")]);
    // Without a data line there is no event, and its name is forgotten; an empty data line makes an empty event.
    check(b"event: e\n\ndata: a\n\n", &[seen("", "a")]);
    check(
        b"data\n\ndata\ndata\n\ndata:",
        &[seen("", ""), seen("", "\n")],
    );
    check(b"data: a:b: c\n\n", &[seen("", "a:b: c")]);
    // What does not end in an empty line is not dispatched.
    check(b"data: a\n\ndata: b\n", &[seen("", "a")]);
}

#[test]
fn other_fields_make_an_event_less_plain() {
    for field in ["id: 7", "retry: 10", "id", "other: x"] {
        let stream = format!("{field}\ndata: a\n\ndata: b\n\n");
        check(
            stream.as_bytes(),
            &[("".into(), "a".into(), false), seen("", "b")],
        );
    }
}

#[test]
fn every_line_ending() {
    for end in ["\n", "\r", "\r\n"] {
        let stream = format!("event: e{end}data: 1{end}data: 2{end}{end}data: 3{end}{end}");
        check(stream.as_bytes(), &[seen("e", "1\n2"), seen("", "3")]);
    }
    check(
        b"data: 1\r\n\ndata: 2\r\r\ndata: 3\n\r",
        &[seen("", "1"), seen("", "2"), seen("", "3")],
    );
}

#[test]
fn an_event_does_not_wait_for_the_byte_after_it() {
    let mut splitter = SseSplitter::new(100);
    let mut count = 0;
    splitter
        .feed(b"data: a\r\n\r", &mut |_| count += 1)
        .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_bom_leads_once() {
    check(b"\xEF\xBB\xBFdata: a\n\n", &[seen("", "a")]);
    // A second one is part of the field's name, and so is half of one.
    check(
        b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\ndata: b\n\n",
        &[seen("", "b")],
    );
    check(b"\xEF\xBBdata: a\n\ndata: b\n\n", &[seen("", "b")]);
    check(b"data: \xEF\xBB\xBF\n\n", &[seen("", "\u{feff}")]);
}

#[test]
fn the_limit_bounds_an_event_and_not_a_stream() {
    let small = b"data: 0123456789\n\n".repeat(100);
    let (events, result) = split(30, [&small[..]]);
    assert_eq!((events.len(), result), (100, Ok(())));

    for large in [
        &b"data: 0123456789012345678901234567890\n\n"[..],
        b"data: 0123456789\ndata: 0123456789\ndata: 0123456789\n\n",
        b": a comment that goes on and on and on and on",
    ] {
        let stream = [b"data: ok\n\n", large, b"\n\ndata: late\n\n"].concat();
        for size in [1, 7, stream.len()] {
            let (events, result) = split(30, stream.chunks(size));
            assert_eq!(events, [seen("", "ok")]);
            assert_eq!(result, Err(EventTooLarge { limit: 30 }));
        }
    }
}

#[test]
fn a_reset_splitter_is_as_good_as_new() {
    let mut splitter = SseSplitter::new(16);
    assert!(splitter.feed(&[b'x'; 17], &mut |_| ()).is_err());
    splitter.reset();
    splitter
        .feed(b"event: half\ndata: of\r", &mut |_| ())
        .unwrap();
    splitter.reset();
    let mut events = Vec::new();
    splitter
        .feed(b"\xEF\xBB\xBFdata: a\n\n", &mut |event| {
            events.push(event.data.to_vec())
        })
        .unwrap();
    assert_eq!(events, [b"a"]);
}

proptest! {
    #[test]
    fn any_cut_and_any_line_ending_give_the_same_events(
        events in prop::collection::vec(("[a-z.]{0,8}", "[ -~é\n]{0,40}", any::<bool>()), 0..12),
        endings in prop::collection::vec(0..3usize, 64),
        sizes in prop::collection::vec(1..40usize, 1..40),
        bom: bool,
        comment: bool,
    ) {
        let mut endings = endings.iter().cycle().map(|&which| ["\n", "\r", "\r\n"][which]);
        let mut stream = String::from(if bom { "\u{feff}" } else { "" });
        let mut line = |text: &str| {
            // A lone \r before a line that a \n ends would read as one \r\n: only an empty line can do that.
            let end = endings.next().unwrap();
            let end = if text.is_empty() && stream.ends_with('\r') && end == "\n" { "\r\n" } else { end };
            stream.push_str(text);
            stream.push_str(end);
        };
        for (name, data, with_id) in &events {
            if comment { line(": ping") }
            if !name.is_empty() { line(&format!("event: {name}")) }
            if *with_id { line("id: 1") }
            for part in data.split('\n') { line(&format!("data: {part}")) }
            line("");
        }
        let want: Vec<Seen> = events
            .iter()
            .map(|(name, data, with_id)| (name.clone(), data.clone(), !with_id))
            .collect();

        let bytes = stream.as_bytes();
        let (whole, _) = split(1 << 20, [bytes]);
        prop_assert_eq!(&whole, &want);
        let mut rest = bytes;
        let pieces = sizes.iter().cycle().map_while(|&size| {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        let (cut, result) = split(1 << 20, pieces);
        prop_assert_eq!(cut, want);
        prop_assert_eq!(result, Ok(()));
    }

    #[test]
    fn arbitrary_bytes_give_the_same_events_however_cut(
        bytes in prop::collection::vec(
            prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(0xEF), Just(0xBB), Just(0xBF),
                Just(b'd'), Just(b'a'), Just(b't'), any::<u8>(),
            ],
            0..200,
        ),
        prefix in prop_oneof![Just(&b""[..]), Just(&b"data:x\n"[..])],
        size in 1..20usize,
    ) {
        let stream = [prefix, &bytes[..]].concat();
        prop_assert_eq!(split(64, [&stream[..]]), split(64, stream.chunks(size)));
    }

    #[test]
    fn what_is_written_reads_back(name in prop::option::of("[a-z.]{1,9}"), data in "[ -~\n\r\u{e9}]{0,60}") {
        let mut out = Vec::new();
        write_event(&mut out, name.as_deref(), data.as_bytes());
        let want = data.replace("\r\n", "\n").replace('\r', "\n");
        let (events, _) = split(1 << 20, [&out[..]]);
        prop_assert_eq!(events, [(name.unwrap_or_default(), want, true)]);
    }
}

#[test]
fn a_name_cannot_break_out_of_its_line() {
    let mut out = Vec::new();
    write_event(&mut out, Some("e\ndata: forged"), b"x");
    assert_eq!(out, b"event: e\ndata: x\n\n");
}
