//! Messages of WebSocket clients: read and translated, or refused with a reason; and the lanes of the events that answer them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::{
    Completed, Create, TextDelta, ends_response, event_lane, message_type, to_chat,
    write_with_stream_id,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = message_type(bytes);
    let _ = ends_response(bytes);
    let _ = event_lane(bytes);
    if Fields::parse(bytes).is_ok() {
        let mut tagged = Vec::new();
        write_with_stream_id(&mut tagged, bytes, "a.b-1");
        assert_eq!(event_lane(&tagged).ok().flatten().as_deref(), Some("a.b-1"));
    }
    let _ = Completed::parse(bytes);
    if let Some(delta) = TextDelta::parse(bytes) {
        let mut written = Vec::new();
        delta.write(&mut written);
        assert_eq!(TextDelta::parse(&written).as_ref(), Some(&delta));
    }
    if let Ok(create) = Create::parse(bytes) {
        let _ = create.input_items();
        let body = create.upstream_body(std::iter::empty());
        assert!(Create::parse(&body).is_ok_and(|again| again.stream));
        if let Ok(chat) = to_chat(&create, std::iter::empty()) {
            assert!(Fields::parse(&chat).is_ok_and(|chat| chat.get_bool("stream") == Some(true)));
        }
    }
});
