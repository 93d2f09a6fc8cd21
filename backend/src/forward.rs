//! The forward pass: a batch of tokens of any sequences through all layers.
//!
//! Decoding and prompts use the same function. A row's result depends on its own sequence alone, bit for bit.

use crate::{
    cache::{Cache, TILE},
    matrix::Activations,
    model::Model,
    shape::Shape,
};

/// One token to compute. Its sequence's cache has it pushed already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Which cache.
    pub(crate) slot: usize,
    pub(crate) token: u32,
    pub(crate) position: usize,
    /// Layers whose keys and values are wanted of it; one more than there are layers asks for logits too.
    pub(crate) depth: usize,
}

/// Buffers of a forward pass, allocated once.
pub(crate) struct Scratch {
    /// Rows x width: the state between layers.
    state: Vec<f32>,
    normed: Vec<f32>,
    quantised: Activations,
    /// Rows x (queries, keys, values), or rows x (gate, up).
    wide: Vec<f32>,
    halves: Vec<u16>,
    heads: Vec<f32>,
    delta: Vec<f32>,
    /// Rows x rotated pairs: sine and cosine of each position.
    turns: Vec<(f32, f32)>,
    scores: Vec<f32>,
    /// Rows x vocabulary, for the rows that asked.
    pub(crate) logits: Vec<f32>,
}

impl Scratch {
    /// Room for batches of `rows`, of which `outputs` ask for logits.
    pub(crate) fn new(shape: &Shape, rows: usize, outputs: usize) -> Scratch {
        let wide = (shape.query() + 2 * shape.key()).max(2 * shape.hidden);
        let widest = shape.width.max(shape.query()).max(shape.hidden);
        Scratch {
            state: vec![0.0; rows * shape.width],
            normed: vec![0.0; rows * shape.width],
            quantised: Activations::new(rows, widest),
            wide: vec![0.0; rows * wide],
            halves: vec![0; 2 * shape.head],
            heads: vec![0.0; rows * shape.query()],
            delta: vec![0.0; rows * shape.width],
            turns: vec![(0.0, 1.0); rows * shape.frequencies.len()],
            scores: vec![0.0; shape.window + 2 * TILE],
            logits: vec![0.0; outputs * shape.vocabulary],
        }
    }
}

impl Model {
    /// The logits after each of `tokens`, as a sequence of its own; for tests and tools. Ids outside the vocabulary count
    /// as token 0.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        const CHUNK: usize = 32;
        let mut caches = [Cache::new(&self.shape, CHUNK)];
        let mut scratch = Scratch::new(&self.shape, CHUNK, CHUNK);
        let mut logits = Vec::with_capacity(tokens.len());
        for chunk in tokens.chunks(CHUNK) {
            let rows: Vec<Row> = chunk
                .iter()
                .map(|&token| {
                    let token = if (token as usize) < self.shape.vocabulary {
                        token
                    } else {
                        0
                    };
                    let position = caches[0].len();
                    caches[0].push(token);
                    Row {
                        slot: 0,
                        token,
                        position,
                        depth: self.layers.len() + 1,
                    }
                })
                .collect();
            self.forward(&rows, &mut caches, &mut scratch);
            let computed = scratch.logits.chunks_exact(self.shape.vocabulary);
            logits.extend(computed.take(rows.len()).map(<[f32]>::to_vec));
        }
        logits
    }

    /// Computes `rows`, deepest first; logits of those that ask stand in `scratch.logits`, in the same order.
    pub(crate) fn forward(&self, rows: &[Row], caches: &mut [Cache], scratch: &mut Scratch) {
        debug_assert!(rows.is_sorted_by(|a, b| a.depth >= b.depth));
        let Shape {
            width,
            vocabulary,
            epsilon,
            ..
        } = self.shape;
        for (row, state) in rows.iter().zip(scratch.state.chunks_exact_mut(width)) {
            self.embedding.row(row.token as usize, state);
        }
        let pairs = self.shape.frequencies.len();
        for (row, turns) in rows.iter().zip(scratch.turns.chunks_exact_mut(pairs)) {
            for (turn, frequency) in turns.iter_mut().zip(&self.shape.frequencies) {
                let (sine, cosine) = (row.position as f64 * frequency).sin_cos();
                *turn = (sine as f32, cosine as f32);
            }
        }
        for layer in 0..self.layers.len() {
            let kept = rows.partition_point(|row| row.depth > layer);
            let deeper = rows.partition_point(|row| row.depth > layer + 1);
            self.attend(layer, &rows[..kept], deeper, caches, scratch);
            self.feed(layer, deeper, scratch);
        }
        let outputs = rows.partition_point(|row| row.depth > self.layers.len());
        self.normalise(&self.output_norm, outputs, epsilon, scratch);
        let logits = &mut scratch.logits[..outputs * vocabulary];
        self.kernels
            .multiply(self.output(), &scratch.quantised, outputs, logits);
    }

    /// Stores keys and values of `rows`; adds attention to the state of the first `deeper` ones.
    fn attend(
        &self,
        index: usize,
        rows: &[Row],
        deeper: usize,
        caches: &mut [Cache],
        scratch: &mut Scratch,
    ) {
        let Shape {
            heads,
            kv_heads,
            head,
            epsilon,
            ..
        } = self.shape;
        let (query, key) = (self.shape.query(), self.shape.key());
        let layer = &self.layers[index];
        self.normalise(&layer.attention_norm, rows.len(), epsilon, scratch);
        let total = query + 2 * key;
        self.kernels.multiply(
            &layer.attention_input,
            &scratch.quantised,
            rows.len(),
            &mut scratch.wide,
        );

        let pairs = self.shape.frequencies.len();
        for (i, row) in rows.iter().enumerate() {
            let wide = &mut scratch.wide[i * total..][..total];
            let turns = &scratch.turns[i * pairs..][..pairs];
            for head in wide[..query + key].chunks_exact_mut(head) {
                rotate(head, turns);
            }
            for kv_head in 0..kv_heads {
                let (keys, values) = scratch.halves.split_at_mut(head);
                self.kernels
                    .halve(&wide[query + kv_head * head..][..head], keys);
                self.kernels
                    .halve(&wide[query + key + kv_head * head..][..head], values);
                caches[row.slot].store(index, kv_head, row.position, keys, values);
            }
        }

        let scale = 1.0 / (head as f32).sqrt();
        for (i, row) in rows[..deeper].iter().enumerate() {
            let cache = &caches[row.slot];
            let last = row.position + 1;
            let first = last.saturating_sub(self.shape.window);
            // Scores begin at a tile's edge: which keys share a vector depends on absolute positions alone.
            let edge = first / TILE * TILE;
            let scores = &mut scratch.scores[..last.next_multiple_of(TILE) - edge];
            for q in 0..heads {
                let kv_head = q / (heads / kv_heads);
                let query = &scratch.wide[i * total + q * head..][..head];
                for stretch in cache.stretches(index, kv_head, edge, last) {
                    let count = stretch.keys.len() / head;
                    let scores = &mut scores[stretch.first - edge..][..count];
                    self.kernels.scores(query, stretch.keys, scores);
                }
                let sum = self
                    .kernels
                    .soften(&mut scores[first - edge..last - edge], scale);
                let out = &mut scratch.heads[(i * heads + q) * head..][..head];
                out.fill(0.0);
                for stretch in cache.stretches(index, kv_head, first, last) {
                    let count = stretch.values.len() / head;
                    let weights = &scores[stretch.first - edge..][..count];
                    self.kernels.mix(weights, stretch.values, out);
                }
                for out in out {
                    *out /= sum;
                }
            }
        }
        self.kernels.quantise(
            &scratch.heads[..deeper * query],
            query,
            query,
            &mut scratch.quantised,
        );
        self.add(&layer.attention_output, deeper, scratch);
    }

    /// Adds the feed-forward part to the state of the first `count` rows.
    fn feed(&self, index: usize, count: usize, scratch: &mut Scratch) {
        let hidden = self.shape.hidden;
        let layer = &self.layers[index];
        self.normalise(&layer.feed_norm, count, self.shape.epsilon, scratch);
        self.kernels.multiply(
            &layer.feed_input,
            &scratch.quantised,
            count,
            &mut scratch.wide,
        );
        let wide = &mut scratch.wide[..count * 2 * hidden];
        for row in wide.chunks_exact_mut(2 * hidden) {
            let (gate, up) = row.split_at_mut(hidden);
            self.kernels.gate(gate, up);
        }
        self.kernels
            .quantise(wide, hidden, 2 * hidden, &mut scratch.quantised);
        self.add(&layer.feed_output, count, scratch);
    }

    /// Normalises and quantises the state of the first `count` rows.
    fn normalise(&self, weights: &[f32], count: usize, epsilon: f32, scratch: &mut Scratch) {
        let width = self.shape.width;
        let normed = &mut scratch.normed[..count * width];
        for (state, normed) in scratch
            .state
            .chunks_exact(width)
            .zip(normed.chunks_exact_mut(width))
        {
            self.kernels.normalise(state, weights, epsilon, normed);
        }
        self.kernels
            .quantise(normed, width, width, &mut scratch.quantised);
    }

    /// Adds the product of a matrix with the quantised rows to the state.
    fn add(&self, matrix: &crate::matrix::Matrix, count: usize, scratch: &mut Scratch) {
        let delta = &mut scratch.delta[..count * self.shape.width];
        self.kernels
            .multiply(matrix, &scratch.quantised, count, delta);
        for (state, delta) in scratch.state.iter_mut().zip(delta) {
            *state += *delta;
        }
    }
}

/// Turns neighbouring pairs of a head by their angles.
fn rotate(head: &mut [f32], turns: &[(f32, f32)]) {
    for (pair, (sine, cosine)) in head.chunks_exact_mut(2).zip(turns) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cosine - b * sine;
        pair[1] = a * sine + b * cosine;
    }
}
