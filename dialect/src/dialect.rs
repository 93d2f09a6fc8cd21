//! Which API a stream speaks, and how its events are framed.

use std::fmt;
use std::str::FromStr;

/// An API whose streams tokenlag reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's Responses API: `/v1/responses`.
    Responses,
    /// OpenAI's chat completions: `/v1/chat/completions`.
    Chat,
    /// OpenAI's legacy completions: `/v1/completions`.
    Completions,
    /// Anthropic's Messages: `/v1/messages`.
    Anthropic,
    /// Ollama's own API: `/api/chat` and `/api/generate`, whose replies differ by one member.
    Ollama,
}

impl Dialect {
    /// Every dialect that is read.
    pub const ALL: [Dialect; 5] = [
        Self::Responses,
        Self::Chat,
        Self::Completions,
        Self::Anthropic,
        Self::Ollama,
    ];

    /// Those that tokenlag asks in itself, too: OpenAI's.
    pub const ASKED: [Dialect; 3] = [Self::Responses, Self::Chat, Self::Completions];

    /// The dialect of a request's path, whatever prefix the API is mounted under. A query is ignored.
    pub fn of_path(path: &str) -> Option<Self> {
        let end = memchr::memchr2(b'?', b'#', path.as_bytes()).unwrap_or(path.len());
        let path = &path[..end];
        let path = path.strip_suffix('/').unwrap_or(path);
        let slash = memchr::memrchr(b'/', path.as_bytes())?;
        let (prefix, name) = (&path[..slash], &path[slash + 1..]);
        let follows = |parent: &str| prefix.ends_with(parent);
        // Other APIs have messages and chats too: these are told by more of the path.
        match name {
            "responses" => Some(Self::Responses),
            "completions" if follows("/chat") => Some(Self::Chat),
            "completions" => Some(Self::Completions),
            "messages" if follows("/v1") => Some(Self::Anthropic),
            "chat" | "generate" if follows("/api") => Some(Self::Ollama),
            _ => None,
        }
    }

    /// The path at which servers have the API. Of Ollama's two it is that of the chat.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Responses => "/v1/responses",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    /// How the body of a streamed reply over HTTP is framed.
    pub const fn framing(self) -> Framing {
        match self {
            Self::Responses | Self::Chat | Self::Completions | Self::Anthropic => Framing::Sse,
            Self::Ollama => Framing::Lines,
        }
    }

    /// The media type of a streamed reply over HTTP, without parameters. A reply of another type is none that the
    /// decoder can read (an error, a reply that is not streamed).
    pub const fn media_type(self) -> &'static str {
        match self.framing() {
            Framing::Lines => "application/x-ndjson",
            Framing::Sse | Framing::Messages => "text/event-stream",
        }
    }

    /// The name in flags, tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no dialect of [`Dialect::ASKED`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no API that tokenlag asks in; use responses, chat or completions")]
pub struct UnknownDialect(pub String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        Self::ASKED
            .into_iter()
            .find(|dialect| dialect.name() == text)
            .ok_or_else(|| UnknownDialect(text.to_owned()))
    }
}

/// How a stream's events are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Server-sent events, cut anywhere.
    Sse,
    /// One JSON text a line (NDJSON), cut anywhere.
    Lines,
    /// Each chunk is exactly one whole event's JSON (a WebSocket message, a frame of the QUIC channel).
    Messages,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_dialect() {
        for (path, dialect) in [
            ("/v1/responses", Some(Dialect::Responses)),
            ("/v1/responses?x=1", Some(Dialect::Responses)),
            ("/openai/v1/chat/completions/", Some(Dialect::Chat)),
            ("/v1/completions", Some(Dialect::Completions)),
            ("/api/completions", Some(Dialect::Completions)),
            ("/v1/embeddings", None),
            ("/v1/responses/resp_1", None),
            ("/v1/messages", Some(Dialect::Anthropic)),
            ("/anthropic/v1/messages?beta=true", Some(Dialect::Anthropic)),
            ("/v1/messages/count_tokens", None),
            ("/v1/threads/thread_1/messages", None),
            ("/api/chat", Some(Dialect::Ollama)),
            ("/ollama/api/generate", Some(Dialect::Ollama)),
            ("/api/tags", None),
            ("", None),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }

    #[test]
    fn names_read_back() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::of_path(dialect.path()), Some(dialect));
            let asked = Dialect::ASKED.contains(&dialect);
            assert_eq!(dialect.name().parse().ok(), asked.then_some(dialect));
        }
        assert!("soap".parse::<Dialect>().is_err());
    }
}
