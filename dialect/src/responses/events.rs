//! The encoder of a whole Responses stream, for servers: from `response.created` to the terminal event.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use tokenlag_probes::Usage;

use super::delta::{EVENT as TEXT_DELTA, TextDelta};
pub use super::head::Finish;
use super::head::{Item, Part, Response, ResponseHead};
use crate::json::{raw, write};

/// Takes one event: its name (an SSE `event:` field) and its JSON.
pub type Sink<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// Writes the events of one response, in order and with sequence numbers, for any framing.
///
/// Call [`start`](Self::start), then [`delta`](Self::delta) for each piece of text, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct ResponseEncoder {
    head: ResponseHead,
    item_id: String,
    text: String,
    item_begun: bool,
    sequence_number: u64,
    buffer: Vec<u8>,
}

#[derive(Serialize)]
struct OfResponse<'a> {
    response: Response<'a>,
}

#[derive(Serialize)]
struct OfItem<'a> {
    output_index: u32,
    item: Item<'a>,
}

#[derive(Serialize)]
struct OfPart<'a> {
    item_id: &'a str,
    output_index: u32,
    content_index: u32,
    part: Part<'a>,
}

#[derive(Serialize)]
struct OfText<'a> {
    item_id: &'a str,
    output_index: u32,
    content_index: u32,
    text: &'a str,
    logprobs: [(); 0],
}

impl ResponseEncoder {
    /// An encoder at the start of a response. Its one message is named after it: `resp_1` has the item `msg_1`.
    pub fn new(head: ResponseHead) -> Self {
        Self {
            item_id: format!("msg_{}", head.id.strip_prefix("resp_").unwrap_or(&head.id)),
            head,
            text: String::new(),
            item_begun: false,
            sequence_number: 0,
            buffer: Vec::new(),
        }
    }

    /// The response's head, as it was given.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `response.created` and `response.in_progress`.
    pub fn start(&mut self, sink: &mut Sink<'_>) {
        for name in ["response.created", "response.in_progress"] {
            let body = OfResponse {
                response: self.head.in_progress(),
            };
            event(
                &mut self.buffer,
                &mut self.sequence_number,
                name,
                &body,
                sink,
            );
        }
    }

    /// `response.output_text.delta`; before the first, the events that begin its item and part. Empty text is no delta.
    pub fn delta(&mut self, text: &str, sink: &mut Sink<'_>) {
        if text.is_empty() {
            return;
        }
        self.begin_item(sink);
        self.text.push_str(text);
        self.buffer.clear();
        TextDelta {
            item_id: Cow::Borrowed(&self.item_id),
            output_index: 0,
            content_index: 0,
            sequence_number: self.sequence_number,
            delta: Cow::Borrowed(text),
            logprobs: true,
        }
        .write(&mut self.buffer);
        self.sequence_number += 1;
        sink(TEXT_DELTA, &self.buffer);
    }

    /// The events that end part, item and response. A response without any text ends with an empty message.
    pub fn finish(&mut self, finish: Finish, usage: Option<Usage>, sink: &mut Sink<'_>) {
        self.begin_item(sink);
        let parts = [Part::text(&self.text)];
        let status = match finish {
            Finish::Completed => "completed",
            Finish::MaxOutputTokens | Finish::Failed { .. } => "incomplete",
        };
        let item = [Item::message(&self.item_id, status, &parts)];
        let text_done = OfText {
            item_id: &self.item_id,
            output_index: 0,
            content_index: 0,
            text: &self.text,
            logprobs: [],
        };
        let part_done = OfPart {
            item_id: &self.item_id,
            output_index: 0,
            content_index: 0,
            part: parts[0],
        };
        let item_done = OfItem {
            output_index: 0,
            item: item[0],
        };
        let (buffer, number) = (&mut self.buffer, &mut self.sequence_number);
        event(
            buffer,
            number,
            "response.output_text.done",
            &text_done,
            sink,
        );
        event(
            buffer,
            number,
            "response.content_part.done",
            &part_done,
            sink,
        );
        event(
            buffer,
            number,
            "response.output_item.done",
            &item_done,
            sink,
        );
        let body = OfResponse {
            response: self.head.ended(&finish, &item, usage),
        };
        event(buffer, number, terminal_name(&finish), &body, sink);
    }

    /// The terminal event of a response that makes no output (a warm-up with `"generate":false`), or that failed
    /// before it made any.
    pub fn finish_without_output(
        &mut self,
        finish: Finish,
        usage: Option<Usage>,
        sink: &mut Sink<'_>,
    ) {
        let body = OfResponse {
            response: self.head.ended(&finish, &[], usage),
        };
        event(
            &mut self.buffer,
            &mut self.sequence_number,
            terminal_name(&finish),
            &body,
            sink,
        );
    }

    /// The output item as it stands in the terminal event: what a later turn builds on.
    pub fn output_item(&self) -> Box<RawValue> {
        let parts = [Part::text(&self.text)];
        raw(&Item::message(&self.item_id, "completed", &parts))
    }

    /// The JSON of the whole response, for a request that is not streamed; the text is what [`delta`](Self::delta)
    /// was given.
    pub fn whole(&self, finish: &Finish, usage: Option<Usage>) -> Vec<u8> {
        let parts = [Part::text(&self.text)];
        let status = match finish {
            Finish::Completed => "completed",
            Finish::MaxOutputTokens | Finish::Failed { .. } => "incomplete",
        };
        let item = [Item::message(&self.item_id, status, &parts)];
        let mut out = Vec::new();
        write(&mut out, &self.head.ended(finish, &item, usage));
        out
    }

    fn begin_item(&mut self, sink: &mut Sink<'_>) {
        if std::mem::replace(&mut self.item_begun, true) {
            return;
        }
        let item = OfItem {
            output_index: 0,
            item: Item::message(&self.item_id, "in_progress", &[]),
        };
        let part = OfPart {
            item_id: &self.item_id,
            output_index: 0,
            content_index: 0,
            part: Part::text(""),
        };
        let (buffer, number) = (&mut self.buffer, &mut self.sequence_number);
        event(buffer, number, "response.output_item.added", &item, sink);
        event(buffer, number, "response.content_part.added", &part, sink);
    }
}

const fn terminal_name(finish: &Finish) -> &'static str {
    match finish {
        Finish::Completed => "response.completed",
        Finish::MaxOutputTokens => "response.incomplete",
        Finish::Failed { .. } => "response.failed",
    }
}

/// Hands one event to the sink: `type`, `sequence_number`, and the members of `body`.
fn event<T: Serialize>(
    buffer: &mut Vec<u8>,
    sequence_number: &mut u64,
    name: &str,
    body: &T,
    sink: &mut Sink<'_>,
) {
    #[derive(Serialize)]
    struct Event<'a, T> {
        r#type: &'a str,
        sequence_number: u64,
        #[serde(flatten)]
        body: &'a T,
    }

    buffer.clear();
    let event = Event {
        r#type: name,
        sequence_number: *sequence_number,
        body,
    };
    write(buffer, &event);
    *sequence_number += 1;
    sink(name, buffer);
}
