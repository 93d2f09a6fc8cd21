//! Heads of HTTP/2 and HTTP/3, to and from what every channel has in common.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, COOKIE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use tokenlag_probes::Stamp;

use crate::http::head::is_hop_by_hop;
use crate::http::render::is_target;
use crate::{ExchangeError, Incoming};

/// A request that arrived whole over HTTP/2 or HTTP/3.
///
/// # Errors
/// A request that cannot go on as HTTP/1.1: without a path, with a target that is not ASCII, with a field that concerns one
/// connection, or whose body is not as long as it says (RFC 9113, section 8.1.1; RFC 9114, section 4.1.2).
pub(crate) fn request(
    parts: &Parts,
    body: Bytes,
    in_head: Stamp,
    in_body: Stamp,
) -> Result<Incoming, ExchangeError> {
    let malformed = |what: &str| ExchangeError::Malformed(what.to_owned());
    let target = parts
        .uri
        .path_and_query()
        .map(|target| target.as_str())
        .filter(|target| is_target(target.as_bytes()))
        .ok_or_else(|| malformed("the request has no path that HTTP can carry"))?;
    if parts.headers.iter().any(concerns_the_connection) {
        return Err(malformed("a field concerns one connection only"));
    }
    for declared in parts.headers.get_all(CONTENT_LENGTH) {
        let length = declared.to_str().ok().and_then(|text| text.parse().ok());
        if length != Some(body.len()) {
            return Err(malformed("the body is not as long as content-length says"));
        }
    }
    Ok(Incoming {
        method: parts.method.as_str().to_owned(),
        target: target.to_owned(),
        fields: fields(parts),
        body,
        in_head,
        in_body,
    })
}

/// What no request may have where streams share a connection (RFC 9113, section 8.2.2; RFC 9114, section 4.2).
fn concerns_the_connection((name, value): (&HeaderName, &HeaderValue)) -> bool {
    match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => value != "trailers",
        _ => false,
    }
}

/// The fields in their order. Cookies may come in crumbs, and are one field again where HTTP/1.1 follows (RFC 9113,
/// section 8.2.3).
fn fields(parts: &Parts) -> Vec<(String, Bytes)> {
    let mut crumbs = BytesMut::new();
    let mut fields = Vec::with_capacity(parts.headers.len());
    // The values lie in one piece of memory: most are short, and each piece costs as much as a long one.
    let length = parts.headers.values().map(HeaderValue::len).sum();
    let mut values = BytesMut::with_capacity(length);
    for (name, value) in &parts.headers {
        if name == COOKIE {
            if !crumbs.is_empty() {
                crumbs.put_slice(b"; ");
            }
            crumbs.put_slice(value.as_bytes());
        } else {
            values.put_slice(value.as_bytes());
            let value = values.split().freeze();
            fields.push((name.as_str().to_owned(), value));
        }
    }
    if !crumbs.is_empty() {
        fields.push((COOKIE.as_str().to_owned(), crumbs.freeze()));
    }
    fields
}

/// A reply's head. Fields that concern one connection only, or that cannot be carried, are left out (RFC 9113, section
/// 8.2.2; RFC 9114, section 4.2).
pub(crate) fn response(status: u16, fields: &[(String, Bytes)]) -> Response<()> {
    let mut response = Response::new(());
    // A status that HTTP cannot have is the upstream's fault.
    *response.status_mut() = status.try_into().unwrap_or(http::StatusCode::BAD_GATEWAY);
    for (name, value) in fields {
        let field = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        );
        if let (Ok(name), Ok(value)) = field
            && !is_hop_by_hop(name.as_str().as_bytes())
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        let request = build(http::Request::builder()).body(()).unwrap();
        request.into_parts().0
    }

    fn read(parts: &Parts, body: &'static [u8]) -> Result<Incoming, ExchangeError> {
        let at = Stamp::from_nanos(1);
        request(parts, Bytes::from_static(body), at, at)
    }

    #[test]
    fn crumbs_of_a_cookie_are_one_field_again() {
        let parts = parts(|request| {
            let request = request.uri("https://test/v1?a=b").header("cookie", "a=1");
            request.header("x-other", "y").header("cookie", "b=2")
        });
        let incoming = read(&parts, b"").unwrap();
        assert_eq!(incoming.target, "/v1?a=b");
        assert_eq!(incoming.field("Cookie"), Some("a=1; b=2"));
        assert_eq!(incoming.fields.len(), 2);
    }

    #[test]
    fn a_body_that_is_not_as_long_as_it_says_is_refused() {
        let parts = parts(|request| request.uri("/").header("content-length", "3"));
        assert!(read(&parts, b"abc").is_ok());
        assert!(matches!(
            read(&parts, b"ab"),
            Err(ExchangeError::Malformed(_))
        ));
    }

    #[test]
    fn a_request_without_a_path_is_refused() {
        let parts = parts(|request| request.method("CONNECT").uri("test:443"));
        assert!(matches!(
            read(&parts, b""),
            Err(ExchangeError::Malformed(_))
        ));
    }

    #[test]
    fn a_request_has_no_fields_of_one_connection() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
        ] {
            let parts = parts(|request| request.uri("/").header(name, value));
            assert!(read(&parts, b"").is_err(), "{name}");
        }
        let parts = parts(|request| request.uri("/").header("te", "trailers"));
        assert!(read(&parts, b"").is_ok());
    }

    #[test]
    fn fields_of_one_connection_do_not_pass() {
        let fields = [
            ("connection".to_owned(), Bytes::from_static(b"close")),
            ("Content-Type".to_owned(), Bytes::from_static(b"text/plain")),
            ("bad name".to_owned(), Bytes::from_static(b"x")),
        ];
        let response = response(200, &fields);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["content-type"], "text/plain");
    }
}
