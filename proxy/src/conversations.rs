//! What a WebSocket's client can go on from, so that it need send only what is new.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokenlag_channel::Share;
use tokenlag_dialect::responses::{BadRequest, Create};
use tokenlag_dialect::{ConversationStore, Fields, Limits};
use tokenlag_probes::StateAt;

use crate::archive::{Archive, Entry, Item, Kept, Scope, Turns};
use crate::keeper::Beginning;
use crate::worker::Worker;

/// What one connection remembers.
const LIMITS: Limits = Limits {
    responses: 1024,
    bytes: 64 * 1024 * 1024,
};

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
