//! The tensor formats of GGUF files, and how their blocks become f32.
//!
//! Layouts are those of ggml (`ggml-common.h`): a block is a run of values along a row that shares its scales.

use crate::half::{bf16_to_f32, f16_to_f32};

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are ggml's own names")]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// The formats that can be read, for messages.
pub const READABLE: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K and Q6_K";

impl Format {
    /// The format with ggml's number `code`, if it can be read.
    pub fn from_code(code: u32) -> Option<Format> {
        Some(match code {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            6 => Format::Q5_0,
            7 => Format::Q5_1,
            8 => Format::Q8_0,
            10 => Format::Q2K,
            11 => Format::Q3K,
            12 => Format::Q4K,
            13 => Format::Q5K,
            14 => Format::Q6K,
            30 => Format::Bf16,
            _ => return None,
        })
    }

    /// Values and bytes of one block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q8_0 => (32, 34),
            Format::Q2K => (256, 84),
            Format::Q3K => (256, 110),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
        }
    }

    /// Decodes whole blocks: `bytes` and `out` hold the same number of them.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (values, size) = self.block();
        debug_assert_eq!(bytes.len() / size, out.len() / values);
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(values)) {
            match self {
                Format::F32 => {
                    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]])
                }
                Format::F16 => out[0] = half(block, 0),
                Format::Bf16 => out[0] = bf16_to_f32(u16::from_le_bytes([block[0], block[1]])),
                Format::Q4_0 => nibbles(&block[2..], 0, out, |q| half(block, 0) * (q - 8.0)),
                Format::Q4_1 => {
                    nibbles(&block[4..], 0, out, |q| half(block, 0) * q + half(block, 2))
                }
                Format::Q5_0 => {
                    nibbles(&block[6..], word(block, 2), out, |q| {
                        half(block, 0) * (q - 16.0)
                    });
                }
                Format::Q5_1 => {
                    nibbles(&block[8..], word(block, 4), out, |q| {
                        half(block, 0) * q + half(block, 2)
                    });
                }
                Format::Q8_0 => {
                    let scale = half(block, 0);
                    for (out, &q) in out.iter_mut().zip(&block[2..]) {
                        *out = scale * f32::from(q as i8);
                    }
                }
                Format::Q2K => q2_k(block, out),
                Format::Q3K => q3_k(block, out),
                Format::Q4K => q45_k(block, &block[16..], None, out),
                Format::Q5K => q45_k(block, &block[48..], Some(&block[16..48]), out),
                Format::Q6K => q6_k(block, out),
            }
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// 32 values: low nibbles first, then high ones; bit i of `fifth` is value i's fifth bit.
fn nibbles(packed: &[u8], fifth: u32, out: &mut [f32], value: impl Fn(f32) -> f32) {
    for (i, out) in out.iter_mut().enumerate() {
        let low = if i < 16 {
            packed[i] & 15
        } else {
            packed[i - 16] >> 4
        };
        let high = ((fifth >> i) & 1) as u8;
        *out = value(f32::from(low | high << 4));
    }
}

/// Sixteen runs of 16 values, 2 bits each, with a 4-bit scale and minimum a run.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, packed) = (&block[..16], &block[16..80]);
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (run, out) in out.chunks_exact_mut(16).enumerate() {
        let factor = scale * f32::from(scales[run] & 15);
        let offset = minimum * f32::from(scales[run] >> 4);
        let (bytes, shift) = two_bit_run(run);
        for (i, out) in out.iter_mut().enumerate() {
            *out = factor * f32::from((packed[bytes + i] >> shift) & 3) - offset;
        }
    }
}

/// Sixteen runs of 16 values, 3 bits each, with a signed 6-bit scale a run.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (mask, packed, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half(block, 108);
    for (run, out) in out.chunks_exact_mut(16).enumerate() {
        let low = if run < 8 {
            scales[run] & 15
        } else {
            scales[run - 8] >> 4
        };
        let high = (scales[8 + run % 4] >> (2 * (run / 4))) & 3;
        let factor = scale * (f32::from(low | high << 4) - 32.0);
        let (bytes, shift) = two_bit_run(run);
        for (i, out) in out.iter_mut().enumerate() {
            let low = (packed[bytes + i] >> shift) & 3;
            let high = (mask[bytes % 32 + i] >> (run / 2)) & 1;
            *out = factor * (f32::from(low | high << 2) - 4.0);
        }
    }
}

/// Where a run's 2-bit values lie: 128 values share 32 bytes, one pair of bits for each 32 of them.
fn two_bit_run(run: usize) -> (usize, usize) {
    (run / 8 * 32 + run % 2 * 16, run % 8 / 2 * 2)
}

/// Eight runs of 32 values, 4 bits each (5 with `fifth`), with a 6-bit scale and minimum a run.
fn q45_k(block: &[u8], packed: &[u8], fifth: Option<&[u8]>, out: &mut [f32]) {
    let (scale, minimum, scales) = (half(block, 0), half(block, 2), &block[4..16]);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (factor, offset) = if run < 4 {
            (scales[run] & 63, scales[run + 4] & 63)
        } else {
            (
                (scales[run + 4] & 15) | (scales[run - 4] >> 6) << 4,
                (scales[run + 4] >> 4) | (scales[run] >> 6) << 4,
            )
        };
        let (factor, offset) = (scale * f32::from(factor), minimum * f32::from(offset));
        for (i, out) in out.iter_mut().enumerate() {
            let low = (packed[run / 2 * 32 + i] >> (run % 2 * 4)) & 15;
            let high = fifth.map_or(0, |fifth| (fifth[i] >> run) & 1);
            *out = factor * f32::from(low | high << 4) - offset;
        }
    }
}

/// Sixteen runs of 16 values, 6 bits each, with a signed 8-bit scale a run.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, scale) = (
        &block[..128],
        &block[128..192],
        &block[192..208],
        half(block, 208),
    );
    for (run, out) in out.chunks_exact_mut(16).enumerate() {
        let factor = scale * f32::from(scales[run] as i8);
        // Within each half of 128 values, four groups of 32: two in the low nibbles, two in the high ones.
        let (half, group, side) = (run / 8, run % 8 / 2, run % 2 * 16);
        for (i, out) in out.iter_mut().enumerate() {
            let nibble = (low[half * 64 + group % 2 * 32 + side + i] >> (group / 2 * 4)) & 15;
            let pair = (high[half * 32 + side + i] >> (group * 2)) & 3;
            *out = factor * (f32::from(nibble | pair << 4) - 32.0);
        }
    }
}
