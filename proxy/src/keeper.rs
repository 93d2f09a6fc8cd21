//! A turn from its request to its keeping: what its reply is waited for by, and kept by, so that a client need send only what is
//! new.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_dialect::responses::{Completed, Create};

use crate::archive::{Archive, Begun, Entry, Item, Scope};

/// How far into a reply its id is looked for.
const ID_WITHIN: usize = 1024;

/// A turn that is under way, whoever asked for it: what its reply is waited for by, and kept by.
pub(crate) trait Keeper {
    /// Looks at the first bytes of a reply that ends well so far: from here on, whoever names it waits for it to be kept.
    fn begins(&mut self, bytes: &[u8]);

    /// Says the id of a reply that ends well so far, where it is known.
    fn begins_as(&mut self, id: &str);

    /// The response that the turn goes on from, where it was known here.
    fn parent(&self) -> Option<&str>;

    /// Keeps the turn, by the finished response: its last event, or the object that answered a create which was not streamed.
    /// Called once.
    fn keep(&mut self, response: &[u8]);
}

/// A reply that is waited for, to be kept in the archive: its id is its first bytes' to say.
#[derive(Debug)]
pub(crate) struct Beginning {
    archive: Arc<Archive>,
    scope: Scope,
    /// The first bytes of the reply were looked at.
    seen: bool,
    begun: Option<Begun>,
}

impl Beginning {
    pub(crate) fn new(archive: &Arc<Archive>, scope: Scope) -> Self {
        Self {
            archive: Arc::clone(archive),
            scope,
            seen: false,
            begun: None,
        }
    }

    /// As [`Keeper::begins`].
    pub(crate) fn begins(&mut self, bytes: &[u8]) {
        if !std::mem::replace(&mut self.seen, true)
            && let Some(id) = first_id(&bytes[..bytes.len().min(ID_WITHIN)])
        {
            self.begins_as(id);
        }
    }

    /// As [`Keeper::begins_as`].
    pub(crate) fn begins_as(&mut self, id: &str) {
        self.begun = Some(self.archive.begin(self.scope, id));
    }

    /// It was kept, or will not be: nobody need wait any more.
    pub(crate) fn is_over(&mut self) {
        self.begun = None;
    }
}

/// A turn over HTTP, or a channel that is like it, from its request to its keeping.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The create as the client sent it.
    body: Bytes,
    parent: Option<String>,
    history: Vec<Item>,
    reply: Beginning,
}

impl Turn {
    /// Takes a create, and gives the body to send upstream: the client's, untouched, but where it names a response that is
    /// known here. What an upstream keeps is its own business.
    pub(crate) async fn begin(archive: &Arc<Archive>, scope: Scope, body: Bytes) -> (Self, Bytes) {
        let mut turn = Self {
            body,
            parent: None,
            history: Vec::new(),
            reply: Beginning::new(archive, scope),
        };
        let whole = turn.whole().await;
        let body = whole.unwrap_or_else(|| turn.body.clone());
        (turn, body)
    }

    /// The whole conversation, where the create names a response that is known.
    async fn whole(&mut self) -> Option<Bytes> {
        // Most requests name none: they are not read before they have left.
        memmem::find(&self.body, b"\"previous_response_id\"")?;
        let body = self.body.clone();
        let create = Create::parse(&body).ok()?;
        let parent = create.previous_response_id.as_deref()?;
        let archive = &self.reply.archive;
        self.history = archive.history(self.reply.scope, parent).await?;
        self.parent = Some(parent.to_owned());
        let mut fields = create.fields.clone();
        fields.remove("previous_response_id");
        fields.set(
            "input",
            create.whole_input(self.history.iter().map(|item| &**item)),
        );
        Some(fields.to_vec().into())
    }

    fn kept(&mut self, response: &[u8]) -> Option<()> {
        let create = Create::parse(&self.body).ok()?;
        if create.store == Some(false) {
            return None;
        }
        let done = Completed::parse(response).or_else(|| whole_response(response))?;
        let items = create.input_items().ok()?.into_iter().chain(done.output);
        let entry = Entry {
            id: &done.id,
            parent: self.parent.as_deref(),
            history: std::mem::take(&mut self.history),
            items: items.map(Item::from).collect(),
        };
        self.reply.archive.keep(self.reply.scope, entry);
        Some(())
    }
}

impl Keeper for Turn {
    fn begins(&mut self, bytes: &[u8]) {
        self.reply.begins(bytes);
    }

    fn begins_as(&mut self, id: &str) {
        self.reply.begins_as(id);
    }

    fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    fn keep(&mut self, response: &[u8]) {
        // What cannot be kept is not: the next turn is told so.
        let _ = self.kept(response);
        self.reply.is_over();
    }
}

/// The response's id: the first that its first event, or the object itself, has.
fn first_id(start: &[u8]) -> Option<&str> {
    let after = memmem::find(start, b"\"id\":")? + 5;
    let value = start[after..].trim_ascii_start().strip_prefix(b"\"")?;
    let id = &value[..memchr::memchr(b'"', value)?];
    std::str::from_utf8(id).ok()
}

/// A response that came as one object.
fn whole_response(json: &[u8]) -> Option<Completed> {
    #[derive(Deserialize)]
    struct Response {
        id: String,
        status: Option<String>,
        output: Vec<Box<RawValue>>,
    }

    let response: Response = serde_json::from_slice(json).ok()?;
    let well = response
        .status
        .is_none_or(|status| matches!(&*status, "completed" | "incomplete"));
    well.then_some(Completed {
        id: response.id,
        output: response.output,
        usage: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_is_the_responses() {
        let event = br#"event: response.created
data: {"type":"response.created","response":{"id": "resp_1","object":"response"}}

data: {"type":"x","item":{"id":"msg_1"}}"#;
        assert_eq!(first_id(event), Some("resp_1"));
        assert_eq!(first_id(&event[..70]), None);
        assert_eq!(first_id(br#"{"object":"response","id":"r"}"#), Some("r"));
        assert_eq!(first_id(br#"{"id":7}"#), None);
    }

    #[test]
    fn a_failed_object_is_no_response_to_go_on_from() {
        let response = |status: &str| format!(r#"{{"id":"r","status":"{status}","output":[]}}"#);
        assert!(whole_response(response("completed").as_bytes()).is_some());
        assert!(whole_response(response("incomplete").as_bytes()).is_some());
        assert!(whole_response(response("failed").as_bytes()).is_none());
        assert!(whole_response(br#"{"error":{"message":"no"}}"#).is_none());
    }
}
