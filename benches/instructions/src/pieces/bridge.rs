//! Making a Responses event of a chat's chunk.

use std::hint::black_box;

use tokenlag_dialect::Dialect;
use tokenlag_dialect::responses::{FromChat, ResponseHead};

use super::Rounds;
use crate::events;

/// Deltas of a response. Its text is kept: a new response now and then keeps it as short as real ones are.
const DELTAS: u64 = 500;

pub(super) fn chat() -> Rounds {
    let (_, data) = events::delta(Dialect::Chat);
    let head = ResponseHead {
        id: "resp_68f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5".into(),
        ..ResponseHead::default()
    };
    let mut translator = FromChat::new(head.clone());
    let mut deltas = 0;
    Box::new(move |rounds| {
        for _ in 0..rounds {
            deltas += 1;
            if deltas % DELTAS == 0 {
                translator = FromChat::new(head.clone());
            }
            let mut bytes = 0;
            translator.event(black_box(&data), &mut |_, event| bytes += event.len());
            assert!(bytes > 0);
        }
    })
}
