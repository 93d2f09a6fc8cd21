//! HTTP/1.1 heads and bodies: any bytes, in any split, end in a message or an error.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokenlag_channel::http::body::Piece;
use tokenlag_channel::http::{BodyDecoder, RequestHead, ResponseHead};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let mut inbox = BytesMut::new();
    let mut framing = None;
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        inbox.extend_from_slice(piece);
        let parsed = if cut % 2 == 0 {
            RequestHead::take(&mut inbox).map(|head| head.map(|head| head.framing()))
        } else {
            ResponseHead::take(&mut inbox).map(|head| head.map(|head| head.framing("POST")))
        };
        match parsed {
            Ok(None) => {}
            Ok(Some(Ok(found))) => {
                framing = Some(found);
                break;
            }
            Ok(Some(Err(_))) | Err(_) => return,
        }
    }
    if let Some(framing) = framing {
        let mut body = BodyDecoder::new(framing);
        while let Ok(Piece::Data(data)) = body.take(&mut inbox) {
            assert!(!data.is_empty());
        }
    }
});
