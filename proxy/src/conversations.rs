//! Turns of conversations that the proxy remembers for its clients, so that a client need send only what is new.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_channel::Share;
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
    /// What that takes of the memory that all connections have together.
    share: RefCell<Share>,
    archive: Arc<Archive>,
    scope: Scope,
    state_at: StateAt,
}

/// Why a connection itself did not keep a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The conversation alone is larger than what a connection may keep.
    TooLarge,
    /// All connections together keep too much.
    NoRoom,
}

impl Conversations {
    /// Of the client that opened its connection with these fields; what it keeps counts for `share`.
    pub(crate) fn new<'a>(
        worker: &Worker,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        share: Share,
    ) -> Self {
        let archive = Arc::clone(&worker.book.archive);
        Self {
            own: RefCell::new(ConversationStore::new(LIMITS)),
            share: RefCell::new(share),
            scope: archive.scope(fields),
            archive,
            state_at: worker.state_at,
        }
    }

    /// What was said up to the response that a create goes on from, oldest first; nothing where it goes on from none, or where
    /// the state is the upstream's.
    ///
    /// # Errors
    /// The response is not known here (any more).
    pub(crate) async fn history(&self, create: &Create<'_>) -> Result<Vec<Item>, BadRequest> {
        let parent = create.previous_response_id.as_deref();
        let Some(parent) = parent.filter(|_| self.state_at == StateAt::Proxy) else {
            return Ok(Vec::new());
        };
        let own = {
            let mut own = self.own.borrow_mut();
            own.touch(parent);
            own.turns(parent)
        };
        let found = match own {
            Some(history) => Some(history),
            None => self.archive.history(self.scope, parent).await,
        };
        found.ok_or_else(|| BadRequest::previous_response_not_found(parent))
    }

    /// The body to send upstream, given the history: the whole conversation, or, where the state is kept there, the turn as it
    /// is.
    pub(crate) fn upstream_body(&self, create: &Create<'_>, history: &[Item]) -> Vec<u8> {
        match create.previous_response_id.as_deref() {
            Some(parent) if self.state_at == StateAt::Upstream => still_naming(parent, create),
            _ => create.upstream_body(history.iter().map(|item| &**item)),
        }
    }

    /// Waits for the reply to a create, so that others who name its response wait for it to be kept.
    pub(crate) fn awaits(&self, create: &Create<'_>) -> Option<Beginning> {
        let is_kept = self.state_at == StateAt::Proxy && create.store != Some(false);
        is_kept.then(|| Beginning::new(&self.archive, self.scope))
    }

    /// Keeps a turn under the response's id, so that the next can go on from it: its input, and what the response said to
    /// it. `history` is what it went on from.
    ///
    /// # Errors
    /// The connection itself keeps no more; where the response is stored, it is known nevertheless.
    pub(crate) fn keep(
        &self,
        create: &Create<'_>,
        id: &str,
        history: Vec<Item>,
        (mut items, output): (Vec<Item>, Vec<Box<RawValue>>),
    ) -> Result<(), NotKept> {
        if self.state_at == StateAt::Upstream {
            return Ok(());
        }
        let parent = create.previous_response_id.as_deref();
        items.extend(output.into_iter().map(Item::from));
        let entry = |items, history| Entry {
            id,
            parent,
            history,
            items,
        };
        if create.store != Some(false) {
            let entry = entry(items.clone(), history.clone());
            self.archive.keep(self.scope, entry);
        }
        self.keep_own(parent, entry(items, history))
    }

    fn keep_own(&self, parent: Option<&str>, entry: Entry<'_>) -> Result<(), NotKept> {
        let mut own = self.own.borrow_mut();
        let mut share = self.share.borrow_mut();
        let id = entry.id;
        if !own.keep(id, parent, entry) {
            return Err(NotKept::TooLarge);
        }
        let kept = share.resize(own.bytes());
        if kept.is_err() {
            own.remove(id);
            // It is no more than before.
            let _ = share.resize(own.bytes());
        }
        kept.map_err(|_| NotKept::NoRoom)
    }

    /// Keeps a warm-up of an upstream that knows nothing of it: its items, after those of the warm-up that it goes on from.
    ///
    /// # Errors
    /// All of them are too many.
    pub(crate) fn keep_warm_up(
        &self,
        id: &str,
        before: Option<&str>,
        items: Vec<Item>,
    ) -> Result<(), NotKept> {
        let entry = Entry {
            id,
            parent: before,
            history: Vec::new(),
            items,
        };
        self.keep_own(before, entry)
    }

    /// Whether the connection itself knows a response.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.own.borrow().contains(id)
    }

    /// The items of a warm-up and of those before it, oldest first.
    pub(crate) fn warm_up(&self, id: &str) -> Option<Vec<Item>> {
        self.own.borrow().turns(id)
    }

    /// Forgets what the connection itself knows of a response.
    pub(crate) fn forget(&self, id: &str) {
        let mut own = self.own.borrow_mut();
        if own.remove(id) {
            // It became less.
            let _ = self.share.borrow_mut().resize(own.bytes());
        }
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
    fn new(archive: &Arc<Archive>, scope: Scope) -> Self {
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
