//! What a client's text message asks.

use std::borrow::Cow;

use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::bad_request::INVALID_STREAM_ID;
use tokenlag_dialect::responses::{BadRequest, Create};

/// A message, read.
pub(super) enum Request<'a> {
    /// A response is to be made. Large, and there is one to a task.
    Create(Box<Create<'a>>),
    /// A response was worked off: nothing is to be done.
    Processed,
    /// It cannot be served; it belongs to the lane of that name, where it names one that can be.
    Bad(BadRequest, Option<Cow<'a, str>>),
}

impl<'a> Request<'a> {
    pub(super) fn read(message: &'a str) -> Self {
        match Create::parse(message.as_bytes()) {
            // A body of HTTP needs no type; a message does.
            Ok(create) if create.fields.get("type").is_none() => {
                let why = "the message has no type; send `response.create`";
                Self::Bad(BadRequest::param("type", why), create.stream_id)
            }
            Ok(create) => Self::Create(Box::new(create)),
            Err(bad) => Self::bad(bad, message),
        }
    }

    /// Names of lanes and types are looked for once more: bad requests are rare.
    fn bad(bad: BadRequest, message: &'a str) -> Self {
        let Ok(fields) = Fields::parse(message.as_bytes()) else {
            return Self::Bad(bad, None);
        };
        if fields.get_str("type").as_deref() == Some("response.processed") {
            return Self::Processed;
        }
        if bad.param == Some("stream_id") || bad.code == Some(INVALID_STREAM_ID) {
            return Self::Bad(BadRequest::invalid_stream_id(), None);
        }
        let lane = fields.get_str("stream_id").map(Cow::into_owned);
        // The parser judges the lane's name before all else but the type.
        let lane = lane.filter(|name| is_lane(name)).map(Cow::Owned);
        Self::Bad(bad, lane)
    }
}

/// Whether a create could name its lane so.
fn is_lane(name: &str) -> bool {
    let fields = format!(r#"{{"stream_id":{}}}"#, serde_json::Value::from(name));
    Create::parse(fields.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code (or what is wrong) and the lane of a bad message.
    fn check(message: &str, code: Option<&str>, param: Option<&str>, lane: Option<&str>) {
        match Request::read(message) {
            Request::Bad(bad, of) => {
                assert_eq!((bad.code, bad.param), (code, param), "{message}");
                assert_eq!(of.as_deref(), lane, "{message}");
            }
            _ => panic!("{message} was taken"),
        }
    }

    #[test]
    fn a_fault_is_told_in_its_lane() {
        check("{", Some("invalid_json"), None, None);
        check("[1]", Some("invalid_json"), None, None);
        check("{}", None, Some("type"), None);
        check(r#"{"type":"response.sing"}"#, None, Some("type"), None);
        check(
            r#"{"type":"response.sing","stream_id":"a"}"#,
            None,
            Some("type"),
            Some("a"),
        );
        check(
            r#"{"type":"response.sing","stream_id":"a b"}"#,
            None,
            Some("type"),
            None,
        );
        let create = |rest: &str| format!(r#"{{"type":"response.create",{rest}}}"#);
        for bad in [
            r#""stream_id":"a b""#,
            r#""stream_id":"""#,
            r#""stream_id":7"#,
        ] {
            check(
                &create(bad),
                Some("invalid_stream_id"),
                Some("stream_id"),
                None,
            );
        }
        check(
            &create(r#""stream_id":"a","generate":"yes""#),
            None,
            Some("generate"),
            Some("a"),
        );
    }

    #[test]
    fn what_is_no_fault() {
        let read = Request::read(r#"{"type":"response.processed","response_id":"r"}"#);
        assert!(matches!(read, Request::Processed));
        let read = Request::read(r#"{"type":"response.create","stream_id":null}"#);
        assert!(matches!(read, Request::Create(create) if create.stream_id.is_none()));
    }
}
