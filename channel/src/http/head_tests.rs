use super::*;

fn request(text: &str) -> Result<Framing, HeadError> {
    RequestHead::take(&mut BytesMut::from(text))
        .map(|head| head.expect("the head is whole"))
        .and_then(|head| head.framing())
}

#[test]
fn bodies_are_delimited_as_the_rfc_says() {
    for (fields, framing) in [
        ("", Framing::Empty),
        ("Content-Length: 0\r\n", Framing::Empty),
        ("Content-Length: 12\r\n", Framing::Length(12)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        assert_eq!(request(&head), Ok(framing), "{fields}");
    }
}

#[test]
fn smuggling_is_refused() {
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: \r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\u{80}\r\nContent-Length: 3\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\nContent-Length: 3\r\n",
        "X: a\rContent-Length: 3\r\n",
        "X: a\0\r\n",
        "Host: b\r\n",
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        assert!(request(&head).is_err(), "{fields}");
    }
}

#[test]
fn a_request_names_one_host_and_no_coding_that_its_version_lacks() {
    assert!(request("GET / HTTP/1.1\r\n\r\n").is_err());
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Empty));
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(request(old).is_err());
    assert!(request("GET / HTTP/1.1\nHost: a\n\n").is_err());
}

#[test]
fn a_server_may_repeat_what_it_means() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
    let head = ResponseHead::take(&mut BytesMut::from(text)).unwrap();
    assert_eq!(head.unwrap().framing("GET"), Ok(Framing::Length(5)));
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let mut inbox = BytesMut::from(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\nx-private: 1\r\nX-Kept: 2\r\nTE: trailers\r\n\r\nrest",
    );
    let head = RequestHead::take(&mut inbox).unwrap().unwrap();
    let kept: Vec<_> = head.headers.end_to_end().collect();
    assert_eq!(
        kept,
        [(&b"Host"[..], &b"a"[..]), (&b"X-Kept"[..], &b"2"[..])]
    );
    assert_eq!(&inbox[..], b"rest");
}

#[test]
fn a_head_that_never_ends_is_too_large() {
    let mut inbox = BytesMut::from("GET / HTTP/1.1\r\n");
    inbox.extend_from_slice("a: b\r\n".repeat(20_000).as_bytes());
    assert_eq!(
        RequestHead::take(&mut inbox).unwrap_err(),
        HeadError::TooLarge
    );
}
