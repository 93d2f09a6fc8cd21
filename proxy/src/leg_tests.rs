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
        stamping: tokenlag_channel::Stamping::default(),
        nagle: false,
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
fn openings_that_are_kept_apart_are_bounded() {
    let leg = leg(Transport::Ws);
    let open = |target: &str| {
        let opening = Opening::of(&question(&[], ""), target).unwrap();
        leg.socket(&opening);
    };
    for number in 0..OPENINGS + 3 {
        open(&number.to_string());
    }
    // The one used last goes last.
    open("3");
    open("new");
    let sockets = leg.sockets.borrow();
    let kept: Vec<_> = sockets.iter().map(|(key, _)| &*key.target).collect();
    assert_eq!(kept.len(), OPENINGS);
    assert_eq!((kept[0], kept[OPENINGS - 2]), ("5", "3"));
}
