//! Choosing the next token from a row of logits.

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: always the most likely token. Otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep only the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// The same seed and the same prompt give the same tokens; `None` is seed 0.
    pub seed: Option<u64>,
    /// Never choose an end-of-generation token, so that a job runs to its `max_tokens`.
    pub ignore_eos: bool,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            seed: None,
            ignore_eos: false,
        }
    }
}
