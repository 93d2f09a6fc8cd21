//! Writes small GGUF files: any tokenizer, any tensor format, weights from a seed.
#![allow(dead_code, reason = "each test file uses its part")]

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A metadata value to write.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<Vec<u8>>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

/// A file under construction.
#[derive(Clone, Default)]
pub struct Writer {
    pub metadata: Vec<(String, Meta)>,
    /// Name, shape (row length first), ggml type, bytes.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

impl Writer {
    /// Sets a key, in place of what it was.
    pub fn set(&mut self, key: &str, value: Meta) {
        self.metadata.retain(|(existing, _)| existing != key);
        self.metadata.push((key.to_owned(), value));
    }

    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(existing, _)| existing != key);
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text);
        };
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key.as_bytes());
            let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
                out.extend(9u32.to_le_bytes());
                out.extend(kind.to_le_bytes());
                out.extend((count as u64).to_le_bytes());
            };
            match value {
                Meta::U32(n) => out.extend([4u32.to_le_bytes(), n.to_le_bytes()].concat()),
                Meta::F32(n) => out.extend([6u32.to_le_bytes(), n.to_le_bytes()].concat()),
                Meta::Flag(flag) => {
                    out.extend(7u32.to_le_bytes());
                    out.push(u8::from(*flag));
                }
                Meta::Text(value) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, value.as_bytes());
                }
                Meta::Texts(texts) => {
                    list(&mut out, 8, texts.len());
                    texts.iter().for_each(|value| text(&mut out, value));
                }
                Meta::F32s(numbers) => {
                    list(&mut out, 6, numbers.len());
                    numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
                }
                Meta::I32s(numbers) => {
                    list(&mut out, 5, numbers.len());
                    numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
                }
            }
        }
        let mut offset = 0u64;
        for (name, shape, code, bytes) in &self.tensors {
            text(&mut out, name.as_bytes());
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(code.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += bytes.len().next_multiple_of(32) as u64;
        }
        for (_, _, _, bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }
}

/// Sizes of a generated model.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head: u32,
    pub hidden: u32,
    pub window: u32,
}

pub const SMALL: Sizes = Sizes {
    layers: 3,
    width: 64,
    heads: 4,
    kv_heads: 2,
    head: 16,
    hidden: 96,
    window: 64,
};

/// A random model with a byte-pair tokenizer of 256 bytes, a few merges and ChatML tokens. Its matrices are F32.
pub fn model(sizes: Sizes, seed: u64) -> Writer {
    let mut writer = byte_pair_tokenizer();
    let Some((_, Meta::Texts(tokens))) = writer
        .metadata
        .iter()
        .find(|(key, _)| key == "tokenizer.ggml.tokens")
    else {
        unreachable!("the tokenizer has tokens")
    };
    let vocabulary = tokens.len() as u32;
    shape(&mut writer, sizes);
    weights(&mut writer, sizes, vocabulary, seed);
    writer
}

/// The `llama.*` keys.
pub fn shape(writer: &mut Writer, sizes: Sizes) {
    writer.set("general.architecture", Meta::Text("llama".into()));
    writer.set("general.name", Meta::Text("generated".into()));
    for (key, value) in [
        ("block_count", sizes.layers),
        ("embedding_length", sizes.width),
        ("feed_forward_length", sizes.hidden),
        ("attention.head_count", sizes.heads),
        ("attention.head_count_kv", sizes.kv_heads),
        ("attention.key_length", sizes.head),
        ("attention.value_length", sizes.head),
        ("rope.dimension_count", sizes.head),
        ("context_length", sizes.window),
    ] {
        writer.set(&format!("llama.{key}"), Meta::U32(value));
    }
    writer.set("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5));
}

/// Random weights, lively enough that greedy decoding does not fall into one token at once.
pub fn weights(writer: &mut Writer, sizes: Sizes, vocabulary: u32, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tensor = |writer: &mut Writer, name: &str, shape: &[u32], spread: f32| {
        let count: u32 = shape.iter().product();
        let bytes = (0..count)
            .flat_map(|_| {
                let unit = random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
                let value = if shape.len() == 1 {
                    1.0 + unit * 0.1
                } else {
                    unit * spread
                };
                value.to_le_bytes()
            })
            .collect();
        let shape = shape.iter().map(|&size| u64::from(size)).collect();
        writer.tensors.push((name.to_owned(), shape, 0, bytes));
    };
    let (query, key) = (sizes.heads * sizes.head, sizes.kv_heads * sizes.head);
    let spread = |inputs: u32| (3.0 / inputs as f32).sqrt();
    tensor(writer, "token_embd.weight", &[sizes.width, vocabulary], 1.0);
    tensor(writer, "output_norm.weight", &[sizes.width], 0.0);
    for layer in 0..sizes.layers {
        let mut part = |name: &str, shape: &[u32], spread: f32| {
            tensor(writer, &format!("blk.{layer}.{name}.weight"), shape, spread);
        };
        part("attn_norm", &[sizes.width], 0.0);
        part("attn_q", &[sizes.width, query], 2.0 * spread(sizes.width));
        part("attn_k", &[sizes.width, key], 2.0 * spread(sizes.width));
        part("attn_v", &[sizes.width, key], spread(sizes.width));
        part("attn_output", &[query, sizes.width], 2.0 * spread(query));
        part("ffn_norm", &[sizes.width], 0.0);
        part(
            "ffn_gate",
            &[sizes.width, sizes.hidden],
            spread(sizes.width),
        );
        part("ffn_up", &[sizes.width, sizes.hidden], spread(sizes.width));
        part(
            "ffn_down",
            &[sizes.hidden, sizes.width],
            spread(sizes.hidden),
        );
    }
}

/// How GPT-2 tokenizers write a byte.
pub fn written(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('?')
}

/// Bytes 0 to 255 as ids 0 to 255, then merges, then control tokens.
pub fn byte_pair_tokenizer() -> Writer {
    let pairs = [
        "h e",
        "l l",
        "he ll",
        "hell o",
        "Ġ w",
        "o r",
        "Ġw or",
        "l d",
        "Ġwor ld",
        "Ġ Ġ",
        "ĠĠ ĠĠ",
        "a a",
        "aa aa",
    ];
    let mut tokens: Vec<Vec<u8>> = (0..=255)
        .map(|byte| written(byte).to_string().into_bytes())
        .collect();
    tokens.extend(pairs.iter().map(|pair| pair.replace(' ', "").into_bytes()));
    let normal = tokens.len();
    for text in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] {
        tokens.push(text.into());
    }
    let mut kinds = vec![1; normal];
    kinds.resize(tokens.len(), 3);
    let mut writer = Writer::default();
    writer.set("tokenizer.ggml.model", Meta::Text("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Meta::Text("smollm".into()));
    writer.set("tokenizer.ggml.eos_token_id", Meta::U32(normal as u32 + 2));
    writer.set("tokenizer.ggml.bos_token_id", Meta::U32(normal as u32));
    writer.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    writer.set("tokenizer.ggml.token_type", Meta::I32s(kinds));
    let merges = pairs.iter().map(|pair| pair.as_bytes().to_vec()).collect();
    writer.set("tokenizer.ggml.merges", Meta::Texts(merges));
    writer
}
