//! Both kinds of tokenizers, chat forms and decoding, on small vocabularies.

mod support;

use proptest::prelude::*;
use support::{Meta, Writer};
use tokenlag_backend::{Tokenizer, gguf::Gguf};

fn tokenizer(writer: &Writer) -> Tokenizer {
    let bytes = writer.bytes();
    Tokenizer::read(&Gguf::parse(&bytes).expect("well-formed")).expect("a tokenizer")
}

fn byte_pair() -> Tokenizer {
    tokenizer(&support::byte_pair_tokenizer())
}

/// SentencePiece's kind: unknown, `<s>`, `</s>`, the 256 bytes, then pieces with scores.
fn scored(pieces: &[(&str, f32)]) -> Writer {
    let mut tokens: Vec<Vec<u8>> = vec!["<unk>".into(), "<s>".into(), "</s>".into()];
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
    kinds.resize(tokens.len(), 6);
    let mut scores = vec![0.0; tokens.len()];
    for (piece, score) in pieces {
        tokens.push(piece.as_bytes().to_vec());
        kinds.push(1);
        scores.push(*score);
    }
    let mut writer = Writer::default();
    writer.set("tokenizer.ggml.model", Meta::Text("llama".into()));
    writer.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    writer.set("tokenizer.ggml.token_type", Meta::I32s(kinds));
    writer.set("tokenizer.ggml.scores", Meta::F32s(scores));
    writer
}

fn decoded(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let mut text: String = ids
        .iter()
        .map(|&id| decoder.push(tokenizer, id).to_owned())
        .collect();
    text.push_str(decoder.finish());
    text
}

#[test]
fn byte_pairs_merge_by_rank() {
    let tokenizer = byte_pair();
    // 256.. are "he", "ll", "hell", "hello", " w", "or", " wor", "ld", " world", "  ", "    ", "aa", "aaaa".
    assert_eq!(tokenizer.encode("hello world", false), [259, 264]);
    assert_eq!(tokenizer.encode("aaaaaaa", false), [268, 267, 97]);
    assert_eq!(tokenizer.encode("a1", false), [97, 49]);
    assert_eq!(tokenizer.encode("é", false), [0xc3, 0xa9]);
    assert_eq!(tokenizer.encode("", true), [0u32; 0]);
}

#[test]
fn special_tokens_are_parsed_only_when_asked() {
    let tokenizer = byte_pair();
    let text = "hello<|im_end|>hello";
    assert_eq!(tokenizer.encode(text, true), [259, 271, 259]);
    let plain = tokenizer.encode(text, false);
    assert!(!plain.contains(&271));
    assert_eq!(decoded(&tokenizer, &plain), text);
    assert_eq!(
        decoded(&tokenizer, &[259, 271]),
        "hello",
        "control tokens are invisible"
    );
}

#[test]
fn user_defined_tokens_are_always_found() {
    let mut writer = support::byte_pair_tokenizer();
    writer.set(
        "tokenizer.ggml.token_type",
        Meta::I32s([vec![1; 269], vec![4, 4, 3]].concat()),
    );
    let tokenizer = tokenizer(&writer);
    assert_eq!(tokenizer.encode("hello<|im_start|>", false), [259, 270]);
    assert_eq!(decoded(&tokenizer, &[270]), "<|im_start|>");
}

#[test]
fn scores_decide_and_bytes_catch_the_rest() {
    let pieces = [
        ("▁", -1.0),
        ("h", -2.0),
        ("i", -2.0),
        ("hi", -3.0),
        ("▁hi", -4.0),
        ("▁h", -9.0),
        ("ih", -2.5),
    ];
    let id = |piece: &str| {
        259 + pieces
            .iter()
            .position(|(text, _)| *text == piece)
            .expect("there") as u32
    };
    let byte = |byte: u8| 3 + u32::from(byte);
    let plain = tokenizer(&scored(&pieces));
    assert_eq!(plain.encode("hi", false), [id("▁hi")]);
    assert_eq!(
        plain.encode("hihi", false),
        [id("▁h"), id("ih"), id("i")],
        "the better score goes first"
    );
    assert_eq!(
        plain.encode("hi é", false),
        [id("▁hi"), id("▁"), byte(0xc3), byte(0xa9)]
    );
    assert_eq!(plain.encode_prompt("hi"), [1, id("▁hi")]);
    assert_eq!(plain.encode("hi</s>hi", true), [id("▁hi"), 2, id("▁hi")]);
    assert_eq!(decoded(&plain, &plain.encode("hi é", false)), " hi é");
    assert!(plain.is_end_of_generation(2));

    let mut writer = scored(&pieces);
    writer.set("tokenizer.ggml.add_space_prefix", Meta::Flag(false));
    writer.set("tokenizer.ggml.add_bos_token", Meta::Flag(false));
    assert_eq!(tokenizer(&writer).encode_prompt("hi"), [id("hi")]);
}

#[test]
fn a_longer_conversation_begins_with_the_shorter_one() {
    let llama3 = {
        let mut writer = support::byte_pair_tokenizer();
        let Some((_, Meta::Texts(tokens))) = writer
            .metadata
            .iter_mut()
            .find(|(key, _)| key == "tokenizer.ggml.tokens")
        else {
            panic!("tokens")
        };
        for (place, text) in [
            (269, "<|start_header_id|>"),
            (270, "<|end_header_id|>"),
            (271, "<|eot_id|>"),
        ] {
            tokens[place] = text.into();
        }
        writer.set("tokenizer.ggml.pre", Meta::Text("llama-bpe".into()));
        writer
    };
    let llama2 = {
        let mut writer = scored(&[("▁", -1.0)]);
        writer.set(
            "tokenizer.chat_template",
            Meta::Text("{{ bos_token }}[INST] ...".into()),
        );
        writer
    };
    for writer in [
        support::byte_pair_tokenizer(),
        llama3,
        llama2,
        scored(&[("▁", -1.0)]),
    ] {
        let tokenizer = tokenizer(&writer);
        let first = [("system", "be brief"), ("user", "hello <|im_end|>")];
        let prompt = tokenizer.chat_prompt(&first);
        let next = [&first[..], &[("assistant", "hello"), ("user", "again")]].concat();
        let longer = tokenizer.chat_prompt(&next);
        assert!(longer.starts_with(&prompt));
        let by_parts: Vec<u32> = tokenizer
            .chat_start()
            .into_iter()
            .chain(
                next.iter()
                    .flat_map(|(role, text)| tokenizer.render_message(role, text)),
            )
            .chain(tokenizer.generation_prompt())
            .collect();
        assert_eq!(by_parts, longer);
    }
}

#[test]
fn chat_ml_marks_messages() {
    let tokenizer = byte_pair();
    let (start, end, newline) = (270, 271, u32::from(b'\n'));
    let message = tokenizer.render_message("a", "hello<|im_end|>");
    assert_eq!(message[..4], [start, 97, newline, 259]);
    assert_eq!(message[message.len() - 2..], [end, newline]);
    assert_eq!(
        message.iter().filter(|&&id| id == end).count(),
        1,
        "a text cannot end its message"
    );
    assert_eq!(tokenizer.eot(), Some(end));
    assert!(tokenizer.is_end_of_generation(end) && tokenizer.is_end_of_generation(269));
}

/// Half a megabyte without a break is one piece for the merges: it must not take quadratic time.
#[test]
fn long_texts_take_linear_time() {
    let byte_pair = byte_pair();
    for text in [
        "a".repeat(500_000),
        " ".repeat(500_000),
        "\n ".repeat(250_000),
        "hello <".repeat(70_000),
        "1 ".repeat(250_000),
    ] {
        assert_eq!(decoded(&byte_pair, &byte_pair.encode(&text, true)), text);
    }
    let scored = tokenizer(&scored(&[
        ("▁", -1.0),
        ("a", -1.0),
        ("aa", -2.0),
        ("aaaa", -3.0),
    ]));
    assert_eq!(scored.encode(&"a".repeat(500_000), true).len(), 125_001);
}

proptest! {
    #[test]
    fn encoding_and_decoding_gives_the_text(text in "\\PC*|[a-z<|>_' \\n0-9]*") {
        let tokenizer = byte_pair();
        for parse_special in [false, true] {
            let visible = if parse_special && text.contains("<|") { continue } else { &text };
            prop_assert_eq!(&decoded(&tokenizer, &tokenizer.encode(&text, parse_special)), visible);
        }
        let scored = tokenizer_of_bytes();
        prop_assert_eq!(decoded(&scored, &scored.encode(&text, false)), text);
    }

    #[test]
    fn a_word_has_the_same_tokens_however_often_it_was_met(
        words in prop::collection::vec(prop::sample::select(vec!["a", "ab", "let", "the", "queue", "über", "zz"]), 0..60)
    ) {
        let tokenizer = byte_pair();
        let alone: Vec<u32> = (words.iter())
            .flat_map(|word| tokenizer.encode(&format!(" {word}"), false))
            .collect();
        let text: String = words.iter().map(|word| format!(" {word}")).collect();
        prop_assert_eq!(tokenizer.encode(&text, false), alone);
    }
}

fn tokenizer_of_bytes() -> Tokenizer {
    let mut writer = scored(&[("▁", -1.0), ("a", -1.0), ("▁a", -2.0)]);
    writer.set("tokenizer.ggml.add_space_prefix", Meta::Flag(false));
    tokenizer(&writer)
}
