//! Profiles from elsewhere, and what perf prints: any bytes end in stacks or in an error, and stacks are written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_profiling::{folded, perf, protobuf, tidy};

fuzz_target!(|bytes: &[u8]| {
    let _ = protobuf::span(bytes);
    if let Ok(stacks) = protobuf::decode(bytes) {
        let text = folded::text(&tidy(&stacks));
        let read = folded::parse(&text).expect("what was written reads back");
        assert_eq!(folded::text(&read), text);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = folded::parse(&text);
    for stacks in perf::parse(&text).values() {
        let packed = protobuf::encode(stacks, 4_000.0);
        let read = protobuf::decode(&packed).expect("what was written reads back");
        assert_eq!(read.total(), stacks.total());
    }
});
