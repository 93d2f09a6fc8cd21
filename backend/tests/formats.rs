//! Tensor formats: each block layout against what the `gguf` package (PyPI, 0.19) decodes, and models in every format.

mod support;

use serde::Deserialize;
use support::{Meta, SMALL, Sizes};
use tokenlag_backend::{Model, quant::Format};

/// `support/formats.json`: one block of random bytes a format.
#[derive(Deserialize)]
struct Block {
    format: String,
    code: u32,
    /// Hexadecimal.
    bytes: String,
    sum: f64,
    every_seventh: Vec<f32>,
}

#[test]
fn blocks_decode_as_ggml_decodes_them() {
    let blocks: Vec<Block> =
        serde_json::from_str(include_str!("support/formats.json")).expect("well-formed");
    assert_eq!(blocks.len(), 13);
    for block in blocks {
        let format = Format::from_code(block.code).expect("readable");
        let bytes: Vec<u8> = (0..block.bytes.len() / 2)
            .map(|i| u8::from_str_radix(&block.bytes[2 * i..2 * i + 2], 16).expect("hexadecimal"))
            .collect();
        let (values, size) = format.block();
        let mut out = vec![0.0; bytes.len() / size * values];
        format.decode(&bytes, &mut out);
        for (out, expected) in out.iter().step_by(7).zip(&block.every_seventh) {
            assert!(
                (out - expected).abs() <= 1e-6 * expected.abs(),
                "{}: {out} {expected}",
                block.format
            );
        }
        let sum: f64 = out.iter().map(|&value| f64::from(value)).sum();
        assert!(
            (sum - block.sum).abs() < 1e-3,
            "{}: {sum} {}",
            block.format,
            block.sum
        );
    }
}

/// The same weights as F32, F16 and BF16 give nearly the same logits; as Q8_0 exactly those of F32, which is quantised so.
#[test]
fn models_of_any_float_format_agree() {
    let writer = support::model(SMALL, 3);
    let tokens: Vec<u32> = (0..40).map(|i| i * 37 % 256).collect();
    let logits = |writer: &support::Writer| {
        Model::from_bytes(&writer.bytes())
            .expect("loads")
            .logits(&tokens)
    };
    let exact = logits(&writer);
    for (code, encode) in [(1, f16 as fn(f32) -> [u8; 2]), (30, bf16)] {
        let mut halved = writer.clone();
        for (_, shape, kind, bytes) in halved
            .tensors
            .iter_mut()
            .filter(|tensor| tensor.1.len() == 2)
        {
            assert!(shape[0].is_multiple_of(32) || shape[0] == 96);
            *bytes = floats(bytes).flat_map(encode).collect();
            *kind = code;
        }
        let (mut same, mut all) = (0, 0);
        for (a, b) in exact.iter().zip(&logits(&halved)) {
            all += 1;
            same += usize::from(largest(a) == largest(b));
        }
        assert!(same * 10 >= all * 8, "type {code}: {same} of {all}");
    }
    let mut quantised = writer.clone();
    for (_, _, kind, bytes) in quantised
        .tensors
        .iter_mut()
        .filter(|tensor| tensor.1.len() == 2)
    {
        *bytes = floats(bytes)
            .collect::<Vec<_>>()
            .chunks(32)
            .flat_map(q8_0)
            .collect();
        *kind = 8;
    }
    assert_eq!(logits(&quantised), exact);
}

/// Rows that do not fill their last block, one head, an output matrix of its own, scaled positions.
#[test]
fn unusual_shapes_load_and_compute() {
    let sizes = Sizes {
        layers: 1,
        width: 40,
        heads: 1,
        kv_heads: 1,
        head: 20,
        hidden: 33,
        window: 16,
    };
    let mut writer = support::model(sizes, 4);
    writer.set("llama.rope.scaling.type", Meta::Text("linear".into()));
    writer.set("llama.rope.scaling.factor", Meta::F32(4.0));
    let plain = Model::from_bytes(&writer.bytes())
        .expect("loads")
        .logits(&[1, 2, 3]);
    let embedding = writer.tensors[0].clone();
    writer
        .tensors
        .push(("output.weight".into(), embedding.1, 0, embedding.3));
    let own = Model::from_bytes(&writer.bytes()).expect("loads");
    assert_eq!(
        own.logits(&[1, 2, 3]),
        plain,
        "the same matrix again is the same model"
    );
    assert!(plain.iter().flatten().all(|logit| logit.is_finite()));

    // Llama 3's factors: dividing all frequencies by four is linear scaling by four.
    writer.set("llama.rope.scaling.factor", Meta::F32(1.0));
    writer.tensors.push((
        "rope_freqs.weight".into(),
        vec![10],
        0,
        4f32.to_le_bytes().repeat(10),
    ));
    assert_eq!(
        Model::from_bytes(&writer.bytes())
            .expect("loads")
            .logits(&[1, 2, 3]),
        plain
    );
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn largest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

/// Cut off, not rounded: good enough here, for values in the normal range.
fn f16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = (bits & 0x7fff_ffff).saturating_sub(112 << 23) >> 13;
    (sign | magnitude as u16).to_le_bytes()
}

fn bf16(value: f32) -> [u8; 2] {
    ((value.to_bits() >> 16) as u16).to_le_bytes()
}

/// ggml's reference quantisation of a block. The scale's f16 is exact for what [`f16`] cuts off only if it is rounded first,
/// so the block is built from a scale that is an f16 already.
fn q8_0(block: &[f32]) -> Vec<u8> {
    let largest = block
        .iter()
        .fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let mut out = rounded_f16(scale).to_vec();
    out.extend(
        block
            .iter()
            .map(|value| (value * (1.0 / scale)).round() as i8 as u8),
    );
    out
}

fn rounded_f16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    // Half of the last place that stays, ties to even.
    f16(f32::from_bits(bits + 0xfff + (bits >> 13 & 1)))
}
