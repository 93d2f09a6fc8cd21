//! The conversation store: shared prefixes, limits, and chains too long to recurse over.

use proptest::prelude::*;
use serde_json::value::RawValue;
use tokenlag_dialect::{ConversationStore, Limits};

fn item(text: &str) -> Box<RawValue> {
    RawValue::from_string(format!("\"{text}\"")).unwrap()
}

fn store(responses: usize, bytes: usize) -> ConversationStore {
    ConversationStore::new(Limits { responses, bytes })
}

/// The history as one text: items without their quotes, joined.
fn history(store: &ConversationStore, id: &str) -> Option<String> {
    Some(
        store
            .history(id)?
            .map(|item| item.get().trim_matches('"'))
            .collect(),
    )
}

#[test]
fn branches_share_their_prefix() {
    let mut store = store(10, 1 << 20);
    assert!(store.insert("1", None, vec![item("a"), item("b")]));
    let first = store.bytes();
    assert!(store.insert("2", Some("1"), vec![item("c")]));
    assert!(store.insert("3", Some("1"), vec![]));
    assert!(store.insert("4", Some("3"), vec![item("d")]));
    assert_eq!(history(&store, "1").unwrap(), "ab");
    assert_eq!(history(&store, "2").unwrap(), "abc");
    assert_eq!(history(&store, "4").unwrap(), "abd");
    assert_eq!(history(&store, "5"), None);

    // What is built upon outlives its name, and its bytes count until nothing builds on it.
    assert!(store.remove("1"));
    assert!(!store.remove("1"));
    assert_eq!(
        (history(&store, "1"), history(&store, "4").unwrap()),
        (None, "abd".into())
    );
    let before = store.bytes();
    assert!(store.remove("2"));
    assert!(store.remove("3"));
    assert!(store.bytes() < before && store.bytes() > first);
    assert!(store.remove("4"));
    assert_eq!((store.bytes(), store.len(), store.is_empty()), (0, 0, true));
}

#[test]
fn an_unknown_parent_is_refused() {
    let mut store = store(10, 1 << 20);
    assert!(!store.insert("2", Some("1"), vec![item("a")]));
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[test]
fn the_response_unused_for_longest_goes_first() {
    let mut store = store(3, 1 << 20);
    for id in ["1", "2", "3"] {
        store.insert(id, None, vec![item(id)]);
    }
    store.touch("1");
    store.insert("4", Some("2"), vec![item("4")]);
    assert!(!store.contains("3"));
    assert!(store.contains("1") && store.contains("2"));
    store.insert("5", None, vec![]);
    assert!(!store.contains("1"));
    assert_eq!(history(&store, "4").unwrap(), "24");
}

#[test]
fn bytes_are_bounded() {
    let mut store = store(1_000, 10_000);
    for id in 0..100 {
        assert!(store.insert(&id.to_string(), None, vec![item(&"x".repeat(1_000))]));
        assert!(store.bytes() <= 10_000);
    }
    assert!((5..10).contains(&store.len()), "{}", store.len());
    assert!(store.contains("99"));
    // A conversation that alone is too large drives nothing else out.
    let before = store.len();
    assert!(!store.insert("large", None, vec![item(&"x".repeat(20_000))]));
    assert!(!store.insert("long", Some("99"), vec![item(&"x".repeat(9_000))]));
    assert_eq!(store.len(), before);
}

#[test]
fn a_store_without_room_keeps_nothing() {
    let mut store = store(0, 1 << 20);
    assert!(!store.insert("1", None, vec![]));
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[test]
fn a_response_can_be_replaced_even_by_its_own_child() {
    let mut store = store(10, 1 << 20);
    store.insert("1", None, vec![item("a")]);
    store.insert("1", Some("1"), vec![item("b")]);
    assert_eq!(
        (history(&store, "1").unwrap(), store.len()),
        ("ab".into(), 1)
    );
    store.insert("1", None, vec![item("c")]);
    assert_eq!(history(&store, "1").unwrap(), "c");
    store.remove("1");
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_chain_of_100_000_turns_is_dropped_without_recursion() {
    let build = || {
        let mut store = store(2, 1 << 30);
        store.insert("0", None, vec![item("a")]);
        for turn in 1..100_000 {
            let (parent, id) = ((turn - 1).to_string(), turn.to_string());
            assert!(store.insert(&id, Some(&parent), vec![item("a")]));
        }
        store
    };
    let mut removed = build();
    assert_eq!(removed.history("99999").unwrap().count(), 100_000);
    removed.remove("99998");
    removed.remove("99999");
    assert_eq!(removed.bytes(), 0);
    drop(build());
}

#[test]
fn other_items_than_json_can_be_kept() {
    let mut store = ConversationStore::new(Limits {
        responses: 5,
        bytes: 10_000,
    });
    store.insert("1", None, vec![vec![1u32, 2]]);
    store.insert("2", Some("1"), vec![vec![3], vec![]]);
    let tokens: Vec<u32> = store.history("2").unwrap().flatten().copied().collect();
    assert_eq!(tokens, [1, 2, 3]);
}

proptest! {
    /// Against a model that keeps whole histories: every response that is still known has its own.
    #[test]
    fn histories_are_right_whatever_is_forgotten(
        steps in prop::collection::vec((0..20u8, prop::option::of(0..20u8), any::<bool>()), 1..80),
        responses in 1..8usize,
    ) {
        let mut store = store(responses, 4_000);
        let mut model = std::collections::HashMap::<String, String>::new();
        for (step, (id, parent, remove)) in steps.into_iter().enumerate() {
            let (id, parent) = (id.to_string(), parent.map(|parent| parent.to_string()));
            if remove {
                store.remove(&id);
                continue;
            }
            let prefix = parent.as_ref().map_or(Some(String::new()), |parent| history(&store, parent));
            let text = format!("{step},");
            if store.insert(&id, parent.as_deref(), vec![item(&text)]) {
                model.insert(id, prefix.unwrap() + &text);
            }
            prop_assert!(store.len() <= responses && store.bytes() <= 4_000);
            for (id, want) in &model {
                if let Some(found) = history(&store, id) {
                    prop_assert_eq!(&found, want);
                }
            }
        }
        for id in 0..20 {
            store.remove(&id.to_string());
        }
        prop_assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}

#[test]
fn a_store_can_be_shared_by_threads() {
    let shared = std::sync::Mutex::new(store(10, 1 << 20));
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let shared = &shared;
            scope.spawn(move || {
                assert!(shared.lock().unwrap().insert(name, None, vec![item(name)]));
            });
        }
    });
    let store = shared.into_inner().unwrap();
    assert_eq!(history(&store, "a").as_deref(), Some("a"));
    assert_eq!(history(&store, "b").as_deref(), Some("b"));
}
