//! Why a WebSocket is closed (RFC 6455, section 7.4, and its registry).

use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The longest reason that a close frame can carry: a control frame has 125 bytes, two of them for the code.
const MAX_REASON: usize = 123;

/// A code and a reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The code.
    pub code: u16,
    /// The reason; what is longer than a frame can carry is cut off.
    pub reason: String,
}

impl Farewell {
    /// 1000: what the connection was made for is done.
    pub const NORMAL: u16 = 1000;
    /// 1001: this end is going away.
    pub const GOING_AWAY: u16 = 1001;
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// 1005: stands for a close frame without a code; is never sent.
    pub const NO_CODE: u16 = 1005;
    /// 1007: a text message was not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// 1008: the peer does what this end does not put up with.
    pub const POLICY: u16 = 1008;
    /// 1009: a message was too long.
    pub const TOO_BIG: u16 = 1009;
    /// 1011: this end cannot go on.
    pub const FAILED: u16 = 1011;
    /// 1013: this end has no room at the moment.
    pub const TRY_AGAIN: u16 = 1013;

    /// A farewell.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// What a close frame said.
    pub(super) fn of_frame(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::new(frame.code.into(), frame.reason.as_str()),
            None => Self::new(Self::NO_CODE, ""),
        }
    }

    /// The frame that says it; `None` is a frame without a code, which also stands for codes that must not be sent.
    pub(super) fn frame(&self) -> Option<CloseFrame> {
        let code = CloseCode::from(self.code);
        code.is_allowed().then(|| {
            let end = self.reason.floor_char_boundary(MAX_REASON);
            CloseFrame {
                code,
                reason: Utf8Bytes::from(&self.reason[..end]),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let long = "ö".repeat(100);
        let frame = Farewell::new(Farewell::PROTOCOL, long).frame().unwrap();
        assert_eq!(frame.reason.len(), 122);
        assert_eq!(u16::from(frame.code), 1002);
    }

    #[test]
    fn codes_that_stand_for_no_frame_are_not_sent() {
        for code in [Farewell::NO_CODE, 1006, 1015, 2000] {
            assert_eq!(Farewell::new(code, "").frame(), None);
        }
        assert_eq!(Farewell::of_frame(None).code, Farewell::NO_CODE);
    }
}
