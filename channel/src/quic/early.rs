//! Requests that leave before the handshake is over (0-RTT), and the mark of those that may be replayed.
//!
//! Whoever records such a request can have it served again (RFC 8446, section 8). A server therefore serves it at once
//! only where the client says that this does no harm; any other waits until the client is known to be there (RFC 8470,
//! section 3, does the same with what an origin may answer).

use bytes::{Bytes, BytesMut};
use http::HeaderName;

use super::frame::{self, Frame};
use crate::{ChannelError, Incoming};

/// The field that says so, with the value `1`. It goes with requests that leave as early data, and no further than the
/// server that they are sent to.
pub const SAFE_TO_REPLAY: &str = "tokenlag-safe-to-replay";

/// Whether the client says that the request is safe to replay; takes the mark off.
pub(crate) fn is_marked(incoming: &mut Incoming) -> bool {
    /// Made once: to look for a name costs more than to compare it.
    static MARK: HeaderName = HeaderName::from_static(SAFE_TO_REPLAY);
    incoming.remove(&MARK).is_some_and(|value| value == "1")
}

/// A request of `tokenlag/1` as it was rendered, with the mark.
///
/// # Errors
/// The bytes do not begin with a request.
pub(crate) fn marked(request: &Bytes) -> Result<Bytes, ChannelError> {
    let mut rest = BytesMut::from(&request[..]);
    let Ok(Some(Frame::Request {
        form,
        method,
        target,
        mut fields,
    })) = frame::take(&mut rest)
    else {
        let what = "it does not begin with a REQUEST frame";
        return Err(ChannelError::Request(what.to_owned()));
    };
    fields.push((SAFE_TO_REPLAY.to_owned(), Bytes::from_static(b"1")));
    let mut out = Vec::with_capacity(request.len() + 64);
    Frame::Request {
        form,
        method,
        target,
        fields,
    }
    .write(&mut out);
    out.extend_from_slice(&rest);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::Stamp;

    use super::super::frame::ReplyForm;
    use super::*;
    use crate::incoming::Head;

    #[test]
    fn a_request_is_marked_and_the_mark_taken_off() {
        let mut wire = Vec::new();
        Frame::Request {
            form: ReplyForm::Compact,
            method: "POST".to_owned(),
            target: "/v1/responses".to_owned(),
            fields: vec![("a".to_owned(), Bytes::from_static(b"b"))],
        }
        .write(&mut wire);
        Frame::Data(Bytes::from_static(b"{}")).write(&mut wire);

        let mut inbox = BytesMut::from(&marked(&wire.clone().into()).unwrap()[..]);
        let head = frame::take(&mut inbox).unwrap();
        let Some(Frame::Request { fields, method, .. }) = head else {
            panic!("{head:?}");
        };
        assert_eq!(inbox, wire[wire.len() - inbox.len()..]);
        let at = Stamp::from_nanos(1);
        let mut incoming = Incoming {
            head: Head::Framed {
                method,
                target: "/".to_owned(),
                fields,
            },
            body: Bytes::new(),
            in_head: at,
            in_body: at,
        };
        assert!(is_marked(&mut incoming));
        assert_eq!(incoming.fields().count(), 1);
        assert!(!is_marked(&mut incoming));
    }

    #[test]
    fn what_is_no_request_is_not_marked() {
        assert!(marked(&Bytes::from_static(b"\x02\x00")).is_err());
        assert!(marked(&Bytes::new()).is_err());
    }
}
