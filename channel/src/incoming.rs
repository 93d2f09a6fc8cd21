//! A request that arrived whole, whatever channel carried it, and why one cannot be served.

use std::time::Duration;

use bytes::Bytes;
use tokenlag_probes::Stamp;

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub fields: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// Read with the first byte.
    pub in_head: Stamp,
    /// Read with the last byte.
    pub in_body: Stamp,
}

impl Incoming {
    /// The first field of that name (in any case), where its value is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }
}

/// Why a request cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The client or its connection is gone.
    #[error("the client's stream ended: {0}")]
    Gone(String),
    /// What came is no request.
    #[error("{0}")]
    Malformed(String),
    /// The head is longer than what is allowed, in bytes.
    #[error("the request's head is longer than {0} bytes")]
    HeadTooLarge(usize),
    /// The body is longer than what is allowed, in bytes.
    #[error("the request's body is longer than {0} bytes")]
    TooLarge(usize),
    /// Nothing of the request came for this long, or it was not whole by then.
    #[error("the request was not there within {0:?}")]
    TooSlow(Duration),
    /// The requests that are being served fill the memory that they may have together.
    #[error("too many requests are being served at once; try again later")]
    NoRoom,
}

impl ExchangeError {
    /// The HTTP status that says so; `None` where nobody is there to be told.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Gone(_) => None,
            Self::Malformed(_) => Some(400),
            Self::HeadTooLarge(_) => Some(431),
            Self::TooLarge(_) => Some(413),
            Self::TooSlow(_) => Some(408),
            Self::NoRoom => Some(503),
        }
    }

    /// The name under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gone(_) => "gone",
            Self::Malformed(_) => "malformed",
            Self::HeadTooLarge(_) => "head_too_large",
            Self::TooLarge(_) => "body_too_large",
            Self::TooSlow(_) => "slow_request",
            Self::NoRoom => "no_room",
        }
    }
}
