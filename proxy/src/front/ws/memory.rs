//! What a connection can go on from: the latest response of each of its lanes.
//!
//! A lane that goes on from another lane's latest response (a fork) holds it until it has ended, so that the other lane may
//! go on meanwhile. What was stored is found beyond the connection too; that is the business of [`Conversations`].

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::value::RawValue;
use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::{BadRequest, Completed, Create};
use tokenlag_probes::{Outcome, StateAt};

use super::lanes::Lane;
use crate::conversations::Conversations;

/// The memory of one connection.
#[derive(Debug)]
pub(super) struct Memory {
    conversations: Conversations,
    state_at: StateAt,
    places: RefCell<Places>,
}

/// Which responses are still of use.
#[derive(Debug, Default)]
struct Places {
    latest: HashMap<Lane, String>,
    /// How many exchanges that run go on from a response.
    forks: HashMap<String, usize>,
    /// Warm-ups, where the state is the upstream's: it does not know them.
    warm: HashMap<String, WarmUp>,
}

/// A response without output that was answered here.
#[derive(Clone, Debug, Default)]
struct WarmUp {
    /// The response that it went on from, which the upstream knows.
    parent: Option<String>,
    items: Vec<Box<RawValue>>,
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
    pub(super) fn new(conversations: Conversations, state_at: StateAt) -> Self {
        Self {
            conversations,
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

    /// The body to send upstream.
    ///
    /// # Errors
    /// The response that the turn goes on from is not known here (any more).
    pub(super) async fn upstream_body(&self, create: &Create<'_>) -> Result<Vec<u8>, BadRequest> {
        match self.warm_up(create) {
            Some(warm) => Ok(after_warm_up(create, &warm)),
            None => self.conversations.upstream_body(create).await,
        }
    }

    /// The warm-up that a create goes on from, where it is one that only this connection knows.
    fn warm_up(&self, create: &Create<'_>) -> Option<WarmUp> {
        let parent = create.previous_response_id.as_deref()?;
        self.places.borrow().warm.get(parent).cloned()
    }

    /// Keeps a warm-up as its lane's latest response.
    pub(super) async fn keep_warm_up(&self, lane: &Lane, create: &Create<'_>, id: &str) {
        if self.state_at == StateAt::Upstream {
            let mut warm = self.warm_up(create).unwrap_or_else(|| WarmUp {
                parent: create.previous_response_id.as_deref().map(str::to_owned),
                items: Vec::new(),
            });
            // What is no input is for the upstream to judge, when the turn comes.
            warm.items.extend(create.input_items().unwrap_or_default());
            let mut places = self.places.borrow_mut();
            places.warm.insert(id.to_owned(), warm);
        }
        self.keep(lane, create, id, Vec::new()).await;
    }

    /// Keeps a turn as its lane's latest response, in the place of the one before.
    async fn keep(&self, lane: &Lane, create: &Create<'_>, id: &str, output: Vec<Box<RawValue>>) {
        self.conversations.keep(create, id, output).await;
        let mut places = self.places.borrow_mut();
        let before = places.latest.insert(lane.clone(), id.to_owned());
        self.forget_unneeded(&mut places, before.as_deref());
    }

    /// Keeps a turn that ended well, by its last event. One that failed takes its parent with it, where
    /// that was its own lane's latest; another lane's is left to that lane.
    pub(super) async fn settle(
        &self,
        lane: &Lane,
        create: &Create<'_>,
        ending: Option<&[u8]>,
        outcome: Outcome,
    ) {
        match outcome {
            Outcome::Complete => {
                if let Some(done) = ending.and_then(Completed::parse) {
                    self.keep(lane, create, &done.id, done.output).await;
                }
            }
            // All of these are told as an error of status 400 to 599.
            Outcome::Failed(_) | Outcome::Truncated => {
                let mut places = self.places.borrow_mut();
                let parent = create.previous_response_id.as_deref();
                if parent.is_some() && places.latest.get(lane).map(String::as_str) == parent {
                    let evicted = places.latest.remove(lane);
                    self.forget_unneeded(&mut places, evicted.as_deref());
                }
            }
            Outcome::Cancelled => {}
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
fn after_warm_up(create: &Create<'_>, warm: &WarmUp) -> Vec<u8> {
    let body = create.upstream_body(warm.items.iter().map(|item| &**item));
    match (&warm.parent, Fields::parse(&body)) {
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
