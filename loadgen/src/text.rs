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

/// `words` words, separated by single spaces or line ends.
pub fn text(random: &mut ChaCha8Rng, words: usize) -> String {
    let mut out = String::with_capacity(words * 8);
    let mut written = 0;
    while written < words {
        for word in line(random).split(' ').take(words - written) {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push(' ');
            }
            out.push_str(word);
            written += 1;
        }
        if written < words {
            out.push('\n');
        }
    }
    out
}

fn line(random: &mut ChaCha8Rng) -> String {
    let kind = random.random_range(0..6);
    let mut pick = |from: &[&'static str]| *from.choose(random).unwrap_or(&"it");
    let (noun, other, verb) = (pick(NOUNS), pick(NOUNS), pick(VERBS));
    match kind {
        0 => format!("let {noun} = {other}.{verb}();"),
        1 => format!(
            "fn {verb}_{noun}({other}: {}) -> {} {{",
            pick(TYPES),
            pick(TYPES)
        ),
        2 => format!("if {noun}.is_empty() {{ return {other}.{verb}({noun}); }}"),
        3 => format!(
            "// The {} {noun} must {verb} before the {} {other} is gone.",
            pick(ADJECTIVES),
            pick(ADJECTIVES)
        ),
        4 => format!(
            "for {noun} in {other}s.iter() {{ {noun}.{verb}(&mut {}); }}",
            pick(NOUNS)
        ),
        _ => format!(
            "/// How long the {} {noun} may {verb} a {other}.",
            pick(ADJECTIVES)
        ),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn as_many_words_as_asked_for() {
        for words in [0, 1, 7, 100, 1_000] {
            let text = text(&mut ChaCha8Rng::seed_from_u64(9), words);
            assert_eq!(text.split_whitespace().count(), words, "{text}");
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let of = |seed| text(&mut ChaCha8Rng::seed_from_u64(seed), 50);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
