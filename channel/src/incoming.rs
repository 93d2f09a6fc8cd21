//! A request that arrived whole, whatever channel carried it, and why one cannot be served.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use tokenlag_probes::Stamp;

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub(crate) head: Head,
    /// The body.
    pub body: Bytes,
    /// Read with the first byte.
    pub in_head: Stamp,
    /// Read with the last byte.
    pub in_body: Stamp,
}

/// A request's head as its channel has it: it is copied only where somebody needs it in another form.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    /// As the libraries of HTTP/2 and HTTP/3 give it, once [`crate::fields::check`] found nothing wrong with it.
    Parts(Box<Parts>),
    /// As a frame carried it.
    Framed {
        method: String,
        target: String,
        fields: Vec<(String, Bytes)>,
    },
}

impl Incoming {
    /// HTTP method.
    pub fn method(&self) -> &str {
        match &self.head {
            Head::Parts(parts) => parts.method.as_str(),
            Head::Framed { method, .. } => method,
        }
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        match &self.head {
            Head::Parts(parts) => parts.uri.path_and_query().map_or("/", |path| path.as_str()),
            Head::Framed { target, .. } => target,
        }
    }

    /// Header fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (parts, framed) = match &self.head {
            Head::Parts(parts) => (Some(parts), None),
            Head::Framed { fields, .. } => (None, Some(fields)),
        };
        let parts = parts.into_iter().flat_map(|parts| &parts.headers);
        let framed = framed.into_iter().flatten();
        parts
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .chain(framed.map(|(name, value)| (name.as_str(), &value[..])))
    }

    /// The first field of that name (in any case), where its value is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        let value = match &self.head {
            Head::Parts(parts) => parts.headers.get(name)?.as_bytes(),
            Head::Framed { fields, .. } => {
                let mut fields = fields.iter();
                &fields
                    .find(|(field, _)| field.eq_ignore_ascii_case(name))?
                    .1
            }
        };
        std::str::from_utf8(value).ok()
    }

    /// Takes all fields of that name off; gives the first one's value.
    pub(crate) fn remove(&mut self, name: &HeaderName) -> Option<Bytes> {
        match &mut self.head {
            Head::Parts(parts) => {
                let value = parts.headers.remove(name)?;
                Some(Bytes::copy_from_slice(value.as_bytes()))
            }
            Head::Framed { fields, .. } => {
                let is_it = |field: &str| field.eq_ignore_ascii_case(name.as_str());
                let (_, value) = fields.iter().find(|(field, _)| is_it(field))?;
                let value = value.clone();
                fields.retain(|(field, _)| !is_it(field));
                Some(value)
            }
        }
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
