//! What a client's text message asks.

use std::borrow::Cow;

use tokenlag_channel::ws::Text;
use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::bad_request::INVALID_STREAM_ID;
use tokenlag_dialect::responses::{BadRequest, Create};
use tokio::task::spawn_blocking;

use super::memory::input;
use crate::archive::Item;
use crate::worker::Worker;

/// From which length on, in bytes, a message is read on another thread: reading takes some milliseconds for each megabyte, and
/// the tokens of others shall not wait for it.
const LARGE: usize = 1024 * 1024;

/// A message, as its exchange gets it.
pub(super) enum Content {
    /// It is read when its exchange begins.
    Text(Text),
    /// It was read already, its input too.
    Read(Request<'static>, Option<Vec<Item>>),
    /// It is not to be read: there is no room.
    Dropped,
}

impl Content {
    /// Reads a message on another thread: one at a time on behalf of each of the proxy's. `None` where that failed.
    pub(super) async fn ahead(text: Text, worker: &Worker) -> Option<Self> {
        let _turn = worker.reading.lock().await;
        let read = spawn_blocking(move || {
            let request = Request::read(&text).into_owned();
            let input = match &request {
                Request::Create(create) => input(create),
                Request::Processed | Request::Bad(_) => None,
            };
            Self::Read(request, input)
        });
        read.await.ok()
    }
}

/// Whether a message is read on another thread.
pub(super) fn is_large(text: &str) -> bool {
    text.len() >= LARGE
}

/// A message, read.
pub(super) enum Request<'a> {
    /// A response is to be made. Large, and there is one to a task.
    Create(Box<Create<'a>>),
    /// A response was worked off: nothing is to be done.
    Processed,
    /// It cannot be served.
    Bad(Box<Bad>),
}

/// A message that cannot be served.
pub(super) struct Bad {
    pub(super) why: BadRequest,
    /// The lane that it belongs to, where it names one that can be.
    pub(super) lane: Option<String>,
    /// The response that it names as the one to go on from.
    pub(super) parent: Option<String>,
}

impl Bad {
    fn new(why: BadRequest, fields: &Fields<'_>, lane: Option<Cow<'_, str>>) -> Box<Self> {
        let parent = fields.get_str("previous_response_id");
        Box::new(Self {
            why,
            lane: lane.map(Cow::into_owned),
            parent: parent.map(Cow::into_owned),
        })
    }
}

impl<'a> Request<'a> {
    fn into_owned(self) -> Request<'static> {
        match self {
            Self::Create(create) => Request::Create(Box::new(create.into_owned())),
            Self::Processed => Request::Processed,
            Self::Bad(bad) => Request::Bad(bad),
        }
    }

    pub(super) fn read(message: &'a str) -> Self {
        match Create::parse(message.as_bytes()) {
            // A body of HTTP needs no type; a message does.
            Ok(create) if create.fields.get("type").is_none() => {
                let why = "the message has no type; send `response.create`";
                let why = BadRequest::param("type", why);
                Self::Bad(Bad::new(why, &create.fields, create.stream_id.clone()))
            }
            Ok(create) => Self::Create(Box::new(create)),
            Err(bad) => Self::bad(bad, message),
        }
    }

    /// One for which there was no room.
    pub(super) fn dropped() -> Self {
        let why = BadRequest::param("input", "there is no room for the message");
        Self::Bad(Bad::new(why, &Fields::default(), None))
    }

    /// Names of lanes and types are looked for once more: bad requests are rare.
    fn bad(bad: BadRequest, message: &'a str) -> Self {
        let Ok(fields) = Fields::parse(message.as_bytes()) else {
            return Self::Bad(Bad::new(bad, &Fields::default(), None));
        };
        if fields.get_str("type").as_deref() == Some("response.processed") {
            return Self::Processed;
        }
        if bad.param == Some("stream_id") || bad.code == Some(INVALID_STREAM_ID) {
            let none = Fields::default();
            return Self::Bad(Bad::new(BadRequest::invalid_stream_id(), &none, None));
        }
        // The parser judges the lane's name before all else but the type.
        let lane = fields.get_str("stream_id").filter(|name| is_lane(name));
        Self::Bad(Bad::new(bad, &fields, lane))
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
            Request::Bad(bad) => {
                let why = &bad.why;
                assert_eq!((why.code, why.param), (code, param), "{message}");
                assert_eq!(bad.lane.as_deref(), lane, "{message}");
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
