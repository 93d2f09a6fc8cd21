//! Frames of `tokenlag/1`: what is read, written again, is read the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokenlag_channel::quic::frame;

fuzz_target!(|bytes: &[u8]| {
    let mut inbox = BytesMut::from(bytes);
    while let Ok(Some(read)) = frame::take(&mut inbox) {
        let mut written = Vec::new();
        read.write(&mut written);
        let again = frame::take(&mut BytesMut::from(&written[..]));
        assert_eq!(again, Ok(Some(read)));
    }
});
