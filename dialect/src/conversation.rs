//! What a server remembers of its responses, bounded: chains of turns that share their prefixes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::value::RawValue;

/// How much a [`ConversationStore`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Responses that can be named.
    pub responses: usize,
    /// Bytes of all their items, shared ones counted once.
    pub bytes: usize,
}

/// Something whose memory is accounted for.
pub trait Weigh {
    /// Bytes of memory, about.
    fn weigh(&self) -> usize;
}

impl Weigh for Box<RawValue> {
    fn weigh(&self) -> usize {
        size_of::<Self>() + self.get().len()
    }
}

impl<T> Weigh for Vec<T> {
    fn weigh(&self) -> usize {
        size_of::<Self>() + self.len() * size_of::<T>()
    }
}

/// Responses by id, each with the items of its turn and a link to the response that it went on from.
///
/// Conversations that branch share what they have in common. When a limit is passed, the response whose last use is
/// longest ago is forgotten; its items live on as long as a response that builds on them does. Items are raw JSON
/// unless a server keeps something else (token ids, say).
#[derive(Debug)]
pub struct ConversationStore<T = Box<RawValue>> {
    limits: Limits,
    responses: HashMap<Arc<str>, Entry<T>>,
    /// Ids by the tick of their last use: the first is the next to go.
    by_use: BTreeMap<u64, Arc<str>>,
    tick: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    turn: Arc<Turn<T>>,
    used: u64,
}

/// One turn's items, and the turn before it.
#[derive(Debug)]
struct Turn<T> {
    parent: Option<Arc<Turn<T>>>,
    items: Vec<T>,
    /// Of this turn.
    bytes: usize,
    /// Of this turn and all before it.
    chain_bytes: usize,
}

/// Bytes that a turn costs beside its items: the nodes and the id in two maps.
const TURN_OVERHEAD: usize = 160;

impl<T: Weigh> ConversationStore<T> {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            responses: HashMap::new(),
            by_use: BTreeMap::new(),
            tick: 0,
            bytes: 0,
        }
    }

    /// Keeps a response: `items` are its turn's input and output, `parent` the response that it went on from. A
    /// response of the same id is replaced. `false` where it was not kept: the parent is not known (any more), or the
    /// conversation alone is larger than the limit of bytes.
    pub fn insert(&mut self, id: &str, parent: Option<&str>, items: Vec<T>) -> bool {
        let parent = match parent {
            None => None,
            Some(parent) => {
                let Some(entry) = self.responses.get(parent) else {
                    return false;
                };
                let turn = entry.turn.clone();
                self.touch(parent);
                Some(turn)
            }
        };
        let bytes = TURN_OVERHEAD + id.len() + items.iter().map(Weigh::weigh).sum::<usize>();
        let chain_bytes = bytes + parent.as_ref().map_or(0, |turn| turn.chain_bytes);
        if chain_bytes > self.limits.bytes || self.limits.responses == 0 {
            self.release(parent);
            return false;
        }
        self.remove(id);
        let turn = Turn {
            parent,
            items,
            bytes,
            chain_bytes,
        };
        let id: Arc<str> = id.into();
        self.tick += 1;
        self.by_use.insert(self.tick, id.clone());
        let entry = Entry {
            turn: Arc::new(turn),
            used: self.tick,
        };
        self.responses.insert(id, entry);
        self.bytes += bytes;
        self.make_room();
        true
    }

    /// The items of the whole conversation up to and with this response, oldest first. `None` where it is not known.
    pub fn history(&self, id: &str) -> Option<History<'_, T>> {
        let mut turns = Vec::new();
        let mut next = Some(&self.responses.get(id)?.turn);
        while let Some(turn) = next {
            turns.push(turn.items.iter());
            next = turn.parent.as_ref();
        }
        Some(History { turns })
    }

    /// The response is known.
    pub fn contains(&self, id: &str) -> bool {
        self.responses.contains_key(id)
    }

    /// Marks a response as just used, so that others go before it. Naming it as a parent does the same.
    pub fn touch(&mut self, id: &str) {
        if let Some(entry) = self.responses.get_mut(id)
            && let Some(key) = self.by_use.remove(&entry.used)
        {
            self.tick += 1;
            entry.used = self.tick;
            self.by_use.insert(self.tick, key);
        }
    }

    /// Forgets a response; `true` where it was known. What others build on lives on in them.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.responses.remove(id) else {
            return false;
        };
        self.by_use.remove(&entry.used);
        self.release(Some(entry.turn));
        true
    }

    /// Responses that can be named.
    pub fn len(&self) -> usize {
        self.responses.len()
    }

    /// No response can be named.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// Bytes that the responses take, shared turns counted once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn make_room(&mut self) {
        while self.responses.len() > self.limits.responses || self.bytes > self.limits.bytes {
            let Some((_, id)) = self.by_use.first_key_value() else {
                return;
            };
            let id = id.clone();
            self.remove(&id);
        }
    }

    /// Lets go of a turn, and of those before it that nothing else holds: in a loop, since a chain may be 100,000 long.
    fn release(&mut self, mut turn: Option<Arc<Turn<T>>>) {
        while let Some(mut last) = turn.and_then(Arc::into_inner) {
            self.bytes -= last.bytes;
            turn = last.parent.take();
        }
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        // The derived drop would recurse once for each turn of the chain.
        let mut next = self.parent.take();
        while let Some(mut turn) = next.and_then(Arc::into_inner) {
            next = turn.parent.take();
        }
    }
}

/// The items of a conversation, oldest first.
#[derive(Clone, Debug)]
pub struct History<'a, T> {
    /// Newest turn first.
    turns: Vec<std::slice::Iter<'a, T>>,
}

impl<'a, T: Deref> Iterator for History<'a, T> {
    type Item = &'a T::Target;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.turns.last_mut()?.next() {
                Some(item) => return Some(item),
                None => self.turns.pop(),
            };
        }
    }
}
