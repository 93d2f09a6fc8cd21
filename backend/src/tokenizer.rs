//! Text to token ids and back, as llama.cpp does it for the same GGUF file.

use std::{cmp::Reverse, collections::HashMap};

use crate::{
    chat::Chat,
    detokenize::TokenDecoder,
    gguf::Gguf,
    merge::{Symbol, merge},
    pretokenize::Pieces,
    vocabulary::{Alphabet, Part, Vocabulary},
};

/// Why a model's tokenizer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are named in the messages")]
pub enum TokenizerError {
    /// A part of the tokenizer is not in the file.
    #[error(
        "the model has no tokenizer ('{key}' is missing); convert it again together with its tokenizer files"
    )]
    Missing { key: &'static str },
    /// Another kind of tokenizer.
    #[error(
        "the tokenizer is of kind '{found}'; only 'gpt2' (byte-pair) and 'llama' (SentencePiece) are supported"
    )]
    Kind { found: String },
    /// Another way to cut text.
    #[error(
        "the pre-tokenizer '{found}' is not known; use a model with one of GPT-2's, SmolLM's, StarCoder's, Llama 3's or Qwen 2's"
    )]
    Pieces { found: String },
    /// Lists that must be equally long are not.
    #[error("'{key}' has {found} entries for {expected} tokens; convert the model again")]
    Length {
        key: &'static str,
        expected: usize,
        found: usize,
    },
    /// A special token's id is outside the vocabulary.
    #[error("'{key}' is not a token id; convert the model again")]
    Special { key: &'static str },
}

/// The tokenizer of a model.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    method: Method,
    unknown: Option<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    /// Sorted.
    endings: Vec<u32>,
    adds_bos: bool,
    chat: Chat,
}

#[derive(Debug)]
enum Method {
    /// Byte-level byte-pair encoding: rank and result of each pair of ids.
    BytePair {
        pieces: Pieces,
        merges: HashMap<(u32, u32), (Reverse<u32>, u32)>,
        /// A piece that is a token is taken whole, even if no merges lead there.
        whole_pieces: bool,
    },
    /// SentencePiece's byte-pair encoding: pairs by the score of what they make.
    Scores {
        scores: Vec<f32>,
        /// Whether text begins with a blank that was not written.
        leading_blank: bool,
    },
}

/// Tokens after which a model has finished, by their usual texts.
const ENDINGS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<EOT>",
];

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys of a file.
    pub fn read(file: &Gguf<'_>) -> Result<Tokenizer, TokenizerError> {
        let missing = |key| TokenizerError::Missing { key };
        let kind = file
            .text("tokenizer.ggml.model")
            .ok_or(missing("tokenizer.ggml.model"))?;
        let byte_pair = match kind {
            "gpt2" => true,
            "llama" => false,
            found => {
                return Err(TokenizerError::Kind {
                    found: found.to_owned(),
                });
            }
        };
        let texts = file
            .texts("tokenizer.ggml.tokens")
            .ok_or(missing("tokenizer.ggml.tokens"))?;
        let count = texts.len();
        let length = |key, found| match found == count {
            true => Ok(()),
            false => Err(TokenizerError::Length {
                key,
                expected: count,
                found,
            }),
        };
        let kinds = file.numbers("tokenizer.ggml.token_type").unwrap_or(&[]);
        if !kinds.is_empty() {
            length("tokenizer.ggml.token_type", kinds.len())?;
        }

        let alphabet = Alphabet::new();
        let vocabulary = Vocabulary::new(texts, kinds, byte_pair.then_some(&alphabet));
        let mut adds_bos = !byte_pair;
        let method = if byte_pair {
            let name = file.text("tokenizer.ggml.pre").unwrap_or("default");
            let pieces = Pieces::from_name(name).ok_or_else(|| TokenizerError::Pieces {
                found: name.to_owned(),
            })?;
            let lines = file
                .texts("tokenizer.ggml.merges")
                .ok_or(missing("tokenizer.ggml.merges"))?;
            adds_bos = pieces == Pieces::Llama3;
            Method::BytePair {
                pieces,
                merges: merges(&vocabulary, lines, &alphabet),
                whole_pieces: pieces == Pieces::Llama3,
            }
        } else {
            let scores = file
                .numbers("tokenizer.ggml.scores")
                .ok_or(missing("tokenizer.ggml.scores"))?;
            length("tokenizer.ggml.scores", scores.len())?;
            let leading_blank = file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
            Method::Scores {
                scores: scores.iter().map(|&score| score as f32).collect(),
                leading_blank,
            }
        };

        let special = |key, default: Option<u32>| match file.value(key) {
            None => Ok(default.filter(|&id| (id as usize) < count)),
            Some(_) => match file.number(key) {
                Some(id) if id >= 0.0 && id < count as f64 => Ok(Some(id as u32)),
                // A file may say "none" with the largest number of its type.
                Some(id) if id >= f64::from(u32::MAX) || id < 0.0 => Ok(None),
                _ => Err(TokenizerError::Special { key }),
            },
        };
        let or = |id| (!byte_pair).then_some(id);
        let bos = special("tokenizer.ggml.bos_token_id", or(1))?;
        let eos = special("tokenizer.ggml.eos_token_id", or(2))?;
        let unknown = special("tokenizer.ggml.unknown_token_id", or(0))?;
        let named: Vec<u32> = ENDINGS
            .iter()
            .filter_map(|text| vocabulary.special(text))
            .collect();
        let eot = special("tokenizer.ggml.eot_token_id", named.first().copied())?;
        let mut endings: Vec<u32> = named.into_iter().chain(eos).chain(eot).collect();
        endings.sort_unstable();
        endings.dedup();

        Ok(Tokenizer {
            chat: Chat::choose(
                &vocabulary,
                file.text("tokenizer.chat_template").unwrap_or(""),
            ),
            adds_bos: file
                .flag("tokenizer.ggml.add_bos_token")
                .unwrap_or(adds_bos),
            vocabulary,
            method,
            unknown,
            bos,
            eos,
            eot,
            endings,
        })
    }

    /// Token ids of `text`, without a beginning-of-sequence token. Special tokens written in the text (`<|im_start|>`)
    /// become themselves only if `parse_special`; otherwise they are ordinary text, as a user's input must be.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let mut after_special = true;
        for part in self.vocabulary.partition(text, parse_special) {
            match part {
                Part::Special(id) => out.push(id),
                Part::Text(text) => match &self.method {
                    Method::BytePair { .. } => self.encode_byte_pair(text, &mut out),
                    Method::Scores { .. } => self.encode_scores(text, after_special, &mut out),
                },
            }
            after_special = matches!(part, Part::Special(_));
        }
        out
    }

    /// The whole prompt of a plain completion: the beginning-of-sequence token if the model wants one, then the text
    /// with its special tokens.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        let mut ids = self.chat_start();
        ids.extend(self.encode(text, true));
        ids
    }

    fn encode_byte_pair(&self, text: &str, out: &mut Vec<u32>) {
        let Method::BytePair {
            pieces,
            merges,
            whole_pieces,
        } = &self.method
        else {
            return;
        };
        let mut symbols = Vec::new();
        // Where the ids of a piece that was met before stand in `out`: words repeat, and a long history is mostly repeats.
        let mut met: HashMap<&str, (usize, usize)> = HashMap::new();
        pieces.split(text, &mut |piece| {
            if *whole_pieces && let Some(id) = self.vocabulary.id(piece.as_bytes()) {
                out.push(id);
                return;
            }
            if let Some(&(start, end)) = met.get(piece) {
                out.extend_from_within(start..end);
                return;
            }
            let start = out.len();
            symbols.clear();
            let bytes = piece.bytes().enumerate();
            symbols.extend(bytes.map(|(start, byte)| Symbol {
                id: self.vocabulary.byte(byte),
                start,
                length: 1,
            }));
            merge(&mut symbols, |left, right| {
                merges.get(&(left.id?, right.id?)).copied()
            });
            let whole = symbols.iter().filter(|symbol| symbol.length > 0);
            out.extend(whole.filter_map(|symbol| symbol.id.or(self.unknown)));
            met.insert(piece, (start, out.len()));
        });
    }

    fn encode_scores(&self, text: &str, after_special: bool, out: &mut Vec<u32>) {
        let Method::Scores {
            scores,
            leading_blank,
        } = &self.method
        else {
            return;
        };
        let blank = if *leading_blank && after_special {
            "▁"
        } else {
            ""
        };
        let written = format!("{blank}{}", text.replace(' ', "▁"));
        let text = written.as_bytes();
        let mut symbols: Vec<Symbol> = written
            .char_indices()
            .map(|(start, character)| {
                let length = character.len_utf8();
                let id = self.vocabulary.id(&text[start..start + length]);
                Symbol { id, start, length }
            })
            .collect();
        merge(&mut symbols, |left, right| {
            let whole = &text[left.start..left.start + left.length + right.length];
            let id = self.vocabulary.id(whole)?;
            Some((Score(scores[id as usize]), id))
        });
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let bytes = &text[symbol.start..symbol.start + symbol.length];
            match symbol.id {
                Some(id) => out.push(id),
                None => out.extend(
                    bytes
                        .iter()
                        .filter_map(|&byte| self.vocabulary.byte(byte).or(self.unknown)),
                ),
            }
        }
    }

    /// A decoder for one stream of tokens.
    pub fn decoder(&self) -> TokenDecoder {
        TokenDecoder::default()
    }

    /// The bytes that a token stands for in an answer; none for control tokens and unknown ids.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// How many tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// End of turn.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// Whether a model that says this token has finished its answer.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.endings.binary_search(&id).is_ok()
    }

    /// What stands before the first message of a conversation.
    pub fn chat_start(&self) -> Vec<u32> {
        self.bos.filter(|_| self.adds_bos).into_iter().collect()
    }

    /// One finished message of a conversation, its end mark included. What the text says is never a special token.
    pub fn render_message(&self, role: &str, text: &str) -> Vec<u32> {
        self.chat.message(self, role, text)
    }

    /// What stands after the last message, so that the model answers.
    pub fn generation_prompt(&self) -> Vec<u32> {
        self.chat.generation(self)
    }

    /// A conversation that waits for its answer: start, messages, generation prompt. Each part is tokenised on its own,
    /// so a longer conversation begins with the ids of a shorter one.
    pub fn chat_prompt(&self, messages: &[(&str, &str)]) -> Vec<u32> {
        let mut ids = self.chat_start();
        for (role, text) in messages {
            ids.extend(self.render_message(role, text));
        }
        ids.extend(self.generation_prompt());
        ids
    }
}

/// A score, ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Score) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Score) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Merges between tokens of the vocabulary; the earlier line wins.
fn merges(
    vocabulary: &Vocabulary,
    lines: &[&[u8]],
    alphabet: &Alphabet,
) -> HashMap<(u32, u32), (Reverse<u32>, u32)> {
    let mut merges = HashMap::with_capacity(lines.len());
    for (rank, line) in (0u32..).zip(lines) {
        let line = String::from_utf8_lossy(line);
        // Blanks are written otherwise, so the only one is the separator.
        let Some((left, right)) = line.split_once(' ') else {
            continue;
        };
        let (Some(left), Some(right)) = (alphabet.decode(left), alphabet.decode(right)) else {
            continue;
        };
        let whole = vocabulary.id(&[left.as_slice(), right.as_slice()].concat());
        let parts = (vocabulary.id(&left), vocabulary.id(&right));
        if let ((Some(left), Some(right)), Some(whole)) = (parts, whole) {
            merges
                .entry((left, right))
                .or_insert((Reverse(rank), whole));
        }
    }
    merges
}
