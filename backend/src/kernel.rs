//! The inner loops, vectorised where the processor allows. The only file of this crate with `unsafe`.
//!
//! A row's result never depends on what else is in the batch: each row sums in the same order whatever its company.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector instructions behind a run-time check")
)]

use crate::{
    matrix::{Activations, BLOCK, LANES, Matrix},
    portable,
};

/// Which instructions to use. AVX2 comes together with FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernels {
    avx2: bool,
}

/// Calls the AVX2 version of a kernel if it may run, else the portable one.
macro_rules! choose {
    ($kernels:expr, $name:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if $kernels.avx2 {
            // SAFETY: `avx2` is only true where AVX2, FMA and F16C were detected.
            return unsafe { avx2::$name($($argument),*) };
        }
        portable::$name($($argument),*)
    }};
}

impl Kernels {
    /// The fastest kernels that this processor runs.
    pub(crate) fn detect() -> Kernels {
        #[cfg(target_arch = "x86_64")]
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        #[cfg(not(target_arch = "x86_64"))]
        let avx2 = false;
        Kernels { avx2 }
    }

    /// Plain Rust only.
    #[cfg(test)]
    pub(crate) fn portable() -> Kernels {
        Kernels { avx2: false }
    }

    /// Quantises the first `columns` values of each run of `stride` into a row of `out`, whose rows become that wide.
    pub(crate) fn quantise(
        self,
        rows: &[f32],
        columns: usize,
        stride: usize,
        out: &mut Activations,
    ) {
        let blocks = columns.div_ceil(BLOCK);
        out.blocks = blocks;
        let width = blocks * BLOCK;
        for (i, row) in rows.chunks_exact(stride).enumerate() {
            let row = &row[..columns];
            let quants = &mut out.quants[i * width..][..width];
            let magnitudes = &mut out.magnitudes[i * width..][..width];
            self.quantise_row(
                row,
                quants,
                magnitudes,
                &mut out.scales[i * blocks..][..blocks],
            );
        }
    }

    fn quantise_row(
        self,
        row: &[f32],
        quants: &mut [i8],
        magnitudes: &mut [u8],
        scales: &mut [f32],
    ) {
        choose!(self, quantise(row, quants, magnitudes, scales))
    }

    /// `rows` activation rows times the transposed matrix: `out` becomes rows x `matrix.rows`.
    pub(crate) fn multiply(
        self,
        matrix: &Matrix,
        input: &Activations,
        rows: usize,
        out: &mut [f32],
    ) {
        let width = matrix.blocks * BLOCK;
        assert_eq!(
            input.blocks, matrix.blocks,
            "the input is as wide as the matrix"
        );
        assert!(input.quants.len() >= rows * width && input.magnitudes.len() >= rows * width);
        assert!(input.scales.len() >= rows * matrix.blocks && out.len() >= rows * matrix.rows);
        for group in 0..matrix.rows.div_ceil(LANES) {
            let mut first = 0;
            while first < rows {
                let taken = match rows - first {
                    4.. => self.multiply_rows::<4>(matrix, group, input, first, out),
                    2.. => self.multiply_rows::<2>(matrix, group, input, first, out),
                    _ => self.multiply_rows::<1>(matrix, group, input, first, out),
                };
                first += taken;
            }
        }
    }

    #[inline(always)]
    fn multiply_rows<const ROWS: usize>(
        self,
        matrix: &Matrix,
        group: usize,
        input: &Activations,
        first: usize,
        out: &mut [f32],
    ) -> usize {
        let sums = self.multiply_group::<ROWS>(matrix, group, input, first);
        let lanes = (matrix.rows - group * LANES).min(LANES);
        for (row, sums) in sums.iter().enumerate() {
            let place = &mut out[(first + row) * matrix.rows + group * LANES..][..lanes];
            match place.as_mut_array() {
                Some(whole) => *whole = *sums,
                None => place.copy_from_slice(&sums[..lanes]),
            }
        }
        ROWS
    }

    #[inline(always)]
    fn multiply_group<const ROWS: usize>(
        self,
        matrix: &Matrix,
        group: usize,
        input: &Activations,
        first: usize,
    ) -> [[f32; LANES]; ROWS] {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: AVX2 and FMA were detected; `multiply` checked that the input holds these rows.
            return unsafe { avx2::multiply_group(matrix, group, input, first) };
        }
        std::array::from_fn(|row| {
            let quants =
                &input.quants[(first + row) * matrix.blocks * BLOCK..][..matrix.blocks * BLOCK];
            let scales = &input.scales[(first + row) * matrix.blocks..][..matrix.blocks];
            portable::multiply_group(matrix, group, quants, scales)
        })
    }

    /// Dot products of `query` with keys: `keys` is tiles x size x 8, `out` tiles x 8.
    pub(crate) fn scores(self, query: &[f32], keys: &[u16], out: &mut [f32]) {
        assert_eq!(keys.len(), query.len() * out.len());
        choose!(self, scores(query, keys, out))
    }

    /// Adds the weighted sum of values to `out`: one row of `out.len()` values a weight.
    pub(crate) fn mix(self, weights: &[f32], values: &[u16], out: &mut [f32]) {
        assert_eq!(values.len(), weights.len() * out.len());
        choose!(self, mix(weights, values, out))
    }

    /// Replaces scores by `exp(scale * (score - largest))` and returns their sum.
    pub(crate) fn soften(self, scores: &mut [f32], scale: f32) -> f32 {
        choose!(self, soften(scores, scale))
    }

    /// Root-mean-square normalisation of one row.
    pub(crate) fn normalise(self, row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
        choose!(self, normalise(row, weights, epsilon, out))
    }

    /// `silu(gate) * up`, written over `gate`.
    pub(crate) fn gate(self, gate: &mut [f32], up: &[f32]) {
        choose!(self, gate(gate, up))
    }

    /// Rounds to f16.
    pub(crate) fn halve(self, values: &[f32], out: &mut [u16]) {
        choose!(self, halve(values, out))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::*;

    /// Compiles a portable kernel for these instructions.
    macro_rules! recompile {
        ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {$(
            #[target_feature(enable = "avx2,fma,f16c")]
            pub(super) fn $name($($argument: $kind),*) $(-> $result)? {
                portable::$name($($argument),*)
            }
        )*};
    }

    recompile! {
        quantise(row: &[f32], quants: &mut [i8], magnitudes: &mut [u8], scales: &mut [f32]);
        soften(scores: &mut [f32], scale: f32) -> f32;
        normalise(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]);
        gate(values: &mut [f32], up: &[f32]);
        halve(values: &[f32], out: &mut [u16]);
    }

    /// Eight matrix rows, one a lane, times `ROWS` activation rows.
    ///
    /// # Safety
    /// `input` holds rows up to `first + ROWS`, each as wide as the matrix.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn multiply_group<const ROWS: usize>(
        matrix: &Matrix,
        group: usize,
        input: &Activations,
        first: usize,
    ) -> [[f32; LANES]; ROWS] {
        let blocks = matrix.blocks;
        let weights = &matrix.quants[group * blocks * BLOCK * LANES..][..blocks * BLOCK * LANES];
        let factors = &matrix.scales[group * blocks * LANES..][..blocks * LANES];
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_ps(); ROWS];
        for block in 0..blocks {
            let mut dots = [_mm256_setzero_si256(); ROWS];
            for four in 0..BLOCK / 4 {
                // SAFETY: the slice above has 256 bytes for each block.
                let weights = unsafe {
                    _mm256_loadu_si256(
                        weights
                            .as_ptr()
                            .add(block * BLOCK * LANES + four * 32)
                            .cast(),
                    )
                };
                for (row, dots) in dots.iter_mut().enumerate() {
                    let at = ((first + row) * blocks + block) * BLOCK + four * 4;
                    // SAFETY: by this function's contract the row is there.
                    let (quants, magnitudes) = unsafe {
                        (
                            input.quants.as_ptr().add(at).cast::<i32>().read_unaligned(),
                            input
                                .magnitudes
                                .as_ptr()
                                .add(at)
                                .cast::<i32>()
                                .read_unaligned(),
                        )
                    };
                    // |x| * (w with x's sign): unsigned times signed, and two products fit an i16 (2 * 127 * 127).
                    let signed = _mm256_sign_epi8(weights, _mm256_set1_epi32(quants));
                    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi32(magnitudes), signed);
                    *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
                }
            }
            // SAFETY: the slice above has eight factors for each block.
            let factors = unsafe { _mm256_loadu_ps(factors.as_ptr().add(block * LANES)) };
            for row in 0..ROWS {
                // SAFETY: by this function's contract the row is there.
                let scale = unsafe { *input.scales.as_ptr().add((first + row) * blocks + block) };
                let scales = _mm256_mul_ps(factors, _mm256_set1_ps(scale));
                sums[row] = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(dots[row]), sums[row]);
            }
        }
        sums.map(|sums| {
            let mut out = [0.0; LANES];
            // SAFETY: the array has eight values.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
            out
        })
    }

    /// Four tiles at a time hide the latency of the sums; each key's own sum has one order.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn scores(query: &[f32], keys: &[u16], out: &mut [f32]) {
        let tile = query.len() * 8;
        let fours = keys.chunks_exact(tile * 4);
        let rest = fours.remainder();
        let mut outs = out.chunks_exact_mut(32);
        for (keys, out) in fours.zip(&mut outs) {
            score_tiles::<4>(query, keys, out);
        }
        let outs = outs.into_remainder().chunks_exact_mut(8);
        for (keys, out) in rest.chunks_exact(tile).zip(outs) {
            score_tiles::<1>(query, keys, out);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn score_tiles<const TILES: usize>(query: &[f32], keys: &[u16], out: &mut [f32]) {
        assert!(keys.len() == query.len() * 8 * TILES && out.len() == 8 * TILES);
        let mut sums = [_mm256_setzero_ps(); TILES];
        for (i, &query) in query.iter().enumerate() {
            let query_lanes = _mm256_set1_ps(query);
            for (tile, sums) in sums.iter_mut().enumerate() {
                let at = (tile * (keys.len() / 8 / TILES) + i) * 8;
                // SAFETY: eight halves from `at` lie in `keys`, by the assertion.
                let eight = unsafe { _mm_loadu_si128(keys.as_ptr().add(at).cast()) };
                *sums = _mm256_fmadd_ps(query_lanes, _mm256_cvtph_ps(eight), *sums);
            }
        }
        for (tile, sums) in sums.into_iter().enumerate() {
            // SAFETY: `out` has eight values a tile, by the assertion.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(tile * 8), sums) };
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn mix(weights: &[f32], values: &[u16], out: &mut [f32]) {
        if !out.len().is_multiple_of(8) {
            return portable::mix(weights, values, out);
        }
        let mut at = 0;
        while at < out.len() {
            at += match out.len() - at {
                64.. => mix_strip::<8>(weights, values, out, at),
                32.. => mix_strip::<4>(weights, values, out, at),
                _ => mix_strip::<1>(weights, values, out, at),
            };
        }
    }

    /// Columns `at..at + 8 * VECTORS`, kept in registers.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn mix_strip<const VECTORS: usize>(
        weights: &[f32],
        values: &[u16],
        out: &mut [f32],
        at: usize,
    ) -> usize {
        let size = out.len();
        assert!(at + VECTORS * 8 <= size && values.len() >= weights.len() * size);
        let mut sums = [_mm256_setzero_ps(); VECTORS];
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the strip lies in `out`, by the assertion.
            *sums = unsafe { _mm256_loadu_ps(out.as_ptr().add(at + i * 8)) };
        }
        for (row, &weight) in weights.iter().enumerate() {
            let weight = _mm256_set1_ps(weight);
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the strip lies in each row, and `values` has a row a weight, by the assertion.
                let eight =
                    unsafe { _mm_loadu_si128(values.as_ptr().add(row * size + at + i * 8).cast()) };
                *sums = _mm256_fmadd_ps(weight, _mm256_cvtph_ps(eight), *sums);
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            // SAFETY: the strip lies in `out`, by the assertion.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(at + i * 8), sums) };
        }
        VECTORS * 8
    }
}

#[cfg(test)]
mod tests;
