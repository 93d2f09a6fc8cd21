//! What the channels write around a token and read off it again, in memory.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use tokenlag_channel::http::body::{Piece, push_chunk};
use tokenlag_channel::http::{BodyDecoder, Framing};
use tokenlag_channel::http2::frames::{DATA, Found, Walker};
use tokenlag_channel::quic::frame::{Frame, take};
use tokenlag_dialect::Dialect;
use tokenlag_probes::Stamp;

use super::Rounds;
use crate::events;

/// The text of a token, as the raw QUIC channel's compact form carries it.
const TOKEN: &[u8] = b" token";

pub(super) fn chunk_written() -> Rounds {
    let event = events::wire(Dialect::Responses);
    written(move |out| push_chunk(out, black_box(&event)))
}

pub(super) fn chunk_read() -> Rounds {
    let event = events::wire(Dialect::Responses);
    let mut chunk = Vec::new();
    push_chunk(&mut chunk, &event);
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    read(chunk, move |inbox| {
        match decoder.take(inbox).expect("it is as it was written") {
            Piece::Data(data) => assert_eq!(data.len(), event.len()),
            piece => panic!("no data, but {piece:?}"),
        }
        // The chunk's own end.
        let rest = decoder.take(inbox).expect("it is as it was written");
        assert!(matches!(rest, Piece::NeedsMore));
    })
}

/// One DATA frame.
pub(super) fn http2_walked() -> Rounds {
    let event = events::wire(Dialect::Responses);
    let mut frame = Vec::new();
    frame.extend_from_slice(&(event.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&[DATA, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(&event);
    let mut walker = Walker::default();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let mut bytes = 0;
            walker.walk(black_box(&frame), Stamp::default(), &mut |found| {
                if let Found::Data { bytes: data, .. } = found {
                    bytes += data;
                }
            });
            assert_eq!(bytes, event.len());
        }
    })
}

pub(super) fn event_written() -> Rounds {
    let frame = Frame::Event(events::delta(Dialect::Responses).1.into());
    written(move |out| black_box(&frame).write(out))
}

pub(super) fn event_read() -> Rounds {
    let (_, data) = events::delta(Dialect::Responses);
    let length = data.len();
    frame_read(&Frame::Event(data.into()), length)
}

pub(super) fn token_written() -> Rounds {
    let frame = Frame::Token(Bytes::from_static(TOKEN));
    written(move |out| black_box(&frame).write(out))
}

pub(super) fn token_read() -> Rounds {
    frame_read(&Frame::Token(Bytes::from_static(TOKEN)), TOKEN.len())
}

fn frame_read(frame: &Frame, length: usize) -> Rounds {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    read(bytes, move |inbox| {
        let taken = take(inbox).expect("it is as it was written");
        match black_box(taken) {
            Some(Frame::Event(data) | Frame::Token(data)) => assert_eq!(data.len(), length),
            other => panic!("no event and no token, but {other:?}"),
        }
    })
}

/// Writes again and again into the same memory.
fn written(mut write: impl FnMut(&mut Vec<u8>) + 'static) -> Rounds {
    let mut out = Vec::with_capacity(1024);
    Box::new(move |rounds| {
        for _ in 0..rounds {
            out.clear();
            write(&mut out);
            black_box(&out);
        }
    })
}

/// Reads what lies in an inbox, as a read of the socket lays it there.
fn read(bytes: Vec<u8>, mut read: impl FnMut(&mut BytesMut) + 'static) -> Rounds {
    /// As much room as a connection offers to a read at least.
    const ROOM: usize = 16 * 1024;
    let mut inbox = BytesMut::with_capacity(ROOM);
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let _ = inbox.try_reclaim(ROOM);
            inbox.extend_from_slice(black_box(&bytes));
            read(&mut inbox);
            assert!(inbox.is_empty());
        }
    })
}
