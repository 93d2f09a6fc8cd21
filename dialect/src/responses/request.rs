//! A Responses `create`, as an HTTP body or as a `response.create` message, and the way from one to the other.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::BadRequest;
use crate::fields::{Fields, NotAnObject};
use crate::json::{raw, read_str};

/// A `create`. What it asks beyond the named members stays in [`Create::fields`], untouched.
#[derive(Clone, Debug)]
pub struct Create<'a> {
    /// The lane of a WebSocket connection; `None` is the default lane.
    pub stream_id: Option<Cow<'a, str>>,
    /// The response that this turn goes on from.
    pub previous_response_id: Option<Cow<'a, str>>,
    /// `false` asks for a warm-up: a response without output.
    pub generate: bool,
    /// The reply is to be streamed. Over WebSocket it always is.
    pub stream: bool,
    /// The response is to be kept; `None` leaves it to the server.
    pub store: Option<bool>,
    /// The model's name.
    pub model: Option<Cow<'a, str>>,
    /// `client_metadata.ws_request_header_traceparent`.
    pub traceparent: Option<String>,
    /// Every member as it came.
    pub fields: Fields<'a>,
}

/// Members that mean something to a WebSocket connection only.
const CONNECTION_MEMBERS: [&str; 6] = [
    "type",
    "stream_id",
    "previous_response_id",
    "generate",
    "client_metadata",
    "background",
];

const TRACEPARENT_MEMBER: &str = "ws_request_header_traceparent";

impl<'a> Create<'a> {
    /// Reads an HTTP body, or a message of type `response.create`.
    ///
    /// # Errors
    ///
    /// It is not a JSON object, of another type, or a member named here has a type or value that it must not have.
    /// `input` is looked at by [`Create::input_items`].
    pub fn parse(json: &'a [u8]) -> Result<Self, BadRequest> {
        let fields = Fields::parse(json)?;
        if let Some(kind) = optional_str(&fields, "type")?
            && kind != "response.create"
        {
            return Err(BadRequest::param(
                "type",
                format!("`{kind}` is no message that creates a response; send `response.create`"),
            ));
        }
        let stream_id = optional_str(&fields, "stream_id")?;
        if let Some(id) = &stream_id
            && !is_stream_id(id)
        {
            return Err(BadRequest::invalid_stream_id());
        }
        Ok(Self {
            stream_id,
            previous_response_id: optional_str(&fields, "previous_response_id")?,
            generate: optional_bool(&fields, "generate")?.unwrap_or(true),
            stream: optional_bool(&fields, "stream")?.unwrap_or(false),
            store: optional_bool(&fields, "store")?,
            model: optional_str(&fields, "model")?,
            traceparent: traceparent(&fields),
            fields,
        })
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> Create<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Create {
            stream_id: self.stream_id.map(owned),
            previous_response_id: self.previous_response_id.map(owned),
            generate: self.generate,
            stream: self.stream,
            store: self.store,
            model: self.model.map(owned),
            traceparent: self.traceparent,
            fields: self.fields.into_owned(),
        }
    }

    /// The turn's own input as items: a string is one user message, an array's items are kept as raw text.
    ///
    /// # Errors
    ///
    /// `input` is neither a string nor an array.
    pub fn input_items(&self) -> Result<Vec<Box<RawValue>>, BadRequest> {
        match self.input() {
            Input::None => Ok(Vec::new()),
            Input::Text(text) => Ok(vec![user_message(&text)]),
            Input::Items(array) => serde_json::from_str(array.get()).map_err(|error| {
                BadRequest::param("input", format!("input cannot be read as items: {error}"))
            }),
            Input::Other(_) => Err(BadRequest::param(
                "input",
                "input must be a string or an array of items",
            )),
        }
    }

    /// The body of the HTTP create that does the same at a server which keeps no state: the whole conversation as
    /// input (`history`, oldest first, then the turn's own), `"stream":true`, and without the members that mean
    /// something to this connection only. All others are untouched; so is `input` where there is no history.
    pub fn upstream_body<'h>(&self, history: impl Iterator<Item = &'h RawValue>) -> Vec<u8> {
        let mut fields = self.fields.clone();
        for name in CONNECTION_MEMBERS {
            fields.remove(name);
        }
        fields.set("stream", raw(&true));
        let mut history = history.peekable();
        if history.peek().is_some() {
            fields.set("input", self.whole_input(history));
        }
        fields.to_vec()
    }

    /// The `input` member of the whole conversation: `history`, oldest first, then the turn's own.
    pub fn whole_input<'h>(&self, history: impl Iterator<Item = &'h RawValue>) -> Box<RawValue> {
        let mut array = String::from("[");
        let mut push = |item: &str| {
            if array.len() > 1 {
                array.push(',');
            }
            array.push_str(item);
        };
        history.for_each(|item| push(item.get()));
        match self.input() {
            Input::None => {}
            Input::Text(text) => push(user_message(&text).get()),
            Input::Items(items) => {
                let inner = items.get();
                let inner = inner[1..inner.len() - 1].trim();
                if !inner.is_empty() {
                    push(inner);
                }
            }
            // Not ours to judge: the upstream says what is wrong with it.
            Input::Other(value) => push(value.get()),
        }
        array.push(']');
        RawValue::from_string(array).expect("joined from whole JSON values")
    }

    fn input(&self) -> Input<'_> {
        match self.fields.get("input") {
            None => Input::None,
            Some(value) => match value.get().as_bytes()[0] {
                b'n' => Input::None,
                b'"' => read_str(value).map_or(Input::Other(value), Input::Text),
                b'[' => Input::Items(value),
                _ => Input::Other(value),
            },
        }
    }
}

/// The `input` member, by its JSON type.
enum Input<'a> {
    None,
    Text(Cow<'a, str>),
    Items(&'a RawValue),
    Other(&'a RawValue),
}

/// One user message as an input item.
pub fn user_message(text: &str) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Message<'a> {
        r#type: &'static str,
        role: &'static str,
        content: [Part<'a>; 1],
    }

    #[derive(Serialize)]
    struct Part<'a> {
        r#type: &'static str,
        text: &'a str,
    }

    raw(&Message {
        r#type: "message",
        role: "user",
        content: [Part {
            r#type: "input_text",
            text,
        }],
    })
}

/// The `type` of a client's WebSocket message: `response.create`, `response.processed`, ... `None` where the message
/// is not an object or has none.
pub fn message_type(json: &[u8]) -> Option<String> {
    Some(Fields::parse(json).ok()?.get_str("type")?.into_owned())
}

/// The WebSocket message for an HTTP create body: `type` comes first, and `client_metadata` carries the traceparent
/// beside what the body had in it. Nothing else is touched.
///
/// # Errors
///
/// The body is not a JSON object.
pub fn create_message(http_body: &[u8], traceparent: &str) -> Result<Vec<u8>, NotAnObject> {
    let mut fields = Fields::parse(http_body)?;
    let metadata = fields.get("client_metadata").map(ToOwned::to_owned);
    let mut metadata = match &metadata {
        Some(value) => Fields::parse(value.get().as_bytes()).unwrap_or_default(),
        None => Fields::default(),
    };
    metadata.set_str(TRACEPARENT_MEMBER, traceparent);
    fields.set("client_metadata", metadata.to_raw());
    fields.set_first("type", raw("response.create"));
    Ok(fields.to_vec())
}

/// Appends an event's JSON with `stream_id` as its last member: events of a named lane echo the lane.
pub fn write_with_stream_id(out: &mut Vec<u8>, event: &[u8], stream_id: &str) {
    let event = event.trim_ascii_end();
    let Some(body) = event.strip_suffix(b"}") else {
        out.extend_from_slice(event);
        return;
    };
    out.extend_from_slice(body);
    if body.trim_ascii() != b"{" {
        out.push(b',');
    }
    out.extend_from_slice(b"\"stream_id\":");
    crate::json::write(out, stream_id);
    out.push(b'}');
}

fn traceparent(fields: &Fields<'_>) -> Option<String> {
    let metadata = Fields::parse(fields.get("client_metadata")?.get().as_bytes()).ok()?;
    Some(metadata.get_str(TRACEPARENT_MEMBER)?.into_owned())
}

fn is_stream_id(id: &str) -> bool {
    (1..=256).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A member that is a string, or null, or missing. The text is copied: it is short, and the fields stay movable.
fn optional_str<'a>(
    fields: &Fields<'a>,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, BadRequest> {
    match fields.get(name) {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(value) => read_str(value)
            .map(|text| Some(Cow::Owned(text.into_owned())))
            .ok_or_else(|| BadRequest::param(name, format!("{name} must be a string"))),
    }
}

fn optional_bool(fields: &Fields<'_>, name: &'static str) -> Result<Option<bool>, BadRequest> {
    match fields.get(name).map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(BadRequest::param(
            name,
            format!("{name} must be true or false"),
        )),
    }
}
