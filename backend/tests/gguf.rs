//! Files that are not what they should be: each fails with its own error that says what to do, and none panics.

mod support;

use std::path::Path;

use proptest::prelude::*;
use support::{Meta, SMALL, Sizes, Writer};
use tokenlag_backend::{Model, ModelError, gguf::Gguf};

const TINY: Sizes = Sizes {
    layers: 1,
    width: 32,
    heads: 2,
    kv_heads: 1,
    head: 16,
    hidden: 32,
    window: 32,
};

fn error(writer: &Writer) -> String {
    Model::from_bytes(&writer.bytes())
        .expect_err("it must not load")
        .to_string()
}

/// A model with one change, and what the error must say.
fn check(change: impl FnOnce(&mut Writer), parts: &[&str]) {
    let mut writer = support::model(SMALL, 1);
    change(&mut writer);
    let error = error(&writer);
    for part in parts {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn containers_that_cannot_be_read() {
    let bytes = support::model(SMALL, 1).bytes();
    let error = |bytes: &[u8]| Model::from_bytes(bytes).expect_err("damaged").to_string();
    assert!(error(b"").contains("the magic number at byte 0"));
    assert!(error(b"<html><body>").contains("not a GGUF file"));
    let mut old = bytes.clone();
    old[4] = 1;
    assert!(error(&old).contains("GGUF version 1 cannot be read"));
    let cut = error(&bytes[..bytes.len() - 100]);
    assert!(
        cut.contains("cut short") && cut.contains("a tensor's data"),
        "{cut}"
    );
    let cut = error(&bytes[..60]);
    assert!(cut.contains("the file ends at byte 60"), "{cut}");
    // A count of 2^60 tensors allocates nothing.
    let mut huge = bytes;
    huge[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(error(&huge).contains("the tensor count"));
}

#[test]
fn models_of_other_kinds() {
    check(
        |w| w.set("general.architecture", Meta::Text("gemma3".into())),
        &["the architecture is 'gemma3'", "only 'llama'"],
    );
    check(
        |w| w.set("llama.expert_count", Meta::U32(8)),
        &["8 experts", "dense"],
    );
    check(
        |w| w.set("llama.rope.scaling.type", Meta::Text("yarn".into())),
        &["'yarn'"],
    );
    check(
        |w| w.remove("llama.block_count"),
        &["'llama.block_count' is missing"],
    );
    check(
        |w| w.set("llama.block_count", Meta::F32(2.5)),
        &["'llama.block_count' is not a whole number"],
    );
    check(
        |w| w.set("llama.block_count", Meta::U32(4)),
        &["'blk.3.attn_norm.weight' is missing"],
    );
    check(
        |w| w.set("llama.attention.head_count_kv", Meta::U32(3)),
        &["head_count_kv' does not divide"],
    );
    check(
        |w| w.set("llama.embedding_length", Meta::U32(96)),
        &["token_embd.weight", "[64,", "[96,"],
    );
    check(|w| w.tensors[2].2 = 16, &["ggml type 16", "Q6_K"]);
    check(
        |w| {
            let bias = ("blk.0.attn_q.bias".to_owned(), vec![64], 0, vec![0; 256]);
            w.tensors.push(bias);
        },
        &["blk.0.attn_q.bias", "without biases"],
    );
}

#[test]
fn tokenizers_of_other_kinds() {
    check(
        |w| w.remove("tokenizer.ggml.model"),
        &["no tokenizer", "tokenizer.ggml.model"],
    );
    check(
        |w| w.remove("tokenizer.ggml.tokens"),
        &["no tokenizer", "tokenizer.ggml.tokens"],
    );
    check(
        |w| w.set("tokenizer.ggml.model", Meta::Text("t5".into())),
        &["kind 't5'"],
    );
    check(
        |w| w.set("tokenizer.ggml.pre", Meta::Text("tekken".into())),
        &["pre-tokenizer 'tekken'"],
    );
    check(
        |w| w.set("tokenizer.ggml.token_type", Meta::I32s(vec![1])),
        &["token_type' has 1 entries for 272"],
    );
    check(
        |w| w.set("tokenizer.ggml.bos_token_id", Meta::U32(5000)),
        &["bos_token_id' is not a token id"],
    );
    check(
        |w| w.set("tokenizer.ggml.tokens", Meta::Texts(vec![b"a".to_vec()])),
        &["token_type' has 272 entries for 1"],
    );
}

#[test]
fn errors_of_files_name_them() {
    let missing = Model::open(Path::new("/nowhere/model.gguf")).expect_err("no such file");
    assert!(matches!(missing, ModelError::Read { .. }));
    assert!(
        missing
            .to_string()
            .starts_with("cannot read the model file /nowhere/model.gguf")
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("odd.gguf");
    std::fs::write(&path, b"GGUF").expect("writable");
    let cut = Model::open(&path).expect_err("cut short").to_string();
    assert!(
        cut.contains("odd.gguf cannot be used: the file ends at byte 4"),
        "{cut}"
    );

    let mut nameless = support::model(TINY, 1);
    nameless.remove("general.name");
    std::fs::write(&path, nameless.bytes()).expect("writable");
    assert_eq!(Model::open(&path).expect("loads").name(), "odd");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Gguf::parse(&bytes);
        let _ = Model::from_bytes(&[b"GGUF\x03\0\0\0", bytes.as_slice()].concat());
    }

    #[test]
    fn mutated_models_never_panic(
        changes in prop::collection::vec((0usize..8000, any::<u8>()), 1..6),
        end in prop::option::of(0usize..20_000),
    ) {
        let mut bytes = support::model(TINY, 1).bytes();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        bytes.truncate(end.unwrap_or(usize::MAX));
        if let Ok(model) = Model::from_bytes(&bytes) {
            model.logits(&[0, 1, 2]);
            model.tokenizer().encode("hello <|im_end|> world", true);
            model.tokenizer().chat_prompt(&[("user", "hello")]);
        }
    }
}
