//! Heads of HTTP/2 and HTTP/3, to and from what every channel has in common.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokenlag_probes::Stamp;

use crate::http::head::is_hop_by_hop;
use crate::http::render::is_target;
use crate::incoming::Head;
use crate::{ExchangeError, Incoming};

/// A request that arrived whole over HTTP/2 or HTTP/3. Nothing in it concerns one connection only: HTTP/2's library refuses
/// such a request, and for HTTP/3 [`concerns_one_connection`] tells.
///
/// # Errors
/// As [`check`] finds.
pub(crate) fn request(
    mut parts: Box<Parts>,
    body: Bytes,
    in_head: Stamp,
    in_body: Stamp,
) -> Result<Incoming, ExchangeError> {
    let cookies =
        check(&parts, body.len()).map_err(|what| ExchangeError::Malformed(what.to_owned()))?;
    if cookies > 1 {
        join_crumbs(&mut parts.headers);
    }
    Ok(Incoming {
        head: Head::Parts(parts),
        body,
        in_head,
        in_body,
    })
}

/// Tells what is wrong with a request that cannot go on as HTTP/1.1: one without a path, with a target that is not ASCII,
/// or whose body is not as long as it says (RFC 9113, section 8.1.1; RFC 9114, section 4.1.2). Gives how many cookies a good
/// one has.
pub(crate) fn check(parts: &Parts, body: usize) -> Result<usize, &'static str> {
    let mut cookies = 0;
    let target = parts.uri.path_and_query();
    if !target.is_some_and(|target| is_target(target.as_str().as_bytes())) {
        return Err("the request has no path that HTTP can carry");
    }
    for (name, value) in &parts.headers {
        if name == CONTENT_LENGTH {
            let declared = value.to_str().ok().and_then(|text| text.parse().ok());
            if declared != Some(body) {
                return Err("the body is not as long as content-length says");
            }
        } else if name == COOKIE {
            cookies += 1;
        }
    }
    Ok(cookies)
}

/// Whether a request has what none may have where streams share a connection (RFC 9113, section 8.2.2; RFC 9114, section
/// 4.2).
pub(crate) fn concerns_one_connection(headers: &HeaderMap) -> bool {
    let concerns = |(name, value): (&HeaderName, &HeaderValue)| match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => value != "trailers",
        _ => false,
    };
    headers.iter().any(concerns)
}

/// Cookies may come in crumbs, and are one field again where HTTP/1.1 follows (RFC 9113, section 8.2.3).
fn join_crumbs(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let whole = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])));
    headers.insert(COOKIE, whole.expect("pieces of values make a value"));
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
        request(Box::new(parts.clone()), Bytes::from_static(body), at, at)
    }

    #[test]
    fn crumbs_of_a_cookie_are_one_field_again() {
        let parts = parts(|request| {
            let request = request.uri("https://test/v1?a=b").header("cookie", "a=1");
            request.header("x-other", "y").header("cookie", "b=2")
        });
        let incoming = read(&parts, b"").unwrap();
        assert_eq!(incoming.target(), "/v1?a=b");
        assert_eq!(incoming.field("Cookie"), Some("a=1; b=2"));
        assert_eq!(incoming.fields().count(), 2);
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
            assert!(concerns_one_connection(&parts.headers), "{name}");
        }
        let parts = parts(|request| request.uri("/").header("te", "trailers"));
        assert!(!concerns_one_connection(&parts.headers));
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
