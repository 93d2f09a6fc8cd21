//! Events that are like one before: of a stream's deltas nearly all bytes are the same ones, and where only a value differs
//! that told nothing, the event means the same and need not be walked again.

use std::ops::Range;

use tokenlag_probes::DeltaKind;

use super::kinds::Kinds;
use crate::scan::{Leaves, Scanner};
use crate::sse::SseEvent;

/// The longest event that is remembered, and the longest name of one, in bytes.
const LONGEST: usize = 1024;
const LONGEST_NAME: usize = 64;

/// The last events of deltas alone that were walked, each of another form.
#[derive(Debug)]
pub(super) struct Alike {
    forms: Vec<Form>,
    /// How many are remembered.
    most: usize,
    /// Which one gives way to the next.
    oldest: usize,
    /// The values that told nothing of the event that is being walked.
    walked: Leaves,
}

/// An event that was walked, and where others of its form may differ from it.
#[derive(Debug)]
struct Form {
    name: Vec<u8>,
    /// Its data.
    text: Vec<u8>,
    kinds: Kinds,
    /// The places in the text of values that told nothing, in order.
    leaves: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    place: Range<usize>,
    /// It was another one in an earlier event: all that has always been the same is compared at once.
    differs: bool,
}

impl Alike {
    /// Remembers so many forms.
    pub(super) fn new(most: usize) -> Self {
        Self {
            forms: Vec::new(),
            most,
            oldest: 0,
            walked: Leaves::default(),
        }
    }

    /// The kinds of the event's deltas where it differs from a remembered one in nothing that tells of them.
    pub(super) fn kinds(&self, event: SseEvent<'_>) -> Option<&[DeltaKind]> {
        self.forms.iter().find_map(|form| form.kinds(event))
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
        self.walked.places.sort_unstable_by_key(|place| place.start);
        let places = &self.walked.places;
        if let Some(form) = self.forms.iter_mut().find(|it| it.is_of(event, places)) {
            return form.widen(event, places, few);
        }
        if self.forms.len() < self.most {
            self.forms.push(Form::empty());
            self.oldest = self.forms.len() - 1;
        }
        if let Some(form) = self.forms.get_mut(self.oldest) {
            form.become_that_of(event, places, few);
            self.oldest = (self.oldest + 1) % self.most;
        }
    }
}

impl Form {
    /// Of events that turn longer and shorter none allocates.
    fn empty() -> Self {
        Self {
            name: Vec::with_capacity(LONGEST_NAME),
            text: Vec::with_capacity(LONGEST),
            kinds: Kinds::default(),
            leaves: Vec::with_capacity(Leaves::MOST),
        }
    }

    fn kinds(&self, event: SseEvent<'_>) -> Option<&[DeltaKind]> {
        if event.name != self.name {
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

    /// The event is this one but for its values, which lie at these `places`.
    fn is_of(&self, event: SseEvent<'_>, places: &[Range<usize>]) -> bool {
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

    /// Takes in another event of this form.
    fn widen(&mut self, event: SseEvent<'_>, places: &[Range<usize>], kinds: Kinds) {
        for (leaf, place) in self.leaves.iter_mut().zip(places) {
            leaf.differs |= self.text[leaf.place.clone()] != event.data[place.clone()];
            leaf.place = place.clone();
        }
        self.text.clear();
        self.text.extend_from_slice(event.data);
        self.kinds = kinds;
    }

    /// Forgets what it was.
    fn become_that_of(&mut self, event: SseEvent<'_>, places: &[Range<usize>], kinds: Kinds) {
        self.leaves.clear();
        self.leaves.extend(places.iter().map(|place| Leaf {
            place: place.clone(),
            differs: false,
        }));
        self.name.clear();
        self.name.extend_from_slice(event.name);
        self.text.clear();
        self.text.extend_from_slice(event.data);
        self.kinds = kinds;
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
            let mut remembering = Decoder::for_replies(FORMS[dialect].0, Framing::Messages);
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
                // Each event is another reply's.
                remembering.reset();
                prop_assert_eq!(told(&mut remembering, &event).0, &wanted.0[..], "{}", String::from_utf8_lossy(&event));
                prop_assert_eq!(remembering.terminal(), fresh.terminal());
                prop_assert_eq!(remembering.usage(), fresh.usage());
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

    #[test]
    fn the_events_of_a_reply_are_known_from_the_reply_before() {
        let mut decoder = Decoder::for_replies(Dialect::Chat, Framing::Messages);
        let reply = |id: u32| {
            [
                r#"{"role":"assistant","content":""}"#,
                r#"{"content":"a"}"#,
                "{}",
            ]
            .map(|delta| format!(r#"{{"id":{id},"choices":[{{"index":0,"delta":{delta}}}]}}"#))
        };
        for id in 1..5 {
            for event in reply(id) {
                let bare = crate::sse::SseEvent::bare(event.as_bytes());
                let known = decoder.state.alike.kinds(bare).is_some();
                assert_eq!(known, id > 2, "the first two tell what differs: {event}");
                let deltas = usize::from(event.contains("\"a\""));
                assert_eq!(told(&mut decoder, event.as_bytes()).0.len(), deltas);
            }
            decoder.reset();
        }
    }
}
