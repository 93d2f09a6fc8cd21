//! Any HTTP request, rendered for each channel that can carry it.

use super::*;

fn message<'a>(fields: &'a [(Bytes, Bytes)], body: &'a Bytes) -> Message<'a> {
    Message {
        method: "POST",
        target: "/v1/responses?a=b",
        authority: "host:1",
        fields,
        body,
        form: ReplyForm::Events,
    }
}

fn fields() -> [(Bytes, Bytes); 2] {
    [
        ("X-Own".into(), "1".into()),
        ("traceparent".into(), "00-as-it-came-01".into()),
    ]
}

#[test]
fn http_has_the_fields_in_their_order_and_the_length_last() {
    let (fields, body) = (fields(), Bytes::from_static(b"{}"));
    let request = Request::pass_on(Transport::HttpCold, &message(&fields, &body)).unwrap();
    assert_eq!(
        &request.stream().unwrap()[..],
        b"POST /v1/responses?a=b HTTP/1.1\r\nhost: host:1\r\nX-Own: 1\r\n\
          traceparent: 00-as-it-came-01\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    );
}

#[test]
fn a_request_without_a_body_says_so_only_where_one_is_expected() {
    let (empty, full) = (Bytes::new(), Bytes::from_static(b"x"));
    for (method, body, length) in [
        ("GET", &empty, None),
        ("HEAD", &empty, None),
        ("GET", &full, Some(1)),
        ("POST", &empty, Some(0)),
        ("DELETE", &empty, Some(0)),
    ] {
        let message = Message {
            method,
            ..message(&[], body)
        };
        assert_eq!(message.content_length(), length, "{method}");
    }
}

#[test]
fn a_message_carries_the_traceparent_as_it_came_or_none() {
    let (fields, body) = (fields(), Bytes::from_static(br#"{"input":"x"}"#));
    let check = |fields: &[(Bytes, Bytes)], expected: &str| {
        let request = Request::pass_on(Transport::Ws, &message(fields, &body)).unwrap();
        assert_eq!(request.message().unwrap().as_str(), expected);
    };
    check(
        &fields,
        r#"{"type":"response.create","input":"x","client_metadata":{"ws_request_header_traceparent":"00-as-it-came-01"}}"#,
    );
    check(&fields[..1], r#"{"type":"response.create","input":"x"}"#);
    let broken = Bytes::from_static(b"[]");
    assert!(Request::pass_on(Transport::Ws, &message(&fields, &broken)).is_err());
}

#[test]
fn http2_and_http3_take_fields_of_any_case() {
    let (fields, body) = (fields(), Bytes::from_static(b"{}"));
    for transport in [Transport::Http2, Transport::Http3] {
        let request = Request::pass_on(transport, &message(&fields, &body)).unwrap();
        let request = request.fields().unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/v1/responses?a=b");
        assert_eq!(request.uri().authority().unwrap(), "host:1");
        assert_eq!(request.headers()["x-own"], "1");
        assert_eq!(request.headers()["content-length"], "2");
    }
}

#[test]
fn what_would_break_a_head_is_refused_on_every_channel() {
    let body = Bytes::from_static(b"{}");
    let breaking = [("x".into(), "1\r\ny: 2".into())];
    for transport in [
        Transport::Http,
        Transport::Http2,
        Transport::Http3,
        Transport::Quic,
    ] {
        assert!(Request::pass_on(transport, &message(&breaking, &body)).is_err());
        let split = Message {
            target: "/a HTTP/1.1\r\nx: y",
            ..message(&[], &body)
        };
        assert!(Request::pass_on(transport, &split).is_err(), "{transport}");
    }
}
