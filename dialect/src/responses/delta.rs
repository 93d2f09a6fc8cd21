//! The compact form of `response.output_text.delta`: its few values without the JSON around them.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::json::is_object;

/// The whole of one `response.output_text.delta` event, for a channel that sends values and not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDelta<'a> {
    /// The output item that the text belongs to.
    pub item_id: Cow<'a, str>,
    /// Which output item of the response, from 0.
    pub output_index: u32,
    /// Which content part of the item, from 0.
    pub content_index: u32,
    /// The event's ordinal in the stream.
    pub sequence_number: u64,
    /// The text.
    pub delta: Cow<'a, str>,
    /// The event has an empty `logprobs` array.
    pub logprobs: bool,
}

impl<'a> TextDelta<'a> {
    /// Reads an event. `None` if it is of another type, lacks a member, or has any other member (log probabilities,
    /// padding, a lane), so that writing what was read gives the same members and values: nothing is ever lost.
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Event<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            item_id: Cow<'a, str>,
            output_index: u32,
            content_index: u32,
            sequence_number: u64,
            #[serde(borrow)]
            delta: Cow<'a, str>,
            #[serde(default, deserialize_with = "present")]
            logprobs: Option<Vec<IgnoredAny>>,
        }

        if !is_object(json) {
            return None;
        }
        let event: Event<'a> = serde_json::from_slice(json).ok()?;
        let logprobs = match event.logprobs {
            None => false,
            Some(list) if list.is_empty() => true,
            Some(_) => return None,
        };
        (event.kind == EVENT).then_some(Self {
            item_id: event.item_id,
            output_index: event.output_index,
            content_index: event.content_index,
            sequence_number: event.sequence_number,
            delta: event.delta,
            logprobs,
        })
    }

    /// Appends the event's JSON: the same members and values, in OpenAI's order.
    pub fn write(&self, out: &mut Vec<u8>) {
        use std::io::Write;

        out.extend_from_slice(b"{\"type\":\"response.output_text.delta\",\"item_id\":");
        crate::json::write(out, &*self.item_id);
        write!(
            out,
            ",\"output_index\":{},\"content_index\":{},\"delta\":",
            self.output_index, self.content_index
        )
        .expect("a Vec takes every byte");
        crate::json::write(out, &*self.delta);
        if self.logprobs {
            out.extend_from_slice(b",\"logprobs\":[]");
        }
        write!(out, ",\"sequence_number\":{}}}", self.sequence_number)
            .expect("a Vec takes every byte");
    }
}

/// The type of the event.
pub(super) const EVENT: &str = "response.output_text.delta";

/// A member that may be missing, yet not null: null is not an empty array.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<IgnoredAny>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}
