//! Synthetic text that reads like code and its comments: natural enough for a tokenizer, different for every seed.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

const NOUNS: &[&str] = &[
    "buffer",
    "cursor",
    "packet",
    "window",
    "token",
    "stream",
    "socket",
    "header",
    "frame",
    "queue",
    "index",
    "parser",
    "record",
    "bucket",
    "handle",
    "offset",
    "length",
    "message",
    "session",
    "worker",
    "schedule",
    "deadline",
    "cache",
    "request",
    "reply",
    "chunk",
    "histogram",
    "sample",
    "branch",
    "vector",
    "border",
    "ledger",
    "counter",
    "segment",
];
const VERBS: &[&str] = &[
    "push", "take", "read", "write", "flush", "split", "merge", "insert", "remove", "advance",
    "resize", "decode", "encode", "record", "reset", "finish", "extend", "measure", "drain",
    "append",
];
const TYPES: &[&str] = &[
    "u32",
    "u64",
    "usize",
    "bool",
    "String",
    "Option<usize>",
    "Vec<u8>",
    "Duration",
    "Result<(), Error>",
    "&str",
];
const ADJECTIVES: &[&str] = &[
    "first", "last", "empty", "whole", "next", "shared", "bounded", "stale", "fresh", "pending",
    "short", "long",
];

/// `words` words, separated by single spaces or line ends, after a first line that there need not be.
pub fn text(first: &str, random: &mut ChaCha8Rng, words: usize) -> String {
    let mut out = String::with_capacity(first.len() + words * 8 + LINE);
    if !first.is_empty() {
        out.push_str(first);
        out.push('\n');
    }
    let mut written = 0;
    while written < words {
        let start = out.len();
        push_line(&mut out, random);
        let ends = out.as_bytes()[start..].iter().enumerate();
        let mut ends = ends.filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
        // So many words are wanted still: the line is cut before the end of the last of them, where it has more.
        match ends.by_ref().nth(words - written - 1) {
            Some(end) => {
                out.truncate(start + end);
                written = words;
            }
            None => written += out[start..].split(' ').count(),
        }
        if written < words {
            out.push('\n');
        }
    }
    out
}

/// Room for a line.
const LINE: usize = 96;

fn push_line(out: &mut String, random: &mut ChaCha8Rng) {
    let kind = random.random_range(0..6);
    let mut pick = |from: &[&'static str]| *from.choose(random).unwrap_or(&"it");
    let (noun, other, verb) = (pick(NOUNS), pick(NOUNS), pick(VERBS));
    let mut line = |parts: &[&str]| parts.iter().for_each(|part| out.push_str(part));
    match kind {
        0 => line(&["let ", noun, " = ", other, ".", verb, "();"]),
        1 => {
            let (takes, gives) = (pick(TYPES), pick(TYPES));
            line(&["fn ", verb, "_", noun, "(", other, ": ", takes]);
            line(&[") -> ", gives, " {"]);
        }
        2 => {
            line(&["if ", noun, ".is_empty() { return "]);
            line(&[other, ".", verb, "(", noun, "); }"]);
        }
        3 => {
            let (one, another) = (pick(ADJECTIVES), pick(ADJECTIVES));
            line(&["// The ", one, " ", noun, " must ", verb]);
            line(&[" before the ", another, " ", other, " is gone."]);
        }
        4 => {
            let last = pick(NOUNS);
            line(&["for ", noun, " in ", other, "s.iter() { "]);
            line(&[noun, ".", verb, "(&mut ", last, "); }"]);
        }
        _ => {
            let adjective = pick(ADJECTIVES);
            line(&["/// How long the ", adjective, " ", noun, " may "]);
            line(&[verb, " a ", other, "."]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const THEN: &str = "// The long window must finish before the next counter is gone.\n\
        // The fresh stream must decode before the whole vector is gone.\n\
        // The short worker must flush before the long counter is gone.\n\
        if handle.is_empty() { return";

    #[test]
    fn as_many_words_as_asked_for() {
        for words in [0, 1, 7, 100, 1_000] {
            let text = text("", &mut ChaCha8Rng::seed_from_u64(9), words);
            assert_eq!(text.split_whitespace().count(), words, "{text}");
        }
    }

    #[test]
    fn prompts_stay_what_they_were() {
        let text = text("1 2", &mut ChaCha8Rng::seed_from_u64(9), 40);
        assert_eq!(text, format!("1 2\n{THEN}"));
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let of = |seed| text("", &mut ChaCha8Rng::seed_from_u64(seed), 50);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
