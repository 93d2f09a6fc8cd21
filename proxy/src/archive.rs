//! Finished responses that the whole proxy remembers, bounded: shared by its threads and by every channel, each client's
//! kept apart from the others'.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokenlag_dialect::conversation::Weigh;
use tokenlag_dialect::{ConversationStore, Limits};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a turn waits for the one that it names, where that one's reply has begun and is not kept yet.
const SETTLING: Duration = Duration::from_secs(1);

/// One item of a conversation, as raw JSON. Stores that hold the same turn share it.
pub(crate) type Item = Arc<RawValue>;

/// An item in a store.
#[derive(Debug)]
pub(crate) struct Kept(Item);

impl Deref for Kept {
    type Target = Item;

    fn deref(&self) -> &Item {
        &self.0
    }
}

impl Weigh for Kept {
    fn weigh(&self) -> usize {
        size_of::<Self>() + self.0.get().len()
    }
}

/// Whose conversations: one client's cannot be gone on from by another. Made of the credentials without keeping them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope(u64);

/// Fields by which a client says who it is.
pub(crate) const CREDENTIALS: [&[u8]; 5] = [
    b"authorization",
    b"api-key",
    b"x-api-key",
    b"openai-organization",
    b"openai-project",
];

/// The store.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Keyed by chance, so that nobody can look for credentials of the same hash.
    hashes: RandomState,
    /// Ids that were given.
    ids: AtomicU64,
    shelves: Mutex<Shelves>,
}

#[derive(Debug)]
struct Shelves {
    store: ConversationStore<Kept>,
    /// Responses that were forgotten to make room.
    evicted: u64,
    /// Replies that have begun and are not kept yet.
    begun: HashMap<String, watch::Sender<()>>,
}

/// What the archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) responses: usize,
    pub(crate) bytes: usize,
    pub(crate) evicted: u64,
}

/// What is kept of one turn.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The response's id.
    pub(crate) id: &'a str,
    /// The response that it went on from.
    pub(crate) parent: Option<&'a str>,
    /// All that was before this turn: needed where the parent was forgotten meanwhile.
    pub(crate) history: Vec<Item>,
    /// The turn's input and output.
    pub(crate) items: Vec<Item>,
}

impl Archive {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            hashes: RandomState::new(),
            ids: AtomicU64::new(0),
            shelves: Mutex::new(Shelves {
                store: ConversationStore::new(limits),
                evicted: 0,
                begun: HashMap::new(),
            }),
        }
    }

    /// An id that no other response has, of this life of the proxy or another, and that nobody can guess.
    pub(crate) fn new_id(&self) -> String {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let half = |which: u8| self.hashes.hash_one((number, which));
        format!("resp_{:016x}{:016x}", half(0), half(1))
    }

    /// Whose request it is that has these fields.
    pub(crate) fn scope<'a>(&self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Scope {
        let mut given: Vec<_> = fields
            .filter_map(|(name, value)| {
                let mut known = CREDENTIALS.iter();
                let which = known.position(|known| name.eq_ignore_ascii_case(known))?;
                Some((which, value))
            })
            .collect();
        // A client is the same in whatever order it says who it is.
        given.sort_unstable();
        let mut hasher = self.hashes.build_hasher();
        for (which, value) in given {
            hasher.write_usize(which);
            hasher.write(value);
            hasher.write_u8(0xff);
        }
        Scope(hasher.finish())
    }

    /// The whole conversation up to a response; `None` where it is not known (any more). Where that response is only about
    /// to be kept, waits for it: a client may be quicker than the keeping, which is done after its last byte was written.
    pub(crate) async fn history(&self, scope: Scope, id: &str) -> Option<Vec<Item>> {
        let key = scope.key(id);
        let mut begun = match self.look_up(&key) {
            Ok(history) => return Some(history),
            Err(begun) => begun?,
        };
        // The sender is dropped when the turn is kept, or is none that will be.
        let _ = timeout(SETTLING, begun.changed()).await;
        self.look_up(&key).ok()
    }

    fn look_up(&self, key: &str) -> Result<Vec<Item>, Option<watch::Receiver<()>>> {
        let mut shelves = self.shelves();
        shelves.store.touch(key);
        match shelves.store.turns(key) {
            Some(items) => Ok(items),
            None => Err(shelves.begun.get(key).map(watch::Sender::subscribe)),
        }
    }

    /// Keeps a turn.
    pub(crate) fn keep(&self, scope: Scope, entry: Entry<'_>) {
        let key = scope.key(entry.id);
        let parent = entry.parent.map(|parent| scope.key(parent));
        let mut shelves = self.shelves();
        let known = shelves.store.contains(&key);
        let before = shelves.store.len() + usize::from(!known);
        let kept = shelves.store.keep(&key, parent.as_deref(), entry);
        let expected = if kept {
            before
        } else {
            before - usize::from(!known)
        };
        shelves.evicted += expected.saturating_sub(shelves.store.len()) as u64;
    }

    /// Says that a reply of this id has begun; it is taken for one that will be kept until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, scope: Scope, id: &str) -> Begun {
        let key = scope.key(id);
        let (sender, _) = watch::channel(());
        self.shelves().begun.insert(key.clone(), sender);
        Begun {
            archive: Arc::clone(self),
            key,
        }
    }

    pub(crate) fn holdings(&self) -> Holdings {
        let shelves = self.shelves();
        Holdings {
            responses: shelves.store.len(),
            bytes: shelves.store.bytes(),
            evicted: shelves.evicted,
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // A thread that panicked while it held the lock left whole turns behind.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scope {
    fn key(self, id: &str) -> String {
        format!("{:016x} {id}", self.0)
    }
}

/// A reply that has begun and is not kept yet.
#[derive(Debug)]
pub(crate) struct Begun {
    archive: Arc<Archive>,
    key: String,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.archive.shelves().begun.remove(&self.key);
    }
}

/// What both of the proxy's stores do.
pub(crate) trait Turns {
    /// All items up to a response, oldest first.
    fn turns(&self, id: &str) -> Option<Vec<Item>>;

    /// Keeps a turn under `id`; where its parent is not there, with all that was before it. `false` where it is too large.
    fn keep(&mut self, id: &str, parent: Option<&str>, entry: Entry<'_>) -> bool;
}

impl Turns for ConversationStore<Kept> {
    fn turns(&self, id: &str) -> Option<Vec<Item>> {
        Some(self.history(id)?.cloned().collect())
    }

    fn keep(&mut self, id: &str, parent: Option<&str>, entry: Entry<'_>) -> bool {
        let parent = parent.filter(|parent| self.contains(parent));
        // What the parent holds is not held twice.
        let before = match parent {
            Some(_) => Vec::new(),
            None => entry.history,
        };
        let items = before.into_iter().chain(entry.items).map(Kept);
        self.insert(id, parent, items.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        responses: 10,
        bytes: 1 << 20,
    };

    fn entry(id: &str) -> Entry<'_> {
        let item = RawValue::from_string(r#"{"x":1}"#.to_owned()).unwrap();
        Entry {
            id,
            parent: None,
            history: Vec::new(),
            items: vec![item.into()],
        }
    }

    fn scope(archive: &Archive, key: &str) -> Scope {
        archive.scope([(&b"Authorization"[..], key.as_bytes())].into_iter())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_turn_that_is_about_to_be_kept_is_waited_for() {
        let archive = Arc::new(Archive::new(LIMITS));
        let mine = scope(&archive, "me");
        let begun = archive.begin(mine, "resp_1");
        let look = archive.history(mine, "resp_1");
        let keep = async {
            tokio::task::yield_now().await;
            archive.keep(mine, entry("resp_1"));
            drop(begun);
        };
        let (found, ()) = tokio::join!(look, keep);
        assert_eq!(found.unwrap().len(), 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_turn_that_is_not_kept_after_all_is_unknown() {
        let archive = Arc::new(Archive::new(LIMITS));
        let mine = scope(&archive, "me");
        let begun = archive.begin(mine, "resp_1");
        let give_up = async { drop(begun) };
        let (found, ()) = tokio::join!(archive.history(mine, "resp_1"), give_up);
        assert!(found.is_none());
        assert!(archive.shelves().begun.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_client_has_its_own() {
        let archive = Archive::new(LIMITS);
        let (mine, yours) = (scope(&archive, "me"), scope(&archive, "you"));
        assert_ne!(mine, yours);
        assert_eq!(mine, scope(&archive, "me"));
        archive.keep(mine, entry("resp_1"));
        assert!(archive.history(mine, "resp_1").await.is_some());
        assert!(archive.history(yours, "resp_1").await.is_none());
    }
}
