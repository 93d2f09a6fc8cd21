//! Writes the events of a Responses stream one by one: their numbers, and the members of each.

use std::io::Write;

use serde::Serialize;

use super::delta::TextDelta;
use super::head::Response;
use super::items::{Item, Part};
use crate::json::write;

/// Takes one event: its name (an SSE `event:` field) and its JSON.
pub type Sink<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// The number of the next event, and the buffer that all are written in.
#[derive(Debug, Default)]
pub(super) struct Writer {
    sequence_number: u64,
    buffer: Vec<u8>,
}

#[derive(Serialize)]
pub(super) struct OfResponse<'a> {
    pub(super) response: Response<'a>,
}

#[derive(Serialize)]
pub(super) struct OfItem<'a> {
    pub(super) output_index: usize,
    pub(super) item: Item<'a>,
}

#[derive(Serialize)]
pub(super) struct OfPart<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: usize,
    pub(super) content_index: u32,
    pub(super) part: Part<'a>,
}

/// The members of a delta or of the whole of it; which of them is there depends on the kind of item.
#[derive(Default, Serialize)]
pub(super) struct OfText<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<[(); 0]>,
}

impl Writer {
    /// Hands one event to the sink: `type`, `sequence_number`, and the members of `body`, which has at least one.
    pub(super) fn event<T: Serialize>(&mut self, name: &str, body: &T, sink: &mut Sink<'_>) {
        self.buffer.clear();
        write!(
            self.buffer,
            "{{\"type\":\"{name}\",\"sequence_number\":{}",
            self.sequence_number
        )
        .expect("a Vec takes every byte");
        let body_start = self.buffer.len();
        write(&mut self.buffer, body);
        self.buffer[body_start] = b',';
        self.sequence_number += 1;
        sink(name, &self.buffer);
    }

    /// Hands on a text delta, in the compact form's order of members; its number is set here.
    pub(super) fn text_delta(&mut self, mut delta: TextDelta<'_>, sink: &mut Sink<'_>) {
        delta.sequence_number = self.sequence_number;
        self.buffer.clear();
        delta.write(&mut self.buffer);
        self.sequence_number += 1;
        sink(super::delta::EVENT, &self.buffer);
    }
}
