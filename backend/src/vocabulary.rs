//! The tokens of a model: what each stands for, and the tables to find it by.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

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

/// All tokens.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    /// What each token stands for in an answer, one after another.
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    /// Text of normal tokens to id: raw bytes for byte-pair, `▁` for blanks for SentencePiece.
    ids: HashMap<Box<[u8]>, u32>,
    /// Tokens of single bytes.
    byte_ids: [Option<u32>; 256],
    /// Control and user-defined tokens, longest first.
    specials: Vec<Special>,
}

#[derive(Debug)]
struct Special {
    text: Box<str>,
    id: u32,
    control: bool,
}

/// A stretch of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Special(u32),
}

impl Vocabulary {
    /// Reads tokens and their types (`tokenizer.ggml.token_type`; none means that all are normal). With an alphabet their
    /// texts are bytes written in it.
    pub(crate) fn new(texts: &[&[u8]], kinds: &[f64], alphabet: Option<&Alphabet>) -> Vocabulary {
        let mut vocabulary = Vocabulary {
            bytes: Vec::new(),
            spans: Vec::with_capacity(texts.len()),
            ids: HashMap::with_capacity(texts.len()),
            byte_ids: [None; 256],
            specials: Vec::new(),
        };
        for (id, text) in (0u32..).zip(texts) {
            let kind = match kinds.get(id as usize) {
                Some(2.0 | 3.0) => Kind::Control,
                Some(4.0) => Kind::UserDefined,
                Some(6.0) => Kind::Byte,
                _ => Kind::Normal,
            };
            vocabulary.add(id, text, kind, alphabet);
        }
        vocabulary
            .specials
            .sort_by_key(|special| Reverse(special.text.len()));
        vocabulary
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The normal token of that text.
    pub(crate) fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The token of a single byte.
    pub(crate) fn byte(&self, byte: u8) -> Option<u32> {
        self.byte_ids[usize::from(byte)]
    }

    /// The control or user-defined token of that text.
    pub(crate) fn special(&self, text: &str) -> Option<u32> {
        self.specials
            .iter()
            .find(|special| &*special.text == text)
            .map(|special| special.id)
    }

    /// What a token stands for; nothing for control tokens and unknown ids.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let span = self.spans.get(id as usize).cloned().unwrap_or_default();
        &self.bytes[span]
    }

    /// Cuts out special tokens, the longest of all first.
    pub(crate) fn partition<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Part<'a>> {
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

    fn add(&mut self, id: u32, text: &[u8], kind: Kind, alphabet: Option<&Alphabet>) {
        let text = String::from_utf8_lossy(text);
        let start = self.bytes.len();
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
        self.spans.push(start..self.bytes.len());
        if matches!(kind, Kind::Control | Kind::UserDefined) && !text.is_empty() {
            let control = kind == Kind::Control;
            self.specials.push(Special {
                text: text.into(),
                id,
                control,
            });
        }
    }
}

/// GPT-2's way to write bytes as printable characters: printable Latin-1 stands for itself, the other bytes, in order, for
/// the characters from U+0100 on.
pub(crate) struct Alphabet {
    bytes: HashMap<char, u8>,
}

impl Alphabet {
    /// The table.
    pub(crate) fn new() -> Alphabet {
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
    pub(crate) fn decode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.bytes.get(&c).copied()).collect()
    }
}
