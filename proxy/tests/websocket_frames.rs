//! What a WebSocket client may send by way of frames, good and bad.

mod socket;
mod stack;

use serde_json::{Value, json};
use socket::{Raw, connect, create, frame, id, refused, turn};
use stack::run;
use tokenlag_channel::ws::MAX_MESSAGE;
use tokio::io::AsyncWriteExt;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// Sends bytes after the opening: the connection is closed with this code, it is counted, and others do not notice.
#[track_caller]
fn check(bytes: &[u8], code: u16, reason: &str) {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut other = connect(&stack).await;
        let (mut raw, _) = Raw::open(&stack, "").await;
        raw.send(bytes).await;
        assert_eq!(raw.close_code().await, code);
        assert_eq!(refused(&stack, reason).await, 1);
        id(&turn(&mut other, &create(None, "hi", None)).await);
    });
}

#[test]
fn a_frame_that_breaks_the_protocol_ends_the_connection() {
    let create = create(None, "hi", None).to_string();
    let mut unmasked = vec![TEXT, 5];
    unmasked.extend(b"hello");
    for bytes in [
        unmasked,
        // A compressed frame, though compression was not agreed on.
        frame(0xc1, create.as_bytes()),
        frame(0xa1, b"x"),
        // Opcodes that nobody has.
        frame(0x83, b"x"),
        frame(0x8b, b"x"),
        // A ping in pieces, and one that is too long.
        frame(0x09, b"x"),
        frame(PING, &[0; 126]),
        // A continuation of nothing; a message inside another.
        frame(0x80, b"x"),
        [frame(0x01, b"{"), frame(TEXT, b"}")].concat(),
        // Half a code.
        frame(CLOSE, b"\x03"),
    ] {
        check(&bytes, 1002, "protocol");
    }
}

#[test]
fn text_must_be_utf_8() {
    check(&frame(TEXT, b"\xff\xfe"), 1007, "not_utf8");
    check(
        &[frame(0x01, b"a\xc3"), frame(0x80, b"(")].concat(),
        1007,
        "not_utf8",
    );
}

#[test]
fn a_message_has_a_longest_length() {
    let mut announced = vec![TEXT, 0xff];
    announced.extend((MAX_MESSAGE as u64 + 1).to_be_bytes());
    announced.extend([1, 2, 3, 4]);
    check(&announced, 1009, "too_big");
    announced[2..10].copy_from_slice(&u64::MAX.to_be_bytes());
    check(&announced, 1009, "too_big");
}

#[test]
fn a_message_in_pieces_has_the_same_longest_length() {
    let stack = socket::start("");
    run(async {
        let (raw, _) = Raw::open(&stack, "").await;
        let (mut reading, mut writing) = raw.0.into_split();
        let piece = frame(0x00, &[b' '; 1 << 20]);
        let send = async {
            writing.write_all(&frame(0x01, b" ")).await?;
            for _ in 0..MAX_MESSAGE >> 20 {
                writing.write_all(&piece).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let read = async {
            let mut answer = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer)
                .await
                .map(|_| answer)
        };
        let (_, answer) = tokio::join!(send, read);
        let answer = answer.unwrap();
        assert_eq!(answer[0], CLOSE);
        assert_eq!(answer[2..4], 1009_u16.to_be_bytes());
        assert_eq!(refused(&stack, "too_big").await, 1);
    });
}

#[test]
fn a_goodbye_is_answered() {
    let stack = socket::start("");
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        raw.send(&frame(CLOSE, b"\x03\xe8done")).await;
        assert_eq!(raw.frame().await, Some((CLOSE, b"\x03\xe8done".to_vec())));
        assert_eq!(raw.frame().await, None);
        // Without a code, and with one that must not be sent.
        let (mut raw, _) = Raw::open(&stack, "").await;
        raw.send(&frame(CLOSE, b"")).await;
        assert_eq!(raw.frame().await, Some((CLOSE, Vec::new())));
        let (mut raw, _) = Raw::open(&stack, "").await;
        raw.send(&frame(CLOSE, &1005_u16.to_be_bytes())).await;
        assert_eq!(raw.close_code().await, 1002);
    });
}

#[test]
fn a_message_may_come_in_pieces_with_pings_between_them() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        let message = create(None, "öäü", None).to_string();
        let bytes = message.as_bytes();
        // A cut inside a character.
        let cut = message.find('ö').unwrap() + 1;
        let mut wire = frame(0x01, &bytes[..cut]);
        wire.extend(frame(PING, b"still there?"));
        wire.extend(frame(0x00, &bytes[cut..cut + 7]));
        wire.extend(frame(0x80, &bytes[cut + 7..]));
        for byte in wire {
            raw.send(&[byte]).await;
        }
        assert_eq!(raw.frame().await, Some((0x8a, b"still there?".to_vec())));
        let (first, created) = raw.frame().await.unwrap();
        let created: Value = serde_json::from_slice(&created).unwrap();
        assert_eq!(
            (first, &created["type"]),
            (TEXT, &json!("response.created"))
        );
        assert_eq!(stack.backend.requests().len(), 1);
    });
}

#[test]
fn an_offer_of_compression_is_declined_and_the_connection_works() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        for offer in [
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover, permessage-deflate",
        ] {
            let field = format!("sec-websocket-extensions: {offer}\r\n");
            let (mut raw, head) = Raw::open(&stack, &field).await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
            let message = create(None, "hi", None).to_string();
            raw.send(&frame(TEXT, message.as_bytes())).await;
            let (first, event) = raw.frame().await.unwrap();
            assert_eq!(first, TEXT);
            let event: Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(event["type"], "response.created");
        }
    });
}

#[test]
fn half_a_frame_and_a_hang_up_harm_nobody() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let (mut raw, _) = Raw::open(&stack, "").await;
        raw.send(&frame(TEXT, &[b' '; 300])[..100]).await;
        drop(raw);
        let mut other = connect(&stack).await;
        id(&turn(&mut other, &create(None, "hi", None)).await);
        assert_eq!(refused(&stack, "protocol").await, 0);
    });
}

#[test]
fn an_opening_that_is_none_is_told_why() {
    let stack = socket::start("");
    run(async {
        for (fields, status) in [
            (
                "sec-websocket-version: 7\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                426,
            ),
            ("sec-websocket-version: 13\r\n", 400),
            (
                "sec-websocket-version: 13\r\nsec-websocket-key: short\r\n",
                400,
            ),
        ] {
            let request = format!(
                "GET /v1/responses HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n{fields}\r\n"
            );
            let answer = stack::raw(stack.addresses.listen, request.as_bytes()).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert_eq!(
                answer.contains("sec-websocket-version: 13"),
                status == 426,
                "{answer}"
            );
        }
        assert_eq!(refused(&stack, "handshake").await, 3);
    });
}
