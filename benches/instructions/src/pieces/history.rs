//! Keeping a turn of a conversation that goes on from the one before.

use serde_json::value::RawValue;
use tokenlag_dialect::{ConversationStore, Limits};

use super::Rounds;

/// Turns of a conversation.
const TURNS: u64 = 64;

/// So few responses are kept that the oldest is forgotten with each that comes, as in a store that has run for long.
const KEPT: usize = 512;

pub(super) fn append() -> Rounds {
    let mut store = ConversationStore::new(Limits {
        responses: KEPT,
        bytes: 64 * 1024 * 1024,
    });
    let item = |role: &str, kind: &str, text: &str| {
        let json = format!(
            r#"{{"type":"message","role":"{role}","content":[{{"type":"{kind}","text":"{text}"}}]}}"#
        );
        RawValue::from_string(json).expect("it is JSON")
    };
    let asked = item("user", "input_text", &"a question ".repeat(20));
    let said = item("assistant", "output_text", &"an answer ".repeat(100));
    let mut turn = 0;
    let mut append = move || {
        let id = format!("resp_{turn:032x}");
        let parent = (turn % TURNS > 0).then(|| format!("resp_{:032x}", turn - 1));
        let kept = store.insert(&id, parent.as_deref(), vec![asked.clone(), said.clone()]);
        assert!(kept);
        turn += 1;
    };
    for _ in 0..KEPT {
        append();
    }
    Box::new(move |rounds| {
        for _ in 0..rounds {
            append();
        }
    })
}
