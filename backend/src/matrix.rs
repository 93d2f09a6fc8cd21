//! Weight matrices and activation rows in 8-bit blocks (ggml's Q8_0), laid out for the kernels.

use crate::{
    gguf::Tensor,
    half::{f16_to_f32, f32_to_f16},
    quant::Format,
};

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Output rows that are computed together: one vector lane each.
pub(crate) const LANES: usize = 8;

/// An 8-bit matrix, rows in groups of [`LANES`].
///
/// `quants` holds, for each group and each block of 32 columns, eight runs of 32 bytes: run `v` has columns `4v..4v+4` of
/// the group's eight rows, one row after another. `scales` holds the eight rows' scales for each group and block. Rows and
/// columns that fill up the last group and block are zero. No quant is -128, so that every one can be negated.
pub(crate) struct Matrix {
    /// Output values.
    pub(crate) rows: usize,
    /// Input values.
    pub(crate) columns: usize,
    /// Blocks along a row.
    pub(crate) blocks: usize,
    pub(crate) quants: Vec<i8>,
    pub(crate) scales: Vec<f32>,
}

impl Matrix {
    /// Stacks tensors of equal width: the first one's rows, then the next one's. Q8_0 is taken as it is; any other format
    /// is decoded and quantised to Q8_0.
    pub(crate) fn stack(tensors: &[Tensor<'_>]) -> Matrix {
        let columns = tensors.first().map_or(0, |tensor| tensor.shape[0]);
        let rows = tensors.iter().map(|tensor| tensor.shape[1]).sum();
        let blocks = columns.div_ceil(BLOCK);
        let groups = usize::div_ceil(rows, LANES);
        let mut matrix = Matrix {
            rows,
            columns,
            blocks,
            quants: vec![0; groups * blocks * BLOCK * LANES],
            scales: vec![0.0; groups * blocks * LANES],
        };
        let mut row = 0;
        let mut values = vec![0.0; blocks * BLOCK];
        for tensor in tensors {
            for bytes in tensor
                .bytes
                .chunks_exact(tensor.bytes.len() / tensor.shape[1])
            {
                for block in 0..blocks {
                    let part = &mut values[block * BLOCK..][..BLOCK];
                    if tensor.format == Format::Q8_0 {
                        let bytes = &bytes[block * 34..][..34];
                        if bytes[2..].iter().all(|&q| q != 0x80) {
                            let scale = f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
                            matrix.put(row, block, scale, |i| bytes[2 + i] as i8);
                            continue;
                        }
                        tensor.format.decode(bytes, part);
                    } else if block == 0 {
                        tensor.format.decode(bytes, &mut values[..columns]);
                    }
                    let part = &values[block * BLOCK..][..BLOCK];
                    let largest = part
                        .iter()
                        .fold(0f32, |largest, value| largest.max(value.abs()));
                    let scale = largest / 127.0;
                    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    let scale = f16_to_f32(f32_to_f16(scale));
                    matrix.put(row, block, scale, |i| {
                        (part[i] * inverse).round().clamp(-127.0, 127.0) as i8
                    });
                }
                row += 1;
            }
        }
        matrix
    }

    fn put(&mut self, row: usize, block: usize, scale: f32, quant: impl Fn(usize) -> i8) {
        let (group, lane) = (row / LANES, row % LANES);
        self.scales[(group * self.blocks + block) * LANES + lane] = scale;
        let base = (group * self.blocks + block) * BLOCK * LANES;
        for i in 0..BLOCK {
            self.quants[base + i / 4 * 32 + lane * 4 + i % 4] = quant(i);
        }
    }

    /// Decodes one row, `columns` values.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let (group, lane) = (row / LANES, row % LANES);
        for (column, out) in out.iter_mut().enumerate().take(self.columns) {
            let (block, i) = (column / BLOCK, column % BLOCK);
            let place = group * self.blocks + block;
            let quant = self.quants[place * BLOCK * LANES + i / 4 * 32 + lane * 4 + i % 4];
            *out = f32::from(quant) * self.scales[place * LANES + lane];
        }
    }
}

/// Rows of activations in 8-bit blocks.
#[derive(Default)]
pub(crate) struct Activations {
    /// Blocks along a row.
    pub(crate) blocks: usize,
    /// Rows times blocks times [`BLOCK`].
    pub(crate) quants: Vec<i8>,
    /// The quants' absolute values.
    pub(crate) magnitudes: Vec<u8>,
    /// Rows times blocks; each is an f16's value, as in ggml.
    pub(crate) scales: Vec<f32>,
}

impl Activations {
    /// Room for `rows` rows of up to `columns` values.
    pub(crate) fn new(rows: usize, columns: usize) -> Activations {
        let blocks = columns.div_ceil(BLOCK);
        Activations {
            blocks,
            quants: vec![0; rows * blocks * BLOCK],
            magnitudes: vec![0; rows * blocks * BLOCK],
            scales: vec![0.0; rows * blocks],
        }
    }
}
