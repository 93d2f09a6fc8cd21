//! Turns of conversations that the proxy remembers for its clients, so that a client need send only what is new.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_dialect::responses::{BadRequest, Completed, Create};
use tokenlag_dialect::{ConversationStore, Fields, Limits};
use tokenlag_probes::StateAt;

use crate::archive::{Archive, Begun, Entry, Item, Kept, Scope, Turns};
use crate::worker::Worker;

/// What one connection remembers.
const LIMITS: Limits = Limits {
    responses: 1024,
    bytes: 64 * 1024 * 1024,
};

/// How far into a reply its id is looked for.
const ID_WITHIN: usize = 1024;

/// The conversations of one WebSocket: what it produced itself, whether or not it was to be stored, and what its client
/// may know from elsewhere.
#[derive(Debug)]
pub(crate) struct Conversations {
    own: RefCell<ConversationStore<Kept>>,
    archive: Arc<Archive>,
    scope: Scope,
    state_at: StateAt,
}

impl Conversations {
    /// Of the client that opened its connection with these fields.
    pub(crate) fn new<'a>(
        worker: &Worker,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let archive = Arc::clone(&worker.book.archive);
        Self {
            own: RefCell::new(ConversationStore::new(LIMITS)),
            scope: archive.scope(fields),
            archive,
            state_at: worker.state_at,
        }
    }

    /// The body to send upstream: the whole conversation, or, where the state is kept there, the turn as it is.
    ///
    /// # Errors
    /// The response that the turn goes on from is not known here (any more).
    pub(crate) async fn upstream_body(&self, create: &Create<'_>) -> Result<Vec<u8>, BadRequest> {
        let Some(parent) = create.previous_response_id.as_deref() else {
            return Ok(create.upstream_body(std::iter::empty()));
        };
        if self.state_at == StateAt::Upstream {
            return Ok(still_naming(parent, create));
        }
        match self.history(parent).await {
            Some(history) => Ok(create.upstream_body(history.iter().map(|item| &**item))),
            None => Err(BadRequest::previous_response_not_found(parent)),
        }
    }

    async fn history(&self, id: &str) -> Option<Vec<Item>> {
        let own = {
            let mut own = self.own.borrow_mut();
            own.touch(id);
            own.turns(id)
        };
        match own {
            Some(history) => Some(history),
            None => self.archive.history(self.scope, id).await,
        }
    }

    /// Keeps a turn under the response's id, so that the next can go on from it.
    pub(crate) async fn keep(&self, create: &Create<'_>, id: &str, output: Vec<Box<RawValue>>) {
        let Ok(input) = create.input_items() else {
            return;
        };
        if self.state_at == StateAt::Upstream {
            return;
        }
        let parent = create.previous_response_id.as_deref();
        let history = match parent {
            // Half a conversation would be worse than none: where the first half had to make room, this one is not kept.
            Some(parent) => match self.history(parent).await {
                Some(history) => history,
                None => return,
            },
            None => Vec::new(),
        };
        let items: Vec<Item> = input.into_iter().chain(output).map(Item::from).collect();
        let entry = |items| Entry {
            id,
            parent,
            history: history.clone(),
            items,
        };
        if create.store != Some(false) {
            self.archive.keep(self.scope, entry(items.clone()));
        }
        self.own.borrow_mut().keep(id, parent, entry(items));
    }

    /// Forgets what the connection itself knows of a response.
    pub(crate) fn forget(&self, id: &str) {
        self.own.borrow_mut().remove(id);
    }
}

/// A message's body for an upstream that keeps the state itself.
fn still_naming(parent: &str, create: &Create<'_>) -> Vec<u8> {
    let body = create.upstream_body(std::iter::empty());
    match Fields::parse(&body) {
        Ok(mut fields) => {
            fields.set_str("previous_response_id", parent);
            fields.to_vec()
        }
        // It was written from fields just now.
        Err(_) => body,
    }
}

/// A turn over HTTP, or a channel that is like it, from its request to its keeping.
#[derive(Debug)]
pub(crate) struct Turn {
    archive: Arc<Archive>,
    scope: Scope,
    /// The create as the client sent it.
    body: Bytes,
    parent: Option<String>,
    history: Vec<Item>,
    /// The first bytes of the reply were looked at.
    seen: bool,
    begun: Option<Begun>,
}

impl Turn {
    /// Takes a create, and gives the body to send upstream: the client's, untouched, but where it names a response that is
    /// known here. What an upstream keeps is its own business.
    pub(crate) async fn begin(archive: &Arc<Archive>, scope: Scope, body: Bytes) -> (Self, Bytes) {
        let mut turn = Self {
            archive: Arc::clone(archive),
            scope,
            body,
            parent: None,
            history: Vec::new(),
            seen: false,
            begun: None,
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
        self.history = self.archive.history(self.scope, parent).await?;
        self.parent = Some(parent.to_owned());
        let mut fields = create.fields.clone();
        fields.remove("previous_response_id");
        fields.set(
            "input",
            create.whole_input(self.history.iter().map(|item| &**item)),
        );
        Some(fields.to_vec().into())
    }

    /// Looks at the first bytes of a reply that ends well so far: from here on, whoever names it waits for it to be kept.
    pub(crate) fn begins(&mut self, bytes: &[u8]) {
        if !std::mem::replace(&mut self.seen, true)
            && let Some(id) = first_id(&bytes[..bytes.len().min(ID_WITHIN)])
        {
            self.begins_as(id);
        }
    }

    /// Says the id of a reply that ends well so far, where it is known.
    pub(crate) fn begins_as(&mut self, id: &str) {
        self.begun = Some(self.archive.begin(self.scope, id));
    }

    /// The response that the turn goes on from, where it was known here.
    pub(crate) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// Keeps the turn, by the finished response: its last event, or the object that answered a create which was not streamed.
    pub(crate) fn keep(self, response: &[u8]) {
        let Ok(create) = Create::parse(&self.body) else {
            return;
        };
        if create.store == Some(false) {
            return;
        }
        let Some(done) = Completed::parse(response).or_else(|| whole_response(response)) else {
            return;
        };
        let Ok(input) = create.input_items() else {
            return;
        };
        let items = input.into_iter().chain(done.output);
        let entry = Entry {
            id: &done.id,
            parent: self.parent.as_deref(),
            history: self.history,
            items: items.map(Item::from).collect(),
        };
        self.archive.keep(self.scope, entry);
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
