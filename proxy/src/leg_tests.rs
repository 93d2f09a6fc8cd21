//! What a leg takes, and whose WebSockets are kept apart.

use super::*;

fn question<'a>(fields: &'a [(Bytes, Bytes)], body: &'static str) -> Question<'a> {
    Question {
        method: "POST",
        target: "/v1/responses",
        fields,
        traceparent: None,
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn leg(transport: Transport) -> Leg {
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port: 1,
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: STALE_WITHIN,
        idle_timeout: STALE_WITHIN,
        tls: None,
    };
    Leg::new(transport, Encoding::Events, "test".to_owned(), dial)
}

#[test]
fn a_websocket_takes_streamed_creates_alone() {
    let socket = leg(Transport::Ws);
    assert!(socket.takes(&question(&[], r#"{"stream":true}"#)));
    for body in [
        r#"{"stream":false}"#,
        "{}",
        r#"{"stream":true,"background":true}"#,
        r#"{"stream":true,"generate":false}"#,
        r#"{"stream":true,"type":"other"}"#,
        "no json",
    ] {
        assert!(!socket.takes(&question(&[], body)), "{body}");
        assert!(leg(Transport::Http2).takes(&question(&[], body)), "{body}");
    }
    let chat = Question {
        target: "/v1/chat/completions",
        ..question(&[], r#"{"stream":true}"#)
    };
    assert!(!socket.takes(&chat));
    // A field that is not text cannot stand in an opening.
    let odd = [("x-odd".into(), Bytes::from_static(b"\xff"))];
    assert!(!socket.takes(&question(&odd, r#"{"stream":true}"#)));
}

#[test]
fn an_opening_says_whose_it_is_and_nothing_of_one_request() {
    let fields = [
        ("Authorization".into(), "Bearer me".into()),
        ("Content-Type".into(), "application/json".into()),
        ("traceparent".into(), "00-1-2-01".into()),
    ];
    let said = opening(&question(&fields, "{}")).unwrap();
    assert_eq!(said, [("Authorization".to_owned(), "Bearer me".to_owned())]);
}

#[test]
fn openings_that_are_kept_apart_are_bounded() {
    let leg = leg(Transport::Ws);
    for number in 0..OPENINGS + 3 {
        leg.socket(&(number.to_string(), Vec::new()));
    }
    // The one used last goes last.
    leg.socket(&("3".to_owned(), Vec::new()));
    leg.socket(&("new".to_owned(), Vec::new()));
    let sockets = leg.sockets.borrow();
    let kept: Vec<_> = sockets.iter().map(|((target, _), _)| &**target).collect();
    assert_eq!(kept.len(), OPENINGS);
    assert_eq!((kept[0], kept[OPENINGS - 2]), ("5", "3"));
}
