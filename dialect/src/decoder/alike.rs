//! Events that are like the one before: of a stream's deltas nearly all bytes are the same ones, and where only a value differs
//! that told nothing, the event means the same and need not be walked again.

use std::ops::Range;

use tokenlag_probes::DeltaKind;

use super::kinds::Kinds;
use crate::scan::{Leaves, Scanner};
use crate::sse::SseEvent;

/// The longest event that is remembered, and the longest name of one, in bytes.
const LONGEST: usize = 1024;
const LONGEST_NAME: usize = 64;

/// The last event of deltas alone that was walked, and where later ones may differ from it.
#[derive(Debug, Default)]
pub(super) struct Alike {
    name: Vec<u8>,
    /// Its data; empty where there is none to compare with.
    text: Vec<u8>,
    kinds: Kinds,
    /// The places in the text of values that told nothing, in order.
    leaves: Vec<Leaf>,
    /// Those of the event that is being walked.
    walked: Leaves,
}

#[derive(Debug)]
struct Leaf {
    place: Range<usize>,
    /// It was another one in an earlier event: all that has always been the same is compared at once.
    differs: bool,
}

impl Alike {
    /// The kinds of the event's deltas where it differs from the remembered one in nothing that tells of them.
    pub(super) fn kinds(&self, event: SseEvent<'_>) -> Option<&[DeltaKind]> {
        if self.text.is_empty() || event.name != self.name {
            return None;
        }
        let (mut compared, mut rest) = (0, event.data);
        for leaf in self.leaves.iter().filter(|leaf| leaf.differs) {
            let before = &self.text[compared..leaf.place.start];
            rest = rest.strip_prefix(before)?;
            // A string's place begins after its quote.
            rest = match before {
                [.., b'"'] => Scanner::after_string(rest)?,
                _ => Scanner::after_number(rest)?,
            };
            compared = leaf.place.end;
        }
        (rest == &self.text[compared..]).then_some(self.kinds.as_slice())
    }

    /// Where the reader of the next event puts what told it nothing.
    pub(super) fn leaves(&mut self) -> &mut Leaves {
        self.walked.clear();
        &mut self.walked
    }

    /// Remembers the event that was walked. All that its reader made of it are these `kinds`.
    pub(super) fn learn(&mut self, event: SseEvent<'_>, kinds: &Kinds) {
        let is_short = event.data.len() <= LONGEST && event.name.len() <= LONGEST_NAME;
        let Some(few) = kinds.few().filter(|_| is_short && !self.walked.incomplete) else {
            return;
        };
        if self.text.capacity() == 0 {
            // Of events that turn longer and shorter none allocates.
            self.name.reserve_exact(LONGEST_NAME);
            self.text.reserve_exact(LONGEST);
            self.leaves.reserve_exact(Leaves::MOST);
        }
        self.walked.places.sort_unstable_by_key(|place| place.start);
        let places = self.walked.places.iter().cloned();
        if self.has_form(event) {
            for (leaf, place) in self.leaves.iter_mut().zip(places) {
                leaf.differs |= self.text[leaf.place.clone()] != event.data[place.clone()];
                leaf.place = place;
            }
        } else {
            self.leaves.clear();
            self.leaves.extend(places.map(|place| Leaf {
                place,
                differs: false,
            }));
        }
        self.name.clear();
        self.name.extend_from_slice(event.name);
        self.text.clear();
        self.text.extend_from_slice(event.data);
        self.kinds = few;
    }

    /// The event that was walked is the remembered one but for its values.
    fn has_form(&self, event: SseEvent<'_>) -> bool {
        let places = &self.walked.places;
        if event.name != self.name || places.len() != self.leaves.len() {
            return false;
        }
        let (mut old, mut new) = (0, 0);
        for (leaf, place) in self.leaves.iter().zip(places) {
            if self.text[old..leaf.place.start] != event.data[new..place.start] {
                return false;
            }
            (old, new) = (leaf.place.end, place.end);
        }
        self.text[old..] == event.data[new..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenlag_probes::{Stamp, TokenMark};

    use super::super::Decoder;
    use crate::dialect::{Dialect, Framing};

    /// Events with a `$` where any value may come.
    const FORMS: [(Dialect, &[&str]); 5] = [
        (
            Dialect::Chat,
            &[
                r#"{"id":$,"created":$,"choices":[{"index":$,"delta":{"content":$},"logprobs":$,"finish_reason":$}]}"#,
                r#"{"id":$,"choices":[{"delta":{"reasoning_content":$,"tool_calls":[{"function":{"arguments":$}}]}}]}"#,
                r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":$}}],"usage":$,"timings":$}"#,
                r#"{"error":$,"choices":[]}"#,
            ],
        ),
        (
            Dialect::Completions,
            &[
                r#"{"id":$,"choices":[{"text":$,"index":$}],"usage":$}"#,
                r#"{"choices":$}"#,
            ],
        ),
        (
            Dialect::Responses,
            &[
                r#"{"type":"response.output_text.delta","sequence_number":$,"delta":$,"obfuscation":$}"#,
                r#"{"type":$,"delta":$}"#,
                r#"{"delta":$,"response":$,"delta":$}"#,
            ],
        ),
        (
            Dialect::Anthropic,
            &[
                r#"{"type":"content_block_delta","index":$,"delta":{"type":"text_delta","text":$},"x":$}"#,
                r#"{"x":$,"delta":{"type":"input_json_delta","partial_json":$,"y":$},"type":"content_block_delta"}"#,
                r#"{"type":"message_delta","delta":$,"usage":{"cache_read_input_tokens":$,"output_tokens":$}}"#,
                r#"{"type":"content_block_delta","delta":$}"#,
            ],
        ),
        (
            Dialect::Ollama,
            &[
                r#"{"model":$,"created_at":$,"message":{"role":"assistant","content":$},"done":false}"#,
                r#"{"response":$,"thinking":$,"done":$,"eval_count":$}"#,
                r#"{"message":{"tool_calls":[{"function":$}]},"done":false}"#,
            ],
        ),
    ];

    /// Values, and what is none. The first are the likeliest.
    const VALUES: [&str; 24] = [
        "\"a\"",
        "\"text of more than eight bytes\"",
        "1",
        "-1.5e3",
        "\"\"",
        "null",
        "\"\\\"\\u00e9\"",
        "\"é\"",
        "0",
        "12",
        "[]",
        "{}",
        "true",
        "false",
        "{\"a\":1}",
        "[\"b\",2]",
        "{\"arguments\":\"c\"}",
        "\"text_delta\"",
        "\"\\x\"",
        "\"",
        "01",
        "-",
        "",
        "\"a\",\"k\":\"b\"",
    ];

    fn event(dialect: usize, (form, values): (usize, [usize; 7])) -> Vec<u8> {
        let forms = FORMS[dialect].1;
        let mut values = values.into_iter();
        let mut event = String::new();
        for part in forms[form % forms.len()].split_inclusive('$') {
            match part.strip_suffix('$') {
                Some(text) => {
                    event.push_str(text);
                    event.push_str(VALUES[values.next().unwrap_or(0)]);
                }
                None => event.push_str(part),
            }
        }
        event.into_bytes()
    }

    /// What a decoder makes of an event, and whether it could read it.
    fn told(decoder: &mut Decoder, event: &[u8]) -> (Vec<TokenMark>, u64) {
        let unreadable = decoder.unreadable();
        let mut marks = Vec::new();
        decoder
            .feed(Stamp::default(), 0, event, &mut marks)
            .unwrap();
        (marks, decoder.unreadable() - unreadable)
    }

    proptest! {
        #[test]
        fn what_was_learned_changes_no_reading(
            dialect in 0..FORMS.len(),
            events in prop::collection::vec((prop_oneof![4 => 0..1usize, 1 => 0..4usize], any::<[prop::sample::Index; 7]>()), 2..16),
        ) {
            let mut learning = Decoder::new(FORMS[dialect].0, Framing::Messages);
            for (form, values) in events {
                // Half of all values are among the first four.
                let values = values.map(|value| match value.index(2) {
                    0 => value.index(VALUES.len() * 2) / 2,
                    _ => value.index(4 * 7) / 7,
                });
                let event = event(dialect, (form, values));
                if learning.terminal().is_some() {
                    break;
                }
                // What is known of usage comes from all events; what one event tells is what a new decoder makes of it.
                let mut fresh = Decoder::new(FORMS[dialect].0, Framing::Messages);
                let wanted = told(&mut fresh, &event);
                prop_assert_eq!(told(&mut learning, &event), wanted, "{}", String::from_utf8_lossy(&event));
                prop_assert_eq!(learning.terminal(), fresh.terminal());
                if let Some(usage) = fresh.usage()
                    && FORMS[dialect].0 != Dialect::Anthropic
                {
                    prop_assert_eq!(learning.usage().map(|usage| usage.output), Some(usage.output));
                }
            }
        }
    }

    #[test]
    fn an_event_that_differs_in_what_told_nothing_is_not_walked_again() {
        let mut decoder = Decoder::new(Dialect::Chat, Framing::Messages);
        let chunk = |id: u32, content: &str| {
            format!(
                r#"{{"id":{id},"choices":[{{"delta":{{"content":"{content}"}},"finish_reason":null}}]}}"#
            )
        };
        let mut known = |event: &str| {
            let bare = crate::sse::SseEvent::bare(event.as_bytes());
            let known = decoder.state.alike.kinds(bare).is_some();
            assert_eq!(told(&mut decoder, event.as_bytes()).0.len(), 1, "{event}");
            known
        };
        assert!(!known(&chunk(1, "a")));
        assert!(!known(&chunk(1, "b")), "that contents differ is new");
        assert!(known(&chunk(1, "c\\n")));
        assert!(!known(&chunk(2, "d")), "so is another id");
        assert!(known(&chunk(34, "e")));
        assert!(!known(&chunk(34, "f").replace("null", "\"stop\"")));
        assert!(!known(&chunk(34, &"long ".repeat(super::LONGEST / 5))));
    }
}
