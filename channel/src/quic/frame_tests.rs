use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn fields() -> impl Strategy<Value = Vec<(String, Bytes)>> {
    let value = "[ -~\u{a0}-\u{ff}]{0,40}".prop_map(|text| Bytes::from(text.into_bytes()));
    prop::collection::vec(("[a-z-]{1,12}", value), 0..6)
}

fn frames() -> impl Strategy<Value = Frame> {
    let form = prop_oneof![
        Just(ReplyForm::Bytes),
        Just(ReplyForm::Events),
        Just(ReplyForm::Compact)
    ];
    let context = (
        any::<bool>(),
        ".{0,20}",
        any::<u32>(),
        any::<u32>(),
        0..=varint::MAX,
    );
    prop_oneof![
        (form, "[A-Z]{1,7}", "/[a-z/]{0,30}", fields()).prop_map(
            |(form, method, target, fields)| Frame::Request {
                form,
                method,
                target,
                fields
            }
        ),
        (any::<bool>(), 100u16..1000, fields()).prop_map(|(events, status, fields)| {
            Frame::Response {
                events,
                status,
                fields,
            }
        }),
        bytes().prop_map(Frame::Data),
        bytes().prop_map(Frame::Event),
        bytes().prop_map(Frame::Token),
        (".{0,20}", bytes()).prop_map(|(name, data)| Frame::NamedEvent { name, data }),
        context.prop_map(
            |(logprobs, item_id, output_index, content_index, sequence_number)| {
                Frame::TokenContext(TokenContext {
                    item_id,
                    output_index,
                    content_index,
                    sequence_number,
                    logprobs,
                })
            }
        ),
        Just(Frame::End),
    ]
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(
        sent in prop::collection::vec(frames(), 0..8),
        cuts in prop::collection::vec(1usize..60, 1..20),
    ) {
        let mut wire = Vec::new();
        for frame in &sent {
            frame.write(&mut wire);
        }
        let mut inbox = BytesMut::new();
        let mut got = Vec::new();
        let mut rest = &wire[..];
        let mut cuts = cuts.iter().cycle();
        loop {
            while let Some(frame) = take(&mut inbox).unwrap() {
                got.push(frame);
            }
            if rest.is_empty() {
                break;
            }
            let count = cuts.next().map_or(1, |&cut| cut.min(rest.len()));
            inbox.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
        }
        prop_assert_eq!(got, sent);
        prop_assert!(inbox.is_empty());
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut inbox = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = take(&mut inbox) {}
    }
}

#[test]
fn a_request_cannot_bring_a_second_one_along() {
    let split = "/x HTTP/1.1\r\nhost: a\r\n\r\nGET /secret";
    let field = |name: &str, value: &str| vec![(name.to_owned(), Bytes::from(value.to_owned()))];
    for (method, target, fields) in [
        ("GET", split, vec![]),
        ("GET /y HTTP/1.1\r\n", "/x", vec![]),
        ("", "/x", vec![]),
        ("GET", "", vec![]),
        ("GET", "/a b", vec![]),
        ("GET", "/x", field("a", "b\r\nc: d")),
        ("GET", "/x", field("a\r\nb", "c")),
        ("GET", "/x", field("a b", "c")),
    ] {
        let mut wire = Vec::new();
        Frame::Request {
            form: ReplyForm::Bytes,
            method: method.to_owned(),
            target: target.to_owned(),
            fields,
        }
        .write(&mut wire);
        let taken = take(&mut BytesMut::from(&wire[..]));
        assert!(
            matches!(taken, Err(FrameError::Malformed { .. })),
            "{taken:?}"
        );
    }
}

#[test]
fn a_token_costs_two_bytes_and_its_text() {
    let mut wire = Vec::new();
    Frame::Token(Bytes::from_static(b" the")).write(&mut wire);
    assert_eq!(wire, b"\x07\x04 the");
}

#[test]
fn a_hostile_length_is_refused_before_it_is_waited_for() {
    let mut wire = vec![kind::DATA];
    varint::push(&mut wire, MAX_PAYLOAD + 1);
    assert_eq!(
        take(&mut BytesMut::from(&wire[..])),
        Err(FrameError::TooLong(MAX_PAYLOAD + 1))
    );
}
