//! Reading the event of one delta for its meaning.

use std::hint::black_box;

use tokenlag_dialect::{Decoder, Dialect};
use tokenlag_probes::Stamp;

use super::Rounds;
use crate::events;

pub(super) fn responses() -> Rounds {
    of(Dialect::Responses)
}

pub(super) fn chat() -> Rounds {
    of(Dialect::Chat)
}

pub(super) fn completions() -> Rounds {
    of(Dialect::Completions)
}

pub(super) fn anthropic() -> Rounds {
    of(Dialect::Anthropic)
}

pub(super) fn ollama() -> Rounds {
    of(Dialect::Ollama)
}

fn of(dialect: Dialect) -> Rounds {
    let events = events::wires(dialect);
    let mut next = 0;
    let mut decoder = Decoder::new(dialect, dialect.framing());
    let mut marks = Vec::with_capacity(16);
    Box::new(move |rounds| {
        for _ in 0..rounds {
            marks.clear();
            next = 1 - next;
            let fed = decoder.feed(Stamp::default(), 0, black_box(&events[next]), &mut marks);
            assert!(fed.is_ok() && marks.len() == 1);
        }
    })
}
