//! The encoder of a whole Responses stream, for servers and bridges: from `response.created` to the terminal event.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tokenlag_probes::Usage;

use super::delta::TextDelta;
pub use super::head::Finish;
use super::head::{Response, ResponseHead};
use super::items::{ItemKind, OutputItem};
use super::writer::{OfItem, OfPart, OfResponse, OfText, Sink, Writer};
use crate::json::{raw, write};
use crate::usage::InputUsage;

/// A function call of a response that is written; see [`ResponseEncoder::begin_call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHandle(usize);

/// Writes the events of one response, in order and with sequence numbers, for any framing.
///
/// Call [`start`](Self::start), then [`delta`](Self::delta) for each piece of text and its kin for other pieces, then
/// [`finish`](Self::finish). Each piece gives exactly one delta event. Items begin and end by themselves: text after
/// reasoning ends the reasoning; calls stay open to the end, since servers may write several by turns.
#[derive(Debug)]
pub struct ResponseEncoder {
    head: ResponseHead,
    items: Vec<OutputItem>,
    reasoning_tokens: u64,
    writer: Writer,
}

impl ResponseEncoder {
    /// An encoder at the start of a response. Its items are named after it: `resp_1` has the message `msg_1`, and a
    /// later item `fc_1_2`.
    pub fn new(head: ResponseHead) -> Self {
        Self {
            head,
            items: Vec::new(),
            reasoning_tokens: 0,
            writer: Writer::default(),
        }
    }

    /// The response's head, as it was given.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The text of the last message so far.
    pub fn text(&self) -> &str {
        let message = |item: &&OutputItem| item.kind == ItemKind::Message;
        let last = self.items.iter().rfind(message);
        last.map_or("", |item| &item.text)
    }

    /// How many of the output tokens that `usage` counts were spent on reasoning.
    pub fn set_reasoning_tokens(&mut self, tokens: u64) {
        self.reasoning_tokens = tokens;
    }

    /// `response.created` and `response.in_progress`.
    pub fn start(&mut self, sink: &mut Sink<'_>) {
        for name in ["response.created", "response.in_progress"] {
            let body = OfResponse {
                response: self.head.in_progress(),
            };
            self.writer.event(name, &body, sink);
        }
    }

    /// `response.output_text.delta`; before the first, the events that begin its item and part. Empty text is no delta.
    pub fn delta(&mut self, text: &str, sink: &mut Sink<'_>) {
        self.piece(ItemKind::Message, text, sink);
    }

    /// `response.refusal.delta`: a piece of the text by which the model declines to answer.
    pub fn refusal(&mut self, text: &str, sink: &mut Sink<'_>) {
        self.piece(ItemKind::Refusal, text, sink);
    }

    /// `response.reasoning_text.delta`: a piece of what the model thinks.
    pub fn reasoning(&mut self, text: &str, sink: &mut Sink<'_>) {
        self.piece(ItemKind::Reasoning, text, sink);
    }

    /// Begins a function call; its arguments come by [`call_arguments`](Self::call_arguments).
    pub fn begin_call(&mut self, call_id: &str, name: &str, sink: &mut Sink<'_>) -> CallHandle {
        self.close_text(sink);
        let kind = ItemKind::Call {
            call_id: call_id.to_owned(),
            name: name.to_owned(),
        };
        self.begin(kind, sink);
        CallHandle(self.items.len() - 1)
    }

    /// `response.function_call_arguments.delta`. Empty text is no delta.
    pub fn call_arguments(&mut self, call: CallHandle, text: &str, sink: &mut Sink<'_>) {
        if !text.is_empty() {
            self.write_delta(call.0, text, sink);
        }
    }

    /// How many items there are.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// A name for the next call, where the server gave none.
    pub(super) fn next_call_id(&self) -> String {
        format!("call_{}_{}", self.name(), self.items.len())
    }

    /// Adds to the name of a call: some servers send it in pieces. Those that repeat the call's id with each piece repeat
    /// its name too.
    pub(super) fn extend_call_name(&mut self, call: CallHandle, more: &str, repeats_id: bool) {
        if let ItemKind::Call { name, .. } = &mut self.items[call.0].kind
            && (name.is_empty() || !repeats_id)
        {
            name.push_str(more);
        }
    }

    /// The events that end what is open, and the response. One that ends well without any output has an empty message.
    pub fn finish(&mut self, finish: Finish, usage: Option<Usage>, sink: &mut Sink<'_>) {
        if self.items.is_empty() && !matches!(finish, Finish::Failed { .. }) {
            self.begin(ItemKind::Message, sink);
        }
        for index in 0..self.items.len() {
            if self.items[index].open {
                self.close(index, self.status(index, &finish), sink);
            }
        }
        self.end(&finish, usage, sink);
    }

    /// The terminal event of a response that makes no output (a warm-up with `"generate":false`), or that failed
    /// before it made any.
    pub fn finish_without_output(
        &mut self,
        finish: Finish,
        usage: Option<Usage>,
        sink: &mut Sink<'_>,
    ) {
        self.end(&finish, usage, sink);
    }

    /// The output items as they stand in the terminal event of a response that ended well: what a later turn builds on.
    pub fn output(&self) -> Vec<Box<RawValue>> {
        let items = self.items.iter();
        items.map(|item| raw(&item.whole("completed"))).collect()
    }

    /// The JSON of the whole response, for a request that is not streamed; the pieces are those that it was given.
    pub fn whole(&self, finish: &Finish, usage: Option<Usage>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, &self.ended(finish, usage));
        out
    }

    fn ended<'a>(&'a self, finish: &'a Finish, usage: Option<Usage>) -> Response<'a> {
        let items = self.items.iter().enumerate();
        let output = items
            .map(|(index, item)| item.whole(self.status(index, finish)))
            .collect();
        let usage = usage.map(|usage| InputUsage::new(usage, self.reasoning_tokens));
        self.head.ended(finish, output, usage)
    }

    /// An item's status at the response's end: the last one is what an early end cut.
    fn status(&self, index: usize, finish: &Finish) -> &'static str {
        match finish {
            Finish::Completed => "completed",
            _ if index + 1 < self.items.len() => "completed",
            _ => "incomplete",
        }
    }

    fn end(&mut self, finish: &Finish, usage: Option<Usage>, sink: &mut Sink<'_>) {
        let mut writer = std::mem::take(&mut self.writer);
        let body = OfResponse {
            response: self.ended(finish, usage),
        };
        writer.event(finish.event(), &body, sink);
        self.writer = writer;
    }

    fn piece(&mut self, kind: ItemKind, text: &str, sink: &mut Sink<'_>) {
        if text.is_empty() {
            return;
        }
        let goes_on = self
            .items
            .last()
            .is_some_and(|item| item.open && item.kind == kind);
        if !goes_on {
            self.close_text(sink);
            self.begin(kind, sink);
        }
        self.write_delta(self.items.len() - 1, text, sink);
    }

    fn write_delta(&mut self, index: usize, text: &str, sink: &mut Sink<'_>) {
        let item = &mut self.items[index];
        item.text.push_str(text);
        let name = item.kind.events().delta;
        if item.kind == ItemKind::Message {
            let delta = TextDelta {
                item_id: Cow::Borrowed(&item.id),
                output_index: u32::try_from(index).unwrap_or(u32::MAX),
                content_index: 0,
                sequence_number: 0,
                delta: Cow::Borrowed(text),
                logprobs: true,
            };
            return self.writer.text_delta(delta, sink);
        }
        let is_call = matches!(item.kind, ItemKind::Call { .. });
        let body = OfText {
            item_id: &item.id,
            output_index: index,
            content_index: (!is_call).then_some(0),
            delta: Some(text),
            ..OfText::default()
        };
        self.writer.event(name, &body, sink);
    }

    /// The response's id without its prefix.
    fn name(&self) -> &str {
        self.head.id.strip_prefix("resp_").unwrap_or(&self.head.id)
    }

    /// Ends the last item where it is one of text.
    fn close_text(&mut self, sink: &mut Sink<'_>) {
        if let Some(item) = self.items.last()
            && item.open
            && !matches!(item.kind, ItemKind::Call { .. })
        {
            self.close(self.items.len() - 1, "completed", sink);
        }
    }

    fn begin(&mut self, kind: ItemKind, sink: &mut Sink<'_>) {
        let output_index = self.items.len();
        let mut id = format!("{}_{}", kind.prefix(), self.name());
        if output_index > 0 {
            id.push_str(&format!("_{output_index}"));
        }
        let item = OutputItem {
            id,
            kind,
            text: String::new(),
            open: true,
        };
        let added = OfItem {
            output_index,
            item: item.announced(),
        };
        let writer = &mut self.writer;
        writer.event("response.output_item.added", &added, sink);
        if let Some(part) = item.part("") {
            let part = OfPart {
                item_id: &item.id,
                output_index,
                content_index: 0,
                part,
            };
            writer.event("response.content_part.added", &part, sink);
        }
        self.items.push(item);
    }

    fn close(&mut self, output_index: usize, status: &'static str, sink: &mut Sink<'_>) {
        let item = &mut self.items[output_index];
        item.open = false;
        let mut done = OfText {
            item_id: &item.id,
            output_index,
            content_index: Some(0),
            ..OfText::default()
        };
        match &item.kind {
            ItemKind::Message => {
                done.text = Some(&item.text);
                done.logprobs = Some([]);
            }
            ItemKind::Refusal => done.refusal = Some(&item.text),
            ItemKind::Reasoning => done.text = Some(&item.text),
            ItemKind::Call { name, .. } => {
                done.content_index = None;
                done.arguments = Some(&item.text);
                done.name = Some(name);
            }
        }
        let writer = &mut self.writer;
        writer.event(item.kind.events().done, &done, sink);
        if let Some(part) = item.part(&item.text) {
            let part = OfPart {
                item_id: &item.id,
                output_index,
                content_index: 0,
                part,
            };
            writer.event("response.content_part.done", &part, sink);
        }
        let item = OfItem {
            output_index,
            item: item.whole(status),
        };
        writer.event("response.output_item.done", &item, sink);
    }
}
