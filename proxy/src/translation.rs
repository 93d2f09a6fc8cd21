//! The Responses API in front of an upstream that has only chat completions: the request there, the reply back.

use bytes::Bytes;
use tokenlag_channel::Chunk;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_dialect::decoder::EVENT_LIMIT;
use tokenlag_dialect::responses::{self, BadRequest, Create, FromChat, to_chat};
use tokenlag_dialect::{Dialect, Fields, SseSplitter};
use tokenlag_probes::clock::wall_clock;
use tokenlag_probes::{FailureKind, Outcome};

use crate::body::is_readable;

/// One reply on its way back.
#[derive(Debug)]
pub(crate) struct Translation {
    id: String,
    from_chat: FromChat,
    /// Whether the client asked for a stream. The upstream is always asked for one.
    streamed: bool,
    source: Source,
    /// The data of the terminal event.
    ending: Option<Vec<u8>>,
}

/// What the upstream answers with.
#[derive(Debug)]
enum Source {
    Stream(SseSplitter),
    /// One object all the same.
    Object(Vec<u8>),
}

/// Takes one event: its name and its data.
type Sink<'a> = dyn FnMut(&str, &[u8]) + 'a;

impl Translation {
    /// Translates a create that holds the whole conversation; gives the body of the chat. The response gets this id.
    ///
    /// # Errors
    /// It goes on from a response that nobody knows, or asks what chat completions cannot say.
    pub(crate) fn begin(
        body: &[u8],
        id: String,
        parent: Option<&str>,
    ) -> Result<(Bytes, Self), BadRequest> {
        let create = Create::parse(body)?;
        if let Some(unknown) = create.previous_response_id.as_deref() {
            return Err(BadRequest::previous_response_not_found(unknown));
        }
        let chat = to_chat(&create, std::iter::empty())?;
        let translation = Self {
            from_chat: FromChat::new(head(&create, id.clone(), parent)),
            id,
            streamed: create.stream,
            source: Source::Stream(SseSplitter::new(EVENT_LIMIT)),
            ending: None,
        };
        Ok((chat.into(), translation))
    }

    /// The response's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the client asked for a stream.
    pub(crate) fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Whether a reply of this head is one to be translated; what is none (an error) passes as it is.
    pub(crate) fn understands(&mut self, head: &ResponseHead) -> bool {
        let object = is_readable(head, "application/json");
        if object {
            self.source = Source::Object(Vec::new());
        }
        head.status == 200 && (object || is_readable(head, Dialect::Chat.media_type()))
    }

    /// The events that come before any output.
    pub(crate) fn start(&mut self, sink: &mut Sink<'_>) {
        self.from_chat.start(sink);
    }

    /// Takes a piece of the upstream's body.
    ///
    /// # Errors
    /// An event beyond the limit.
    pub(crate) fn take(&mut self, chunk: &Chunk, sink: &mut Sink<'_>) -> Result<(), FailureKind> {
        let Self {
            from_chat,
            source,
            ending,
            ..
        } = self;
        let mut sink = watched(ending, sink);
        match source {
            Source::Stream(splitter) => splitter
                .feed(&chunk.bytes, &mut |event| {
                    from_chat.event(event.data, &mut sink);
                })
                .map_err(|_| FailureKind::Protocol),
            Source::Object(object) if object.len() + chunk.bytes.len() <= EVENT_LIMIT => {
                object.extend_from_slice(&chunk.bytes);
                Ok(())
            }
            Source::Object(_) => Err(FailureKind::Protocol),
        }
    }

    /// The upstream's body is over.
    pub(crate) fn end(&mut self, sink: &mut Sink<'_>) -> Outcome {
        let mut sink = watched(&mut self.ending, sink);
        if let Source::Object(object) = &self.source {
            self.from_chat.event(object, &mut sink);
        }
        self.from_chat.end(&mut sink)
    }

    /// The terminal event's data, once it was written.
    pub(crate) fn ending(&self) -> Option<&[u8]> {
        self.ending.as_deref()
    }

    /// The whole response, for a client that asked for no stream.
    pub(crate) fn into_response(self) -> Bytes {
        self.from_chat.into_response().into()
    }
}

/// A sink that keeps what the response ends with.
fn watched<'a>(
    ending: &'a mut Option<Vec<u8>>,
    sink: &'a mut Sink<'_>,
) -> impl FnMut(&str, &[u8]) + 'a {
    move |name, data| {
        if matches!(name, "response.completed" | "response.incomplete") {
            *ending = Some(data.to_vec());
        }
        sink(name, data);
    }
}

/// What the response repeats of its request.
fn head(create: &Create<'_>, id: String, parent: Option<&str>) -> responses::ResponseHead {
    let now = wall_clock().duration_since(std::time::UNIX_EPOCH);
    let fields = &create.fields;
    let number = |name: &str| fields.get(name)?.get().parse::<f32>().ok();
    responses::ResponseHead {
        id,
        model: create.model.as_deref().unwrap_or_default().to_owned(),
        created_at: now.map_or(0, |since| since.as_secs()),
        previous_response_id: parent.map(str::to_owned),
        instructions: fields.get_str("instructions").map(|text| text.into_owned()),
        max_output_tokens: fields
            .get("max_output_tokens")
            .and_then(|limit| limit.get().parse().ok()),
        temperature: number("temperature"),
        top_p: number("top_p"),
        store: create.store.unwrap_or(true),
        metadata: fields
            .get("metadata")
            .filter(|metadata| Fields::parse(metadata.get().as_bytes()).is_ok())
            .map(ToOwned::to_owned),
    }
}

/// Where a chat is asked, given where a response would be.
pub(crate) fn chat_target(target: &str) -> String {
    let (path, rest) = match target.find(['?', '#']) {
        Some(end) => target.split_at(end),
        None => (target, ""),
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let prefix = path.strip_suffix("/responses").unwrap_or(path);
    format!("{prefix}/chat/completions{rest}")
}

/// How a translated reply comes.
pub(crate) fn streamed_head(head: &ResponseHead) -> (ResponseHead, Framing) {
    let mut streamed = ResponseHead {
        headers: Default::default(),
        ..head.clone()
    };
    for (name, value) in head.headers.iter() {
        let ours = [&b"content-length"[..], b"content-type"];
        if !ours.iter().any(|own| name.eq_ignore_ascii_case(own))
            && let Ok(name) = std::str::from_utf8(name)
        {
            streamed.headers.push(name, value);
        }
    }
    streamed.headers.push("content-type", b"text/event-stream");
    (streamed, Framing::UntilClose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chats_are_beside_responses() {
        for (responses, chat) in [
            ("/v1/responses", "/v1/chat/completions"),
            ("/v1/responses/", "/v1/chat/completions"),
            (
                "/openai/v1/responses?api-version=1",
                "/openai/v1/chat/completions?api-version=1",
            ),
        ] {
            assert_eq!(chat_target(responses), chat);
        }
    }
}
