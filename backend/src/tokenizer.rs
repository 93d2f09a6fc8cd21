//! Text to token ids and back, as llama.cpp does it for the same GGUF file.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use crate::{
    chat::Chat,
    detokenize::TokenDecoder,
    gguf::Gguf,
    merge::{Symbol, merge},
    pretokenize::Pieces,
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

/// What a token is (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Found in text always, before anything else.
    UserDefined,
    /// Found in text only when special tokens are parsed; invisible in answers.
    Control,
    Byte,
}

/// The tokenizer of a model.
#[derive(Debug)]
pub struct Tokenizer {
    /// What each token stands for in an answer, one after another.
    bytes: Vec<u8>,
    spans: Vec<Range<u32>>,
    /// Text of normal tokens to id: raw bytes for byte-pair, `▁` for blanks for SentencePiece.
    ids: HashMap<Box<[u8]>, u32>,
    /// Control and user-defined tokens, longest first.
    specials: Vec<Special>,
    method: Method,
    byte_ids: [Option<u32>; 256],
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
struct Special {
    text: Box<str>,
    id: u32,
    control: bool,
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
        let vocabulary = texts.len();
        let length = |key, found| match found == vocabulary {
            true => Ok(()),
            false => Err(TokenizerError::Length {
                key,
                expected: vocabulary,
                found,
            }),
        };
        let kinds = file.numbers("tokenizer.ggml.token_type").unwrap_or(&[]);
        if !kinds.is_empty() {
            length("tokenizer.ggml.token_type", kinds.len())?;
        }

        let alphabet = Alphabet::new();
        let mut tokenizer = Tokenizer {
            bytes: Vec::new(),
            spans: Vec::with_capacity(vocabulary),
            ids: HashMap::with_capacity(vocabulary),
            specials: Vec::new(),
            method: Method::Scores {
                scores: Vec::new(),
                leading_blank: true,
            },
            byte_ids: [None; 256],
            unknown: None,
            bos: None,
            eos: None,
            eot: None,
            endings: Vec::new(),
            adds_bos: !byte_pair,
            chat: Chat::Plain,
        };
        for (id, text) in (0u32..).zip(texts) {
            let kind = match kinds.get(id as usize) {
                Some(2.0 | 3.0) => Kind::Control,
                Some(4.0) => Kind::UserDefined,
                Some(6.0) => Kind::Byte,
                _ => Kind::Normal,
            };
            tokenizer.add(id, text, kind, byte_pair.then_some(&alphabet));
        }
        tokenizer
            .specials
            .sort_by_key(|special| Reverse(special.text.len()));

        tokenizer.method = if byte_pair {
            let name = file.text("tokenizer.ggml.pre").unwrap_or("default");
            let pieces = Pieces::from_name(name).ok_or_else(|| TokenizerError::Pieces {
                found: name.to_owned(),
            })?;
            let lines = file
                .texts("tokenizer.ggml.merges")
                .ok_or(missing("tokenizer.ggml.merges"))?;
            tokenizer.adds_bos = pieces == Pieces::Llama3;
            let merges = tokenizer.merges(lines, &alphabet);
            Method::BytePair {
                pieces,
                merges,
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
            None => Ok(default.filter(|&id| (id as usize) < vocabulary)),
            Some(_) => match file.number(key) {
                Some(id) if id >= 0.0 && id < vocabulary as f64 => Ok(Some(id as u32)),
                // A file may say "none" with the largest number of its type.
                Some(id) if id >= f64::from(u32::MAX) || id < 0.0 => Ok(None),
                _ => Err(TokenizerError::Special { key }),
            },
        };
        let or = |id| (!byte_pair).then_some(id);
        tokenizer.bos = special("tokenizer.ggml.bos_token_id", or(1))?;
        tokenizer.eos = special("tokenizer.ggml.eos_token_id", or(2))?;
        tokenizer.unknown = special("tokenizer.ggml.unknown_token_id", or(0))?;
        tokenizer.eot = special("tokenizer.ggml.eot_token_id", None)?;
        tokenizer.adds_bos = file
            .flag("tokenizer.ggml.add_bos_token")
            .unwrap_or(tokenizer.adds_bos)
            && tokenizer.bos.is_some();

        let named: Vec<u32> = ENDINGS
            .iter()
            .filter_map(|text| tokenizer.special(text))
            .collect();
        tokenizer.eot = tokenizer.eot.or(named.first().copied());
        tokenizer.endings.extend(named);
        tokenizer.endings.extend(tokenizer.eos);
        tokenizer.endings.extend(tokenizer.eot);
        tokenizer.endings.sort_unstable();
        tokenizer.endings.dedup();
        tokenizer.chat = Chat::choose(
            &tokenizer,
            file.text("tokenizer.chat_template").unwrap_or(""),
        );
        Ok(tokenizer)
    }

    fn add(&mut self, id: u32, text: &[u8], kind: Kind, alphabet: Option<&Alphabet>) {
        let text = String::from_utf8_lossy(text);
        let start = self.bytes.len() as u32;
        match (kind, alphabet) {
            (Kind::Control, _) => {}
            (Kind::UserDefined, _) => self.bytes.extend_from_slice(text.as_bytes()),
            (Kind::Normal | Kind::Byte, Some(alphabet)) => match alphabet.decode(&text) {
                Some(raw) => {
                    if let [byte] = *raw {
                        self.byte_ids[usize::from(byte)] = Some(id);
                    }
                    self.bytes.extend_from_slice(&raw);
                    self.ids.entry(raw.into()).or_insert(id);
                }
                // No bytes are written so: the token stands for itself in answers, and text never becomes it.
                None => self.bytes.extend_from_slice(text.as_bytes()),
            },
            (Kind::Byte, None) => {
                let hex = text
                    .strip_prefix("<0x")
                    .and_then(|rest| rest.strip_suffix('>'));
                if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    self.byte_ids[usize::from(byte)] = Some(id);
                    self.bytes.push(byte);
                }
            }
            (Kind::Normal, None) => {
                self.bytes
                    .extend_from_slice(text.replace('▁', " ").as_bytes());
                self.ids.entry(text.as_bytes().into()).or_insert(id);
            }
        }
        self.spans.push(start..self.bytes.len() as u32);
        if matches!(kind, Kind::Control | Kind::UserDefined) && !text.is_empty() {
            let control = kind == Kind::Control;
            self.specials.push(Special {
                text: text.into(),
                id,
                control,
            });
        }
    }

    /// Merges between tokens of the vocabulary; the earlier line wins.
    fn merges(
        &self,
        lines: &[&[u8]],
        alphabet: &Alphabet,
    ) -> HashMap<(u32, u32), (Reverse<u32>, u32)> {
        let mut merges = HashMap::with_capacity(lines.len());
        for (rank, line) in (0u32..).zip(lines) {
            let line = String::from_utf8_lossy(line);
            // A token may begin with the separator itself, but is not empty.
            let Some(blank) = line.char_indices().skip(1).find(|(_, c)| *c == ' ') else {
                continue;
            };
            let parts = (
                alphabet.decode(&line[..blank.0]),
                alphabet.decode(&line[blank.0 + 1..]),
            );
            let (Some(left), Some(right)) = parts else {
                continue;
            };
            let whole = [left.as_slice(), right.as_slice()].concat();
            let id = |bytes: &[u8]| self.ids.get(bytes).copied();
            if let (Some(left), Some(right), Some(whole)) = (id(&left), id(&right), id(&whole)) {
                merges
                    .entry((left, right))
                    .or_insert((Reverse(rank), whole));
            }
        }
        merges
    }

    /// Token ids of `text`, without a beginning-of-sequence token. Special tokens written in the text (`<|im_start|>`)
    /// become themselves only if `parse_special`; otherwise they are ordinary text, as a user's input must be.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let mut after_special = true;
        for part in self.partition(text, parse_special) {
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

    /// Cuts out special tokens, the longest of all first.
    fn partition<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Part<'a>> {
        let mut parts = vec![Part::Text(text)];
        if text.is_empty() {
            parts.clear();
        }
        let wanted = self
            .specials
            .iter()
            .filter(|special| parse_special || !special.control);
        for special in wanted.filter(|special| text.contains(&*special.text)) {
            let mut next = Vec::with_capacity(parts.len() + 2);
            for part in parts {
                let Part::Text(text) = part else {
                    next.push(part);
                    continue;
                };
                let mut rest = text;
                while let Some(at) = rest.find(&*special.text) {
                    if at > 0 {
                        next.push(Part::Text(&rest[..at]));
                    }
                    next.push(Part::Special(special.id));
                    rest = &rest[at + special.text.len()..];
                }
                if !rest.is_empty() {
                    next.push(Part::Text(rest));
                }
            }
            parts = next;
        }
        parts
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
        pieces.split(text, &mut |piece| {
            if *whole_pieces && let Some(&id) = self.ids.get(piece.as_bytes()) {
                out.push(id);
                return;
            }
            symbols.clear();
            let bytes = piece.bytes().enumerate();
            symbols.extend(bytes.map(|(start, byte)| Symbol {
                id: self.byte_ids[usize::from(byte)],
                start,
                length: 1,
            }));
            merge(&mut symbols, |left, right| {
                merges.get(&(left.id?, right.id?)).copied()
            });
            let whole = symbols.iter().filter(|symbol| symbol.length > 0);
            out.extend(whole.filter_map(|symbol| symbol.id.or(self.unknown)));
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
        let text = format!("{blank}{}", text.replace(' ', "▁"));
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .map(|(start, c)| {
                let length = c.len_utf8();
                Symbol {
                    id: self
                        .ids
                        .get(&text.as_bytes()[start..start + length])
                        .copied(),
                    start,
                    length,
                }
            })
            .collect();
        merge(&mut symbols, |left, right| {
            let bytes = &text.as_bytes()[left.start..left.start + left.length + right.length];
            let id = *self.ids.get(bytes)?;
            Some((Score(scores[id as usize]), id))
        });
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            match symbol.id {
                Some(id) => out.push(id),
                None => {
                    let bytes = &text.as_bytes()[symbol.start..symbol.start + symbol.length];
                    out.extend(
                        bytes
                            .iter()
                            .filter_map(|&byte| self.byte_ids[usize::from(byte)].or(self.unknown)),
                    );
                }
            }
        }
    }

    /// A decoder for one stream of tokens.
    pub fn decoder(&self) -> TokenDecoder {
        TokenDecoder::default()
    }

    /// The bytes that a token stands for in an answer; none for control tokens and unknown ids.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let span = self.spans.get(id as usize).cloned().unwrap_or_default();
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// How many tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.spans.len()
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

    /// The control or user-defined token of that text.
    pub(crate) fn special(&self, text: &str) -> Option<u32> {
        self.specials
            .iter()
            .find(|special| &*special.text == text)
            .map(|special| special.id)
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

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Special(u32),
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

/// GPT-2's way to write bytes as printable characters: printable Latin-1 stands for itself, the other bytes, in order, for
/// the characters from U+0100 on.
struct Alphabet {
    bytes: HashMap<char, u8>,
}

impl Alphabet {
    fn new() -> Alphabet {
        let mut bytes = HashMap::with_capacity(256);
        let mut stand_in = 0x100;
        for byte in 0..=u8::MAX {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { u32::from(byte) } else { stand_in };
            stand_in += u32::from(!printable);
            bytes.extend(char::from_u32(code).map(|c| (c, byte)));
        }
        Alphabet { bytes }
    }

    /// The bytes that a token's text stands for; `None` if it has characters outside the alphabet.
    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.bytes.get(&c).copied()).collect()
    }
}
