//! Rows of a comparison: transport x state x encoding, factors that are never mixed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bytes travel between the load generator and the other end.
///
/// In a pair the load generator stands for an application that opens a connection for each request ([`HttpCold`](Self::HttpCold))
/// to a sidecar beside it; the sidecar carries the exchange over one warm channel, the [`leg`](Self::leg), to the sidecar at
/// the backend. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The control: HTTP/1.1 keep-alive straight to the backend, no proxy between.
    Direct,
    /// HTTP/1.1, a new connection for each request.
    HttpCold,
    /// HTTP/1.1 keep-alive.
    Http,
    /// HTTP/2, a stream of a warm connection for each request.
    Http2,
    /// HTTP/3, a stream of a warm connection for each request.
    Http3,
    /// One WebSocket, Responses API mode.
    Ws,
    /// tokenlag's raw QUIC channel, ALPN `tokenlag/1`.
    Quic,
    /// A pair of sidecars, HTTP/1.1 keep-alive between them.
    PairHttp,
    /// A pair of sidecars, HTTP/2 between them.
    PairHttp2,
    /// A pair of sidecars, HTTP/3 between them.
    PairHttp3,
    /// A pair of sidecars, one WebSocket between them.
    PairWs,
    /// A pair of sidecars, tokenlag's raw QUIC channel between them.
    PairQuic,
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
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 12] = [
        Self::Direct,
        Self::HttpCold,
        Self::Http,
        Self::Http2,
        Self::Http3,
        Self::Ws,
        Self::Quic,
        Self::PairHttp,
        Self::PairHttp2,
        Self::PairHttp3,
        Self::PairWs,
        Self::PairQuic,
    ];

    /// The channel between the two sidecars of a pair; `None` where this is no pair.
    pub const fn leg(self) -> Option<Self> {
        match self {
            Self::PairHttp => Some(Self::Http),
            Self::PairHttp2 => Some(Self::Http2),
            Self::PairHttp3 => Some(Self::Http3),
            Self::PairWs => Some(Self::Ws),
            Self::PairQuic => Some(Self::Quic),
            Self::Direct
            | Self::HttpCold
            | Self::Http
            | Self::Http2
            | Self::Http3
            | Self::Ws
            | Self::Quic => None,
        }
    }

    /// The exchange passes through two sidecars.
    pub const fn is_pair(self) -> bool {
        self.leg().is_some()
    }

    /// What the load generator itself speaks: `http-cold` to the first sidecar of a pair, elsewhere the channel itself.
    pub const fn dialled(self) -> Self {
        match self.leg() {
            Some(_) => Self::HttpCold,
            None => self,
        }
    }

    /// The channel whose place between the two ends is measured: a pair's leg, elsewhere the channel itself.
    const fn carrier(self) -> Self {
        match self.leg() {
            Some(leg) => leg,
            None => self,
        }
    }

    /// What the load generator dials has no form in clear: QUIC encrypts whatever it carries (RFC 9001).
    pub const fn is_encrypted_always(self) -> bool {
        matches!(self.dialled(), Self::Http3 | Self::Quic)
    }

    /// Whether tokens can be written so on it: tokenlag's frames belong to its own QUIC channel.
    pub const fn has_encoding(self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Events => true,
            Encoding::Compact => matches!(self.carrier(), Self::Quic),
        }
    }

    /// How its reads are stamped. Of a pair the load generator reads what it dialled.
    pub const fn read_stamp(self) -> ReadStamp {
        match self.dialled() {
            Self::Http3 | Self::Quic => ReadStamp::UpperBound,
            _ => ReadStamp::Exact,
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
    /// tokenlag's token frames (`quic`, and the leg of `pair-quic`).
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
        let encoding = match self.encoding {
            Encoding::Events => "",
            Encoding::Compact => "/compact",
        };
        let name = format_args!("{}/{}{encoding}", self.transport, self.state);
        match (f.width(), f.precision()) {
            (None, None) => f.write_fmt(name),
            _ => f.pad(&name.to_string()),
        }
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
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) known: &'static str,
}

/// Gives an enum its names as text, and reads them back.
macro_rules! names {
    ($type:ty, $what:literal, $known:literal, $($variant:path => $name:literal),+ $(,)?) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $($variant => $name),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::row::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok($variant),)+
                    _ => Err($crate::row::UnknownName { what: $what, name: name.to_owned(), known: $known }),
                }
            }
        }
    };
}
pub(crate) use names;

names!(
    Transport, "channel",
    "direct, http-cold, http, http2, http3, ws, quic, pair-http, pair-http2, pair-http3, pair-ws, pair-quic",
    Transport::Direct => "direct",
    Transport::HttpCold => "http-cold",
    Transport::Http => "http",
    Transport::Http2 => "http2",
    Transport::Http3 => "http3",
    Transport::Ws => "ws",
    Transport::Quic => "quic",
    Transport::PairHttp => "pair-http",
    Transport::PairHttp2 => "pair-http2",
    Transport::PairHttp3 => "pair-http3",
    Transport::PairWs => "pair-ws",
    Transport::PairQuic => "pair-quic",
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
    fn every_channel_is_named_alike_in_text_and_json_and_stands_in_its_place() {
        let names = Transport::ALL.map(|transport| transport.to_string());
        assert_eq!(
            names.join(" "),
            "direct http-cold http http2 http3 ws quic pair-http pair-http2 pair-http3 pair-ws pair-quic"
        );
        assert!(Transport::ALL.is_sorted());
        for (transport, name) in Transport::ALL.into_iter().zip(names) {
            assert_eq!(name.parse(), Ok(transport));
            assert_eq!(serde_json::to_value(transport).unwrap(), name);
        }
    }

    #[test]
    fn a_pair_is_dialled_like_plain_http_whatever_lies_between_its_sidecars() {
        for transport in Transport::ALL {
            let name = transport.to_string();
            match (name.strip_prefix("pair-"), transport.leg()) {
                (Some(leg), found) => {
                    assert_eq!(leg.parse().ok(), found);
                    assert_eq!(transport.dialled(), Transport::HttpCold);
                    assert_eq!(transport.read_stamp(), ReadStamp::Exact);
                    assert!(!transport.is_encrypted_always());
                }
                (None, found) => {
                    assert_eq!((found, transport.dialled()), (None, transport));
                }
            }
            let compact = transport.has_encoding(Encoding::Compact);
            assert_eq!(compact, name.ends_with("quic"), "{name}");
            assert!(transport.has_encoding(Encoding::Events));
        }
        assert_eq!(Transport::Http3.read_stamp(), ReadStamp::UpperBound);
        assert_eq!(Transport::Http2.read_stamp(), ReadStamp::Exact);
        assert!(Transport::Http3.is_encrypted_always() && Transport::Quic.is_encrypted_always());
        assert!(!Transport::Http2.is_encrypted_always());
    }

    #[test]
    fn an_unknown_channel_names_the_known_ones() {
        let error = "htttp".parse::<Transport>().unwrap_err().to_string();
        let known = Transport::ALL.map(|transport| transport.to_string());
        assert_eq!(
            error,
            format!("unknown channel 'htttp'; known: {}", known.join(", "))
        );
    }
}
