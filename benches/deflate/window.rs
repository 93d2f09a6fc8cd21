//! Messages through permessage-deflate and back, as RFC 7692 has it: raw DEFLATE with a window of 32 KiB, each message ended
//! by a sync flush whose last four bytes are left out.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokenlag_probes::{Clock, MonoClock};

/// What ends a sync flush, and is not sent (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// How much the output grows by where it is full.
const ROOM: usize = 64 * 1024;

/// What carrying a message took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes that went.
    pub bytes: usize,
    /// Time of both ends, in nanoseconds.
    pub nanos: u64,
}

/// Both ends of a connection.
pub struct Codec {
    deflate: Compress,
    inflate: Decompress,
    /// Messages may refer to what came in earlier ones.
    takeover: bool,
}

impl Codec {
    pub fn new(level: u32, takeover: bool) -> Self {
        Self {
            deflate: Compress::new(Compression::new(level), false),
            inflate: Decompress::new(false),
            takeover,
        }
    }

    /// Deflates a message and inflates it again.
    pub fn carry(&mut self, message: &[u8]) -> Cost {
        let begun = MonoClock.now();
        if !self.takeover {
            self.deflate.reset();
            self.inflate.reset(false);
        }
        let mut wire = Vec::with_capacity(message.len() + ROOM);
        let start = self.deflate.total_in();
        loop {
            let done = (self.deflate.total_in() - start) as usize;
            let deflated =
                self.deflate
                    .compress_vec(&message[done..], &mut wire, FlushCompress::Sync);
            deflated.expect("a window takes every byte");
            let done = (self.deflate.total_in() - start) as usize;
            if done == message.len() && wire.len() < wire.capacity() {
                break;
            }
            wire.reserve(ROOM);
        }
        let sent = wire
            .strip_suffix(&TAIL)
            .expect("a sync flush ends so")
            .len();
        let mut back = Vec::with_capacity(message.len() + 64);
        let start = self.inflate.total_in();
        while back.len() < message.len() {
            let done = (self.inflate.total_in() - start) as usize;
            let inflated =
                self.inflate
                    .decompress_vec(&wire[done..], &mut back, FlushDecompress::Sync);
            inflated.expect("it was deflated a moment ago");
        }
        let nanos = MonoClock.now().since(begun).unsigned_abs();
        // What is left of the flush belongs to this message.
        let done = (self.inflate.total_in() - start) as usize;
        let rest = self.inflate.decompress_vec(
            &wire[done..],
            &mut Vec::with_capacity(16),
            FlushDecompress::Sync,
        );
        rest.expect("it was deflated a moment ago");
        assert!(back == message, "what comes out is what went in");
        Cost { bytes: sent, nanos }
    }
}
