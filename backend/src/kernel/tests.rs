//! Both kernel sets against each other, and against plain arithmetic.

use proptest::prelude::*;

use super::*;
use crate::{gguf::Tensor, half::f32_to_f16, quant::Format};

/// Both kernel sets; on a processor without AVX2 the comparison is of the portable one with itself.
fn both() -> [Kernels; 2] {
    [Kernels::detect(), Kernels::portable()]
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mixed = |i: u32| {
        (i ^ seed)
            .wrapping_mul(2_654_435_761)
            .rotate_left(13)
            .wrapping_mul(0x9e37_79b9)
    };
    (0..count as u32)
        .map(|i| (mixed(i) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * (1.0 + a.abs()), "{a} {b}");
    }
}

fn matrix(rows: usize, columns: usize, seed: u32) -> (Matrix, Vec<f32>) {
    let weights = values(rows * columns, seed);
    let bytes: Vec<u8> = weights
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let tensor = Tensor {
        shape: [columns, rows, 1, 1],
        format: Format::F32,
        bytes: &bytes,
    };
    (Matrix::stack(&[tensor]), weights)
}

proptest! {
    #[test]
    fn products_are_equal_on_both_and_right(
        rows in 1usize..40, columns in 1usize..150, count in 1usize..9, seed: u32,
    ) {
        let (matrix, weights) = matrix(rows, columns, seed);
        let input = values(count * columns, !seed);
        let results = both().map(|kernels| {
            let mut quantised = Activations::new(count, columns);
            kernels.quantise(&input, columns, columns, &mut quantised);
            let mut out = vec![0.0; count * rows];
            kernels.multiply(&matrix, &quantised, count, &mut out);
            (quantised.quants, quantised.scales, out)
        });
        prop_assert_eq!(&results[0].0, &results[1].0);
        prop_assert_eq!(&results[0].1, &results[1].1);
        close(&results[0].2, &results[1].2, 1e-5);
        for (i, out) in results[0].2.iter().enumerate() {
            let (input, weights) = (&input[i / rows * columns..][..columns], &weights[i % rows * columns..][..columns]);
            let exact: f32 = input.iter().zip(weights).map(|(a, b)| a * b).sum();
            prop_assert!((out - exact).abs() < 0.02 * (columns as f32).sqrt() + 0.01, "{} {}", out, exact);
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_company(columns in 1usize..100, count in 1usize..12, seed: u32) {
        let (matrix, _) = matrix(20, columns, seed);
        let input = values(count * columns, !seed);
        for kernels in both() {
            let product = |rows: &[f32]| {
                let count = rows.len() / columns;
                let mut quantised = Activations::new(count, columns);
                kernels.quantise(rows, columns, columns, &mut quantised);
                let mut out = vec![0.0; count * 20];
                kernels.multiply(&matrix, &quantised, count, &mut out);
                out
            };
            let alone: Vec<f32> = input.chunks_exact(columns).flat_map(product).collect();
            prop_assert_eq!(product(&input), alone);
        }
    }

    #[test]
    fn attention_kernels_are_equal_on_both(size in 1usize..140, tiles in 1usize..20, seed: u32) {
        let query = values(size, seed);
        let halves: Vec<u16> = values(tiles * 8 * size, !seed).into_iter().map(f32_to_f16).collect();
        let results = both().map(|kernels| {
            let mut scores = vec![0.0; tiles * 8];
            kernels.scores(&query, &halves, &mut scores);
            let raw = scores.clone();
            let sum = kernels.soften(&mut scores, 0.3);
            let mut out = vec![0.0; size];
            kernels.mix(&scores, &halves, &mut out);
            (raw, scores, vec![sum], out)
        });
        close(&results[0].0, &results[1].0, 1e-5);
        close(&results[0].1, &results[1].1, 1e-5);
        close(&results[0].2, &results[1].2, 1e-5);
        close(&results[0].3, &results[1].3, 1e-4);
    }

    #[test]
    fn rows_of_any_length_are_equal_on_both(size in 1usize..100, seed: u32) {
        let (row, weights) = (values(size, seed), values(size, !seed));
        let results = both().map(|kernels| {
            let (mut normed, mut gated, mut halves) = (vec![0.0; size], row.clone(), vec![0; size]);
            kernels.normalise(&row, &weights, 1e-5, &mut normed);
            kernels.gate(&mut gated, &weights);
            kernels.halve(&row, &mut halves);
            (normed, gated, halves)
        });
        prop_assert_eq!(&results[0], &results[1]);
        for ((gated, gate), up) in results[0].1.iter().zip(&row).zip(&weights) {
            prop_assert!((gated - gate / (1.0 + (-gate).exp()) * up).abs() < 1e-6);
        }
    }
}

#[test]
fn the_exponential_is_right_to_the_last_places() {
    for i in -8700..8800 {
        let x = i as f32 / 100.0;
        let exact = f64::from(x).exp();
        assert!(
            (f64::from(portable::exp(x)) / exact - 1.0).abs() < 3e-7,
            "{x}"
        );
    }
    assert_eq!(portable::exp(0.0), 1.0);
    assert_eq!(portable::exp(f32::NEG_INFINITY), 0.0);
    assert!(portable::exp(f32::INFINITY).is_finite());
}
