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
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 3] = [Self::Responses, Self::Chat, Self::Completions];

    /// The dialect of a request's path, whatever prefix the API is mounted under. A query is ignored.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        // The order matters: "/chat/completions" ends with "/completions" too.
        [Self::Responses, Self::Chat, Self::Completions]
            .into_iter()
            .find(|dialect| path.ends_with(&dialect.path()["/v1".len()..]))
    }

    /// The path at which the API is found on an OpenAI-compatible server.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Responses => "/v1/responses",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    /// The name in flags, tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Chat => "chat",
            Self::Completions => "completions",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no API that tokenlag reads; use responses, chat or completions")]
pub struct UnknownDialect(pub String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        Self::ALL
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
            ("", None),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }

    #[test]
    fn names_read_back() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.name().parse(), Ok(dialect));
            assert_eq!(Dialect::of_path(dialect.path()), Some(dialect));
        }
        assert!("soap".parse::<Dialect>().is_err());
    }
}
