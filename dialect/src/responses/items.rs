//! Output items of a response: how they grow, and their JSON at each moment.

use serde::{Serialize, Serializer};

/// An output item while it is written.
#[derive(Debug)]
pub(super) struct OutputItem {
    pub(super) id: String,
    pub(super) kind: ItemKind,
    /// A message's or reasoning's text, or a call's arguments.
    pub(super) text: String,
    /// More may come.
    pub(super) open: bool,
}

/// What an output item is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// The answer.
    Message,
    /// A message that declines to answer.
    Refusal,
    /// What the model thought.
    Reasoning,
    /// A function call.
    Call { call_id: String, name: String },
}

/// The names of the events that carry an item's text.
pub(super) struct EventNames {
    pub(super) delta: &'static str,
    pub(super) done: &'static str,
}

impl ItemKind {
    /// What the id of such an item begins with.
    pub(super) const fn prefix(&self) -> &'static str {
        match self {
            Self::Message | Self::Refusal => "msg",
            Self::Reasoning => "rs",
            Self::Call { .. } => "fc",
        }
    }

    pub(super) const fn events(&self) -> EventNames {
        let (delta, done) = match self {
            Self::Message => (super::delta::EVENT, "response.output_text.done"),
            Self::Refusal => ("response.refusal.delta", "response.refusal.done"),
            Self::Reasoning => (
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
            ),
            Self::Call { .. } => (
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
            ),
        };
        EventNames { delta, done }
    }
}

/// An output item's JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item<'a> {
    Message {
        id: &'a str,
        status: &'static str,
        role: &'static str,
        #[serde(serialize_with = "as_array")]
        content: Option<Part<'a>>,
    },
    Reasoning {
        id: &'a str,
        status: &'static str,
        summary: [(); 0],
        #[serde(serialize_with = "as_array")]
        content: Option<Part<'a>>,
    },
    FunctionCall {
        id: &'a str,
        status: &'static str,
        arguments: &'a str,
        call_id: &'a str,
        name: &'a str,
    },
}

/// The JSON of a content part.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part<'a> {
    OutputText {
        annotations: [(); 0],
        logprobs: [(); 0],
        text: &'a str,
    },
    Refusal {
        refusal: &'a str,
    },
    ReasoningText {
        text: &'a str,
    },
}

impl OutputItem {
    /// The item as it is announced: without content.
    pub(super) fn announced(&self) -> Item<'_> {
        self.item("in_progress", None, "")
    }

    /// The item with all that it has.
    pub(super) fn whole(&self, status: &'static str) -> Item<'_> {
        self.item(status, self.part(&self.text), &self.text)
    }

    /// Its one content part with this text; a call has none.
    pub(super) fn part<'a>(&self, text: &'a str) -> Option<Part<'a>> {
        Some(match self.kind {
            ItemKind::Message => Part::OutputText {
                annotations: [],
                logprobs: [],
                text,
            },
            ItemKind::Refusal => Part::Refusal { refusal: text },
            ItemKind::Reasoning => Part::ReasoningText { text },
            ItemKind::Call { .. } => return None,
        })
    }

    fn item<'a>(
        &'a self,
        status: &'static str,
        content: Option<Part<'a>>,
        arguments: &'a str,
    ) -> Item<'a> {
        let id = &self.id;
        match &self.kind {
            ItemKind::Message | ItemKind::Refusal => Item::Message {
                id,
                status,
                role: "assistant",
                content,
            },
            ItemKind::Reasoning => Item::Reasoning {
                id,
                status,
                summary: [],
                content,
            },
            ItemKind::Call { call_id, name } => Item::FunctionCall {
                id,
                status,
                arguments,
                call_id,
                name,
            },
        }
    }
}

fn as_array<S: Serializer>(part: &Option<Part<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    part.as_slice().serialize(serializer)
}
