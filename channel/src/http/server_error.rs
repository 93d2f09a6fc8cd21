//! Why a client's connection over HTTP/1.1 cannot go on: what it is told, and under which name that is counted.

use std::io;
use std::time::Duration;

use super::body::BodyError;
use super::head::HeadError;
use crate::ExchangeError;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The client is gone.
    #[error("the client's connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no request that can be served.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The request's body breaks its coding or ends early.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The request's body is longer than what was allowed.
    #[error("the request's body is longer than {0} bytes")]
    TooLarge(usize),
    /// The request was not whole in time.
    #[error("the request was not there within {0:?}")]
    TooSlow(Duration),
    /// The requests that are being served fill the memory that they may have together.
    #[error("too many requests are being served at once; try again later")]
    NoRoom,
}

impl From<ExchangeError> for ServerError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TooSlow(limit) => Self::TooSlow(limit),
            ExchangeError::TooLarge(limit) => Self::TooLarge(limit),
            ExchangeError::NoRoom => Self::NoRoom,
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl ServerError {
    /// The status that tells the client what was wrong; `None` where it is gone.
    pub fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::Io(_) | Self::Body(BodyError::Truncated) => None,
            Self::Head(HeadError::TooLarge) => Some((431, "Request Header Fields Too Large")),
            Self::Head(HeadError::Coding(_)) => Some((501, "Not Implemented")),
            Self::Head(_) | Self::Body(_) => Some((400, "Bad Request")),
            Self::TooLarge(_) => Some((413, "Content Too Large")),
            Self::TooSlow(_) => Some((408, "Request Timeout")),
            Self::NoRoom => Some((503, "Service Unavailable")),
        }
    }

    /// The name under which it is counted; `None` where the client only left.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => Some("stalled"),
            Self::Io(_) => None,
            Self::Body(BodyError::Truncated) => Some("truncated"),
            Self::Head(HeadError::Syntax(_)) => Some("malformed"),
            Self::Head(HeadError::TooLarge) => Some("head_too_large"),
            Self::Head(HeadError::Ambiguous(_)) => Some("ambiguous_length"),
            Self::Head(HeadError::Coding(_)) => Some("unknown_coding"),
            Self::Body(_) => Some("malformed_body"),
            Self::TooLarge(_) => Some("body_too_large"),
            Self::TooSlow(_) => Some("slow_request"),
            Self::NoRoom => Some("no_room"),
        }
    }
}
