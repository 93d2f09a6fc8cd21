//! Chat completions as a Responses stream: whatever the chat says, each event is readable, and the response ends once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_dialect::responses::{FromChat, ResponseHead};
use tokenlag_dialect::{Decoder, Dialect, Framing, SseSplitter};
use tokenlag_probes::Stamp;

fuzz_target!(|bytes: &[u8]| {
    let head = ResponseHead {
        id: "resp_1".into(),
        ..ResponseHead::default()
    };
    let mut translator = FromChat::with_limit(head, 4096);
    let mut decoder = Decoder::new(Dialect::Responses, Framing::Messages);
    let mut marks = Vec::new();
    let mut terminals = 0;
    let mut sink = |name: &str, event: &[u8]| {
        let ends = matches!(
            name,
            "response.completed" | "response.incomplete" | "response.failed"
        );
        terminals += u32::from(ends);
        decoder
            .feed(Stamp::default(), 0, event, &mut marks)
            .expect("an event is never larger than the reply");
    };
    translator.start(&mut sink);
    // An event beyond the limit ends the stream early.
    let _ =
        SseSplitter::new(1 << 16).feed(bytes, &mut |event| translator.event(event.data, &mut sink));
    let outcome = translator.end(&mut sink);
    assert_eq!(translator.outcome(), Some(outcome));
    assert_eq!(terminals, 1);
    assert_eq!(decoder.unreadable(), 0);
    translator.into_response();
});
