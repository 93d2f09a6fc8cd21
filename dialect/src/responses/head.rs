//! The `response` object that the events of a Responses stream repeat.

use serde::Serialize;
use serde_json::value::RawValue;

use super::items::Item;
use super::request::Create;
use crate::usage::InputUsage;

/// What stays the same through a response's life.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The response's id: `resp_...`.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// When it was created, in Unix seconds.
    pub created_at: u64,
    /// The response that it goes on from.
    pub previous_response_id: Option<String>,
    /// The request's instructions.
    pub instructions: Option<String>,
    /// The request's limit of output tokens.
    pub max_output_tokens: Option<u64>,
    /// The temperature in use.
    pub temperature: Option<f32>,
    /// The `top_p` in use.
    pub top_p: Option<f32>,
    /// The response is kept, so that `previous_response_id` can name it.
    pub store: bool,
    /// The request's `metadata`, as it came.
    pub metadata: Option<Box<RawValue>>,
}

/// How a response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Completed,
    /// It reached the limit of output tokens: status `incomplete`, reason `max_output_tokens`.
    MaxOutputTokens,
    /// A filter ended it: status `incomplete`, reason `content_filter`.
    ContentFilter,
    /// The server could not go on.
    Failed {
        /// `server_error`, `rate_limit_exceeded`, ...
        code: String,
        /// What happened.
        message: String,
    },
}

impl Finish {
    /// The response's `status`.
    pub const fn status(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::MaxOutputTokens | Self::ContentFilter => "incomplete",
            Self::Failed { .. } => "failed",
        }
    }

    /// The name of the terminal event.
    pub(super) const fn event(&self) -> &'static str {
        match self {
            Self::Completed => "response.completed",
            Self::MaxOutputTokens | Self::ContentFilter => "response.incomplete",
            Self::Failed { .. } => "response.failed",
        }
    }
}

/// The `response` object at one moment.
#[derive(Serialize)]
pub(super) struct Response<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: &'static str,
    background: bool,
    error: Option<Error<'a>>,
    incomplete_details: Option<IncompleteDetails>,
    instructions: Option<&'a str>,
    max_output_tokens: Option<u64>,
    metadata: Option<&'a RawValue>,
    model: &'a str,
    output: Vec<Item<'a>>,
    parallel_tool_calls: bool,
    previous_response_id: Option<&'a str>,
    store: bool,
    temperature: Option<f32>,
    tool_choice: &'static str,
    tools: [(); 0],
    top_p: Option<f32>,
    truncation: &'static str,
    usage: Option<InputUsage>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct IncompleteDetails {
    reason: &'static str,
}

impl ResponseHead {
    /// The head of the response to a create. What the create asks of the generation is repeated as it came.
    pub fn of_create(create: &Create<'_>, id: String, created_at: u64) -> Self {
        fn read<T: serde::de::DeserializeOwned>(create: &Create<'_>, name: &str) -> Option<T> {
            serde_json::from_str(create.fields.get(name)?.get()).ok()?
        }

        Self {
            id,
            model: create.model.as_deref().unwrap_or_default().to_owned(),
            created_at,
            previous_response_id: create.previous_response_id.as_deref().map(str::to_owned),
            instructions: read(create, "instructions"),
            max_output_tokens: read(create, "max_output_tokens"),
            temperature: read(create, "temperature"),
            top_p: read(create, "top_p"),
            store: create.store.unwrap_or(true),
            metadata: read(create, "metadata"),
        }
    }

    /// The object while the response goes on.
    pub(super) fn in_progress(&self) -> Response<'_> {
        self.response("in_progress", Vec::new(), None)
    }

    /// The object at its end.
    pub(super) fn ended<'a>(
        &'a self,
        finish: &'a Finish,
        output: Vec<Item<'a>>,
        usage: Option<InputUsage>,
    ) -> Response<'a> {
        let mut response = self.response(finish.status(), output, usage);
        let reason = match finish {
            Finish::Completed => None,
            Finish::MaxOutputTokens => Some("max_output_tokens"),
            Finish::ContentFilter => Some("content_filter"),
            Finish::Failed { code, message } => {
                response.error = Some(Error { code, message });
                None
            }
        };
        response.incomplete_details = reason.map(|reason| IncompleteDetails { reason });
        response
    }

    fn response<'a>(
        &'a self,
        status: &'static str,
        output: Vec<Item<'a>>,
        usage: Option<InputUsage>,
    ) -> Response<'a> {
        Response {
            id: &self.id,
            object: "response",
            created_at: self.created_at,
            status,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: self.instructions.as_deref(),
            max_output_tokens: self.max_output_tokens,
            metadata: self.metadata.as_deref(),
            model: &self.model,
            output,
            parallel_tool_calls: true,
            previous_response_id: self.previous_response_id.as_deref(),
            store: self.store,
            temperature: self.temperature,
            tool_choice: "auto",
            tools: [],
            top_p: self.top_p,
            truncation: "disabled",
            usage,
        }
    }
}
