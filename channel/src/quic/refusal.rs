//! Why a connection was not accepted, or was ended for what its client did.

use std::time::Duration;

use quinn::{ConnectionError, TransportErrorCode};

/// Why a connection was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many connections are open as may be.
    #[error("as many connections are open as may be")]
    Full,
    /// The client has to prove that it is where it says it is, and will come again.
    #[error("the client was asked to prove its address")]
    Unproven,
    /// The handshake was not over in time.
    #[error("the handshake was not over within {0:?}")]
    Slow(Duration),
    /// The client speaks none of the protocols that are spoken here.
    #[error("the client offers no protocol that is spoken here (ALPN tokenlag/1 and h3)")]
    Alpn,
    /// The client does not trust the certificate.
    #[error("the client does not trust the certificate ({0})")]
    Distrusted(String),
    /// The handshake failed otherwise.
    #[error("the handshake failed: {0}")]
    Broken(String),
}

impl Refusal {
    /// The name under which it is counted; `None` where nothing was refused for good.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unproven => None,
            Self::Full => Some("full"),
            Self::Slow(_) => Some("slow_handshake"),
            Self::Alpn => Some("alpn"),
            Self::Distrusted(_) => Some("certificate"),
            Self::Broken(_) => Some("handshake"),
        }
    }
}

/// TLS's alerts, as QUIC carries them (RFC 9001, section 4.8; RFC 8446, section 6.2).
pub(super) fn refusal(error: &ConnectionError) -> Refusal {
    let said = error.to_string();
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return Refusal::Broken(said),
    };
    let is = |alert| code == TransportErrorCode::crypto(alert);
    if is(120) {
        Refusal::Alpn
    } else if (42..=48).any(is) || is(51) {
        Refusal::Distrusted(said)
    } else {
        Refusal::Broken(said)
    }
}
