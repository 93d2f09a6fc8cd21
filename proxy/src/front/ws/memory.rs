//! What a connection can go on from: the latest response of each of its lanes.
//!
//! A lane that goes on from another lane's latest response (a fork) holds it until it has ended, so that the other lane may
//! go on meanwhile. What was stored is found beyond the connection too; that is the business of [`Conversations`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::{BadRequest, Completed, Create};
use tokenlag_probes::StateAt;

use super::lanes::Lane;
use crate::archive::Item;
use crate::book::Book;
use crate::conversations::{Conversations, NotKept};
use crate::keeper::{Beginning, Keeper};

/// The memory of one connection.
#[derive(Debug)]
pub(super) struct Memory {
    conversations: Conversations,
    book: Arc<Book>,
    state_at: StateAt,
    places: RefCell<Places>,
}

/// Which responses are still of use.
#[derive(Debug, Default)]
struct Places {
    latest: HashMap<Lane, String>,
    /// How many exchanges that run go on from a response.
    forks: HashMap<String, usize>,
    /// Warm-ups, where the state is the upstream's, which does not know them: each with the response that the upstream
    /// knows and that it went on from.
    warm: HashMap<String, Option<String>>,
}

impl Places {
    fn is_needed(&self, id: &str) -> bool {
        self.forks.contains_key(id) || self.latest.values().any(|latest| latest == id)
    }
}

/// Keeps the response that an exchange goes on from, for as long as it runs.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    memory: &'a Memory,
    id: Option<String>,
}

impl Memory {
    pub(super) fn new(conversations: Conversations, book: Arc<Book>, state_at: StateAt) -> Self {
        Self {
            conversations,
            book,
            state_at,
            places: RefCell::default(),
        }
    }

    /// Holds what a create goes on from.
    pub(super) fn hold(&self, create: &Create<'_>) -> Hold<'_> {
        let id = create.previous_response_id.as_deref().map(str::to_owned);
        if let Some(id) = &id {
            let mut places = self.places.borrow_mut();
            *places.forks.entry(id.clone()).or_default() += 1;
        }
        Hold { memory: self, id }
    }

    /// What a create goes on from, oldest first, as far as it is this end that knows it.
    ///
    /// # Errors
    /// The response that it names is not known here (any more).
    pub(super) async fn history(&self, create: &Create<'_>) -> Result<Vec<Item>, BadRequest> {
        match self.warm_up_before(create) {
            Some((id, _)) => Ok(self.conversations.warm_up(&id).unwrap_or_default()),
            None => self.conversations.history(create).await,
        }
    }

    /// The body to send upstream, given the history.
    pub(super) fn upstream_body(&self, create: &Create<'_>, history: &[Item]) -> Vec<u8> {
        match self.warm_up_before(create) {
            Some((_, parent)) => after_warm_up(create, parent.as_deref(), history),
            None => self.conversations.upstream_body(create, history),
        }
    }

    /// The warm-up that a create goes on from, where it is one that only this connection knows, and what that went on from.
    fn warm_up_before(&self, create: &Create<'_>) -> Option<(String, Option<String>)> {
        let id = create.previous_response_id.as_deref()?;
        let parent = self.places.borrow().warm.get(id).cloned()?;
        // Another lane's may have had to make room.
        self.conversations
            .knows(id)
            .then(|| (id.to_owned(), parent))
    }

    /// Keeps a warm-up with that input as its lane's latest response.
    ///
    /// # Errors
    /// All that it goes on from is too large together, or there is no room.
    pub(super) fn keep_warm_up(
        &self,
        lane: &Lane,
        create: &Create<'_>,
        id: &str,
        (history, input): (Vec<Item>, Vec<Item>),
    ) -> Result<(), NotKept> {
        if self.state_at == StateAt::Proxy {
            let items = (input, Vec::new());
            self.conversations.keep(create, id, history, items)?;
        } else {
            let (before, parent) = match self.warm_up_before(create) {
                Some((before, parent)) => (Some(before), parent),
                None => {
                    let parent = create.previous_response_id.as_deref();
                    (None, parent.map(str::to_owned))
                }
            };
            let conversations = &self.conversations;
            conversations.keep_warm_up(id, before.as_deref(), input)?;
            let mut places = self.places.borrow_mut();
            places.warm.insert(id.to_owned(), parent);
        }
        self.is_latest(lane, id);
        Ok(())
    }

    /// A response is its lane's latest now, in the place of the one before.
    fn is_latest(&self, lane: &Lane, id: &str) {
        let mut places = self.places.borrow_mut();
        let before = places.latest.insert(lane.clone(), id.to_owned());
        self.forget_unneeded(&mut places, before.as_deref());
    }

    /// A create that was answered by an error of status 400 to 599 takes the response that it named with it, where that was
    /// its own lane's latest; another lane's is left to that lane.
    pub(super) fn evict(&self, lane: &Lane, named: Option<&str>) {
        let mut places = self.places.borrow_mut();
        if named.is_some() && places.latest.get(lane).map(String::as_str) == named {
            let evicted = places.latest.remove(lane);
            self.forget_unneeded(&mut places, evicted.as_deref());
        }
    }

    fn forget_unneeded(&self, places: &mut Places, id: Option<&str>) {
        if let Some(id) = id.filter(|id| !places.is_needed(id)) {
            places.warm.remove(id);
            self.conversations.forget(id);
        }
    }
}

/// The body of a turn that goes on from a warm-up, for an upstream that keeps the state itself: the warm-up's input comes
/// before the turn's, and what the warm-up went on from in its place.
fn after_warm_up(create: &Create<'_>, parent: Option<&str>, warm: &[Item]) -> Vec<u8> {
    let body = create.upstream_body(warm.iter().map(|item| &**item));
    match (parent, Fields::parse(&body)) {
        (Some(parent), Ok(mut fields)) => {
            fields.set_str("previous_response_id", parent);
            fields.to_vec()
        }
        _ => body,
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let Some(id) = &self.id else { return };
        let mut places = self.memory.places.borrow_mut();
        if let Some(count) = places.forks.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                places.forks.remove(id);
            }
        }
        self.memory.forget_unneeded(&mut places, Some(id));
    }
}

/// A turn of a lane that is under way: kept as the lane's latest response with the event that ends it well.
pub(super) struct LaneTurn<'a> {
    memory: &'a Memory,
    lane: &'a Lane,
    create: &'a Create<'a>,
    history: Vec<Item>,
    /// The create's input, where it was read already.
    input: Option<Vec<Item>>,
    reply: Option<Beginning>,
}

impl<'a> LaneTurn<'a> {
    /// `history` is what the create goes on from, `input` what it adds to that, where that was read already.
    pub(super) fn new(
        memory: &'a Memory,
        lane: &'a Lane,
        create: &'a Create<'a>,
        (history, input): (Vec<Item>, Option<Vec<Item>>),
    ) -> Self {
        Self {
            reply: memory.conversations.awaits(create),
            memory,
            lane,
            create,
            history,
            input,
        }
    }
}

impl Keeper for LaneTurn<'_> {
    fn begins(&mut self, bytes: &[u8]) {
        if let Some(reply) = &mut self.reply {
            reply.begins(bytes);
        }
    }

    fn begins_as(&mut self, id: &str) {
        if let Some(reply) = &mut self.reply {
            reply.begins_as(id);
        }
    }

    fn parent(&self) -> Option<&str> {
        let is_ours = self.memory.state_at == StateAt::Proxy;
        let parent = self.create.previous_response_id.as_deref();
        parent.filter(|_| is_ours)
    }

    fn keep(&mut self, response: &[u8]) {
        let input = self.input.take().or_else(|| input(self.create));
        if let (Some(done), Some(input)) = (Completed::parse(response), input) {
            let history = std::mem::take(&mut self.history);
            let memory = self.memory;
            let items = (input, done.output);
            let kept = memory
                .conversations
                .keep(self.create, &done.id, history, items);
            if kept == Err(NotKept::NoRoom) {
                memory.book.metrics.refused("ws", "no_room");
            }
            memory.is_latest(self.lane, &done.id);
        }
        self.reply = None;
    }
}

/// What a create adds to a conversation; `None` where its input is none.
pub(super) fn input(create: &Create<'_>) -> Option<Vec<Item>> {
    let items = create.input_items().ok()?;
    Some(items.into_iter().map(Item::from).collect())
}
