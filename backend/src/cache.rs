//! The keys and values of one sequence: a ring of the last positions, in pages that are allocated when first needed.
//!
//! Attention looks back over a window of W tokens. So a token's logits depend on the last L·(W-1)+1 tokens alone (L layers,
//! each reaching W-1 further back), and of a longer prompt only those are computed. Keys are stored rotated at absolute
//! positions, so nothing moves when the window does.

use crate::shape::Shape;

/// Positions of a page.
pub(crate) const PAGE: usize = 128;
/// Positions whose keys lie side by side, one vector lane each.
pub(crate) const TILE: usize = 8;

/// One sequence's history and what is kept of it.
pub(crate) struct Cache {
    /// Ids of all positions so far.
    tokens: Vec<u32>,
    /// The first position that was computed; those before it were out of reach.
    start: usize,
    /// The oldest position that the ring holds.
    oldest: usize,
    /// Keys and values as f16, for each layer and head: keys in tiles ([`PAGE`]/[`TILE`] x head x [`TILE`]), then values
    /// ([`PAGE`] x head).
    pages: Vec<Option<Box<[u16]>>>,
    layers: usize,
    kv_heads: usize,
    head: usize,
    window: usize,
}

impl Cache {
    /// An empty cache. Besides the window the ring keeps `slack` positions and more, so that a sequence can go back a
    /// little; a batch may write `slack` positions at once.
    pub(crate) fn new(shape: &Shape, slack: usize) -> Cache {
        let spare = slack.max(shape.window.min(2048));
        Cache {
            tokens: Vec::new(),
            start: 0,
            oldest: 0,
            pages: vec![None; (shape.window + spare).div_ceil(PAGE)],
            layers: shape.layers,
            kv_heads: shape.kv_heads,
            head: shape.head,
            window: shape.window,
        }
    }

    /// How many tokens of `prompt` need not be computed again: at most all but the last, whose logits are wanted.
    pub(crate) fn reusable(&self, prompt: &[u32]) -> usize {
        let common = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        let common = common.min(prompt.len().saturating_sub(1));
        let needed = (common + 1).saturating_sub(self.window);
        let reach = self.layers * (self.window - 1);
        let exact = self.start == 0 || common >= self.start + reach;
        let useful = common > self.first_needed(prompt.len());
        if exact && useful && needed >= self.oldest {
            common
        } else {
            0
        }
    }

    /// The first position that must be computed to get a prompt's last logits from nothing. A quarter of a window more
    /// than what is within reach, so that the sequence can later go back that far.
    fn first_needed(&self, length: usize) -> usize {
        let reach = self.layers * (self.window - 1) + self.window / 4;
        length.saturating_sub(1 + reach)
    }

    /// Begins a prompt of which `reused` tokens (as [`Cache::reusable`] said) stay. Returns the first position to compute.
    pub(crate) fn begin(&mut self, prompt: &[u32], reused: usize) -> usize {
        if reused > 0 {
            self.tokens.truncate(reused);
            return reused;
        }
        self.start = self.first_needed(prompt.len());
        self.oldest = self.start;
        self.tokens.clear();
        self.tokens.extend_from_slice(&prompt[..self.start]);
        self.start
    }

    /// Becomes a copy of the first `length` tokens of another sequence, with what is needed to go on from there.
    pub(crate) fn copy(&mut self, other: &Cache, length: usize) {
        let needed = (length + 1).saturating_sub(self.window);
        self.tokens.clear();
        self.tokens.extend_from_slice(&other.tokens[..length]);
        self.start = other.start;
        self.oldest = other.oldest.max(needed / PAGE * PAGE);
        for page in self.oldest / PAGE..length.div_ceil(PAGE) {
            let index = page % self.pages.len();
            self.pages[index].clone_from(&other.pages[index]);
        }
    }

    /// Tokens so far: the next position.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// In how many layers the key and value of `position` will ever be looked at.
    pub(crate) fn depth(&self, position: usize) -> usize {
        match self.start {
            0 => self.layers,
            start => ((position - start) / (self.window - 1) + 1).min(self.layers),
        }
    }

    /// Takes the next position for a token, and the place of the oldest one.
    pub(crate) fn push(&mut self, token: u32) {
        let position = self.tokens.len();
        self.tokens.push(token);
        let capacity = self.pages.len() * PAGE;
        self.oldest = self.oldest.max((position + 1).saturating_sub(capacity));
        let size = self.layers * self.kv_heads * 2 * PAGE * self.head;
        let index = position / PAGE % self.pages.len();
        self.pages[index].get_or_insert_with(|| vec![0; size].into_boxed_slice());
    }

    /// Stores one head's key and value of a position that was pushed.
    pub(crate) fn store(
        &mut self,
        layer: usize,
        kv_head: usize,
        position: usize,
        key: &[u16],
        value: &[u16],
    ) {
        let head = self.head;
        let index = position / PAGE % self.pages.len();
        let part = (layer * self.kv_heads + kv_head) * 2 * PAGE * head;
        let Some(page) = &mut self.pages[index] else {
            return;
        };
        let (keys, values) = page[part..][..2 * PAGE * head].split_at_mut(PAGE * head);
        let place = position % PAGE;
        let tile = &mut keys[place / TILE * TILE * head..][..TILE * head];
        for (&key, lanes) in key.iter().zip(tile.chunks_exact_mut(TILE)) {
            lanes[place % TILE] = key;
        }
        values[place * head..][..head].copy_from_slice(value);
    }

    /// The stretches of pages that hold positions `first..last`, oldest first.
    pub(crate) fn stretches(
        &self,
        layer: usize,
        kv_head: usize,
        first: usize,
        last: usize,
    ) -> impl Iterator<Item = Stretch<'_>> {
        let head = self.head;
        let part = (layer * self.kv_heads + kv_head) * 2 * PAGE * head;
        (first / PAGE..last.div_ceil(PAGE)).filter_map(move |page| {
            let data = self.pages[page % self.pages.len()].as_deref()?;
            let (keys, values) = data[part..][..2 * PAGE * head].split_at(PAGE * head);
            let first = first.max(page * PAGE);
            let last = last.min((page + 1) * PAGE);
            let tiles = first % PAGE / TILE..(last - page * PAGE).div_ceil(TILE);
            Some(Stretch {
                first,
                keys: &keys[tiles.start * TILE * head..tiles.end * TILE * head],
                values: &values[first % PAGE * head..(last - page * PAGE) * head],
            })
        })
    }
}

/// Neighbouring positions of one layer and head.
pub(crate) struct Stretch<'a> {
    /// The first of them.
    pub(crate) first: usize,
    /// Whole tiles around them: tiles x head x [`TILE`].
    pub(crate) keys: &'a [u16],
    /// Exactly theirs: positions x head.
    pub(crate) values: &'a [u16],
}
