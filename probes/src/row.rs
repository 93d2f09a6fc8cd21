//! Rows of a comparison: transport x state x encoding, factors that are never mixed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bytes travel between the load generator and the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The control: HTTP/1.1 keep-alive straight to the backend, no proxy between.
    Direct,
    /// HTTP/1.1, a new connection for each request.
    HttpCold,
    /// HTTP/1.1 keep-alive.
    Http,
    /// One WebSocket, Responses API mode.
    Ws,
    /// tokenlag's raw QUIC channel, ALPN `tokenlag/1`.
    Quic,
}

/// What a transport's read stamps say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadStamp {
    /// The moment of the read that carried the bytes.
    Exact,
    /// Some moment between the bytes' arrival and the one in which they could be read: the library does not tell which
    /// datagram released them.
    UpperBound,
}

impl Transport {
    /// How its reads are stamped.
    pub const fn read_stamp(self) -> ReadStamp {
        match self {
            Self::Direct | Self::HttpCold | Self::Http | Self::Ws => ReadStamp::Exact,
            Self::Quic => ReadStamp::UpperBound,
        }
    }
}

/// Who remembers the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Each turn resends the conversation.
    Full,
    /// Each turn sends only what is new, on `previous_response_id`.
    Incremental,
}

/// How a token is written on the channel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// The API's JSON events.
    #[default]
    Events,
    /// tokenlag's token frames (`quic` only).
    Compact,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// How bytes travel.
    #[serde(rename = "channel")]
    pub transport: Transport,
    /// Who remembers the conversation.
    pub state: State,
    /// How a token is written.
    #[serde(default)]
    pub encoding: Encoding,
}

impl Row {
    /// OpenAI's "before": HTTP per request, history resent.
    pub const HTTP_COLD_FULL: Row = Row::events(Transport::HttpCold, State::Full);
    /// The honest baseline: HTTP keep-alive, history resent.
    pub const HTTP_FULL: Row = Row::events(Transport::Http, State::Full);

    /// A row with the API's own JSON events.
    pub const fn events(transport: Transport, state: State) -> Self {
        Self {
            transport,
            state,
            encoding: Encoding::Events,
        }
    }
}

/// `ws/incremental`, with the encoding behind it only where it is not the usual one: `quic/full/compact`.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = format!("{}/{}", self.transport, self.state);
        if self.encoding == Encoding::Compact {
            name.push_str("/compact");
        }
        f.pad(&name)
    }
}

/// Reads `ws/incremental` and `quic/full/compact`; a state that is left out is `full`.
impl FromStr for Row {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let mut parts = name.splitn(3, '/');
        let transport = parts.next().unwrap_or_default().parse()?;
        let state = parts.next().map_or(Ok(State::Full), str::parse)?;
        let encoding = parts.next().map_or(Ok(Encoding::Events), str::parse)?;
        Ok(Self {
            transport,
            state,
            encoding,
        })
    }
}

/// A name that is none of the known ones; says which there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} '{name}'; known: {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: &'static str,
}

macro_rules! names {
    ($type:ty, $what:literal, $known:literal, $($variant:path => $name:literal),+ $(,)?) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($name => Ok($variant),)+
                    _ => Err(UnknownName { what: $what, name: name.to_owned(), known: $known }),
                }
            }
        }
    };
}

names!(
    Transport, "channel", "direct, http-cold, http, ws, quic",
    Transport::Direct => "direct",
    Transport::HttpCold => "http-cold",
    Transport::Http => "http",
    Transport::Ws => "ws",
    Transport::Quic => "quic",
);
names!(
    State, "state", "full, incremental",
    State::Full => "full",
    State::Incremental => "incremental",
);
names!(
    Encoding, "encoding", "events, compact",
    Encoding::Events => "events",
    Encoding::Compact => "compact",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_print_as_in_thresholds_and_reports() {
        assert_eq!(Row::HTTP_COLD_FULL.to_string(), "http-cold/full");
        let mut row = Row::events(Transport::Quic, State::Incremental);
        assert_eq!(row.to_string(), "quic/incremental");
        row.encoding = Encoding::Compact;
        assert_eq!(row.to_string(), "quic/incremental/compact");
        assert_eq!(row.to_string().parse(), Ok(row));
        assert_eq!("http-cold".parse(), Ok(Row::HTTP_COLD_FULL));
        assert!("ws/half".parse::<Row>().is_err());
        assert!("quic/full/compact/more".parse::<Row>().is_err());
    }

    #[test]
    fn an_unknown_channel_names_the_known_ones() {
        let error = "htttp".parse::<Transport>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown channel 'htttp'; known: direct, http-cold, http, ws, quic"
        );
    }
}
