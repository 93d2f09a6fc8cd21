//! The kernels in plain Rust: what every processor runs where no vector kernel fits, and what those are tested against.
//!
//! All are `inline(always)`: kernel.rs compiles some of them a second time with AVX2 switched on.

use crate::{
    half::{f16_to_f32, f32_to_f16},
    matrix::{BLOCK, LANES, Matrix},
};

/// Quantises one row to Q8_0 as ggml does: scale = largest magnitude / 127, rounded to f16 only after use.
#[inline(always)]
pub(crate) fn quantise(row: &[f32], quants: &mut [i8], magnitudes: &mut [u8], scales: &mut [f32]) {
    let mut padded;
    let places = quants
        .chunks_exact_mut(BLOCK)
        .zip(magnitudes.chunks_exact_mut(BLOCK));
    for ((block, (quants, magnitudes)), scale) in row.chunks(BLOCK).zip(places).zip(scales) {
        let values: &[f32; BLOCK] = match block.try_into() {
            Ok(values) => values,
            Err(_) => {
                padded = [0.0; BLOCK];
                padded[..block.len()].copy_from_slice(block);
                &padded
            }
        };
        // Magnitudes compare as integers, which vectorises; f32::max does not.
        let largest = values.iter().fold(0u32, |largest, value| {
            largest.max(value.to_bits() & 0x7fff_ffff)
        });
        let largest = f32::from_bits(largest);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        *scale = f16_to_f32(f32_to_f16(largest / 127.0));
        for ((value, quant), magnitude) in values.iter().zip(quants).zip(magnitudes) {
            // Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits.
            *quant = (value * inverse + 12_582_912.0).to_bits() as i8;
            *magnitude = quant.unsigned_abs();
        }
    }
}

/// One group of eight matrix rows times one activation row.
#[inline(always)]
pub(crate) fn multiply_group(
    matrix: &Matrix,
    group: usize,
    quants: &[i8],
    scales: &[f32],
) -> [f32; LANES] {
    let weights = matrix
        .quants
        .chunks_exact(BLOCK * LANES)
        .skip(group * matrix.blocks);
    let factors = matrix
        .scales
        .chunks_exact(LANES)
        .skip(group * matrix.blocks);
    let mut sums = [0f32; LANES];
    for (((weights, factors), quants), scale) in weights
        .zip(factors)
        .zip(quants.chunks_exact(BLOCK))
        .zip(scales)
    {
        let mut dots = [0i32; LANES];
        for (weights, quants) in weights.chunks_exact(4 * LANES).zip(quants.chunks_exact(4)) {
            for (dot, weights) in dots.iter_mut().zip(weights.chunks_exact(4)) {
                for (&weight, &quant) in weights.iter().zip(quants) {
                    *dot += i32::from(weight) * i32::from(quant);
                }
            }
        }
        for ((sum, dot), factor) in sums.iter_mut().zip(dots).zip(factors) {
            *sum += factor * scale * dot as f32;
        }
    }
    sums
}

/// Dot products of a query with keys in tiles of eight: `keys` is tiles x size x 8.
#[inline(always)]
pub(crate) fn scores(query: &[f32], keys: &[u16], out: &mut [f32]) {
    for (tile, out) in keys
        .chunks_exact(query.len() * 8)
        .zip(out.chunks_exact_mut(8))
    {
        out.fill(0.0);
        for (keys, query) in tile.chunks_exact(8).zip(query) {
            for (out, &key) in out.iter_mut().zip(keys) {
                *out += query * f16_to_f32(key);
            }
        }
    }
}

/// Adds the weighted sum of values, one row of `out.len()` a weight.
#[inline(always)]
pub(crate) fn mix(weights: &[f32], values: &[u16], out: &mut [f32]) {
    for (weight, values) in weights.iter().zip(values.chunks_exact(out.len())) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out += weight * f16_to_f32(value);
        }
    }
}

/// Replaces scores by `exp(scale * (score - largest))` and returns their sum.
#[inline(always)]
pub(crate) fn soften(scores: &mut [f32], scale: f32) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 8];
    let mut chunks = scores.chunks_exact(8);
    for chunk in &mut chunks {
        for (largest, &score) in largest.iter_mut().zip(chunk) {
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let rest = chunks.remainder().iter();
    let largest = rest
        .chain(&largest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });

    let mut sums = [0f32; 8];
    let mut chunks = scores.chunks_exact_mut(8);
    for chunk in &mut chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp((*score - largest) * scale);
            *sum += *score;
        }
    }
    let mut sum = sums.iter().sum();
    for score in chunks.into_remainder() {
        *score = exp((*score - largest) * scale);
        sum += *score;
    }
    sum
}

/// Root-mean-square normalisation: `row / sqrt(mean(row^2) + epsilon) * weights`.
#[inline(always)]
pub(crate) fn normalise(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut sums = [0f64; 8];
    let chunks = row.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(x * x)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(x * x);
        }
    }
    let mean = ((sums.iter().sum::<f64>() + rest) / row.len() as f64) as f32;
    let scale = 1.0 / (mean + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(row).zip(weights) {
        *out = x * scale * weight;
    }
}

/// `gate / (1 + exp(-gate)) * up`, written over `gate`.
#[inline(always)]
pub(crate) fn gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Rounds to f16.
#[inline(always)]
pub(crate) fn halve(values: &[f32], out: &mut [u16]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = f32_to_f16(value);
    }
}

/// e^x within two units in the last place, for finite x; 0 below -87, and the largest power of the range above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let bounded = if x < -87.0 { -87.0 } else { x };
    let bounded = if bounded > 88.0 { 88.0 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + 12_582_912.0;
    let power = shifted - 12_582_912.0;
    // ln 2 in two parts, the first exact in few bits.
    let r = bounded - power * 0.693_359_4 - power * -2.121_944_4e-4;
    let poly = 1.0 / 5040.0;
    let poly = poly * r + 1.0 / 720.0;
    let poly = poly * r + 1.0 / 120.0;
    let poly = poly * r + 1.0 / 24.0;
    let poly = poly * r + 1.0 / 6.0;
    let poly = poly * r + 0.5;
    let poly = poly * r * r + r + 1.0;
    let exponent = (shifted.to_bits() << 23).wrapping_add(127 << 23);
    let result = poly * f32::from_bits(exponent);
    if x < -87.0 { 0.0 } else { result }
}
