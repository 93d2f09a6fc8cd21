//! Cutting text into the pieces that byte-pair merges stay within.
//!
//! Each kind is a list of patterns that llama.cpp applies one after the other, every one to the pieces that the one before
//! left. Here they are scanners: each looks at a text's beginning and says how many bytes the next piece has.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// How a byte-pair tokenizer cuts text (`tokenizer.ggml.pre`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// llama.cpp's own, where the file names none.
    Default,
    Gpt2,
    /// Each digit alone, then as GPT-2.
    SingleDigits,
    /// Numbers in threes, newlines kept together.
    Llama3,
    /// As Llama 3, but each digit alone.
    Qwen2,
}

impl Pieces {
    /// The kind with llama.cpp's name.
    pub(crate) fn from_name(name: &str) -> Option<Pieces> {
        Some(match name {
            "default" => Pieces::Default,
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "gigachat"
            | "roberta-bpe" | "granite-docling" => Pieces::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "minerva-7b"
            | "mellum" => Pieces::SingleDigits,
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" | "lfm2" | "dbrx" | "smaug-bpe" => Pieces::Llama3,
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "megrez" | "hunyuan" => Pieces::Qwen2,
            _ => return None,
        })
    }

    /// Hands every piece of `text` to `take`, in order; together they are the text.
    pub(crate) fn split<'a>(self, text: &'a str, take: &mut dyn FnMut(&'a str)) {
        match self {
            Pieces::Gpt2 => every(text, gpt2, take),
            Pieces::Llama3 => every(text, |rest| llama3(rest, 3), take),
            Pieces::Qwen2 => every(text, |rest| llama3(rest, 1), take),
            Pieces::SingleDigits => {
                between(text, one_number, &mut |piece| every(piece, gpt2, take))
            }
            Pieces::Default => between(text, punctuation, &mut |piece| {
                every(piece, gpt2, &mut |piece| {
                    between(piece, numbers, &mut |piece| {
                        between(piece, three_digits, take)
                    });
                });
            }),
        }
    }
}

/// Cuts with a scanner that always finds a piece.
fn every<'a>(mut text: &'a str, scan: impl Fn(&str) -> usize, take: &mut dyn FnMut(&'a str)) {
    while !text.is_empty() {
        let (piece, rest) = text.split_at(scan(text));
        take(piece);
        text = rest;
    }
}

/// Cuts out what the scanner finds (0 is nothing); what lies between are pieces as well.
fn between<'a>(text: &'a str, scan: impl Fn(&str) -> usize, take: &mut dyn FnMut(&'a str)) {
    let (mut start, mut at) = (0, 0);
    while let Some(next) = text[at..].chars().next() {
        let found = scan(&text[at..]);
        if found == 0 {
            at += next.len_utf8();
            continue;
        }
        if start < at {
            take(&text[start..at]);
        }
        take(&text[at..at + found]);
        at += found;
        start = at;
    }
    if start < text.len() {
        take(&text[start..]);
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &str) -> usize {
    let contraction = contraction(text, false);
    if contraction > 0 {
        return contraction;
    }
    let blank = usize::from(text.starts_with(' '));
    let rest = &text[blank..];
    for class in [is_letter, is_number, is_other] {
        let run = run(rest, class);
        if run > 0 {
            return blank + run;
        }
    }
    whitespace(text)
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn llama3(text: &str, digits: usize) -> usize {
    let contraction = contraction(text, true);
    if contraction > 0 {
        return contraction;
    }
    let Some(first) = text.chars().next() else {
        return 0;
    };
    let led = if is_newline(first) || is_letter(first) || is_number(first) {
        0
    } else {
        first.len_utf8()
    };
    let letters = run(&text[led..], is_letter);
    if letters > 0 {
        return led + letters;
    }
    let numbers: usize = text
        .chars()
        .take_while(|&c| is_number(c))
        .take(digits)
        .map(char::len_utf8)
        .sum();
    if numbers > 0 {
        return numbers;
    }
    let blank = usize::from(first == ' ');
    let other = run(&text[blank..], is_other);
    if other > 0 {
        let end = blank + other;
        return end + run(&text[end..], is_newline);
    }
    let spaces = &text[..run(text, char::is_whitespace)];
    match spaces.rfind(is_newline) {
        Some(newline) => newline + 1,
        None => whitespace(text),
    }
}

/// A run of whitespace, without its last character if a word follows and others remain.
fn whitespace(text: &str) -> usize {
    let end = run(text, char::is_whitespace);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end < text.len() && end > last {
        end - last
    } else {
        end
    }
}

fn contraction(text: &str, any_case: bool) -> usize {
    let Some(rest) = text.strip_prefix('\'') else {
        return 0;
    };
    let matches = |ending: &str| match rest.get(..ending.len()) {
        Some(found) if any_case => found.eq_ignore_ascii_case(ending),
        found => found == Some(ending),
    };
    let found = ["s", "t", "re", "ve", "m", "ll", "d"]
        .into_iter()
        .find(|ending| matches(ending));
    found.map_or(0, |ending| 1 + ending.len())
}

fn one_number(text: &str) -> usize {
    text.chars()
        .next()
        .filter(|&c| is_number(c))
        .map_or(0, char::len_utf8)
}

fn numbers(text: &str) -> usize {
    run(text, is_number)
}

fn three_digits(text: &str) -> usize {
    match text.as_bytes() {
        [a, b, c, ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => 3,
        _ => 0,
    }
}

/// `[\p{P}\$\+<=>\^\~\|]+`
fn punctuation(text: &str) -> usize {
    run(text, |c| {
        "$+<=>^~|".contains(c) || c.general_category_group() == GeneralCategoryGroup::Punctuation
    })
}

/// Bytes of the longest beginning whose characters are all of a class.
fn run(text: &str, class: impl Fn(char) -> bool) -> usize {
    text.find(|c| !class(c)).unwrap_or(text.len())
}

fn is_letter(c: char) -> bool {
    match c {
        '\0'..='\x7f' => c.is_ascii_alphabetic(),
        _ => c.general_category_group() == GeneralCategoryGroup::Letter,
    }
}

fn is_number(c: char) -> bool {
    c.is_numeric()
}

fn is_other(c: char) -> bool {
    !c.is_whitespace() && !is_letter(c) && !is_number(c)
}

fn is_newline(c: char) -> bool {
    c == '\r' || c == '\n'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(kind: Pieces, text: &str, expected: &[&str]) {
        let mut pieces = Vec::new();
        kind.split(text, &mut |piece| pieces.push(piece));
        assert_eq!(pieces, expected, "{kind:?}");
    }

    #[test]
    fn gpt2_keeps_a_blank_with_its_word() {
        let text = "I'll say  it's 2024, naïve!\n\n  Ok ";
        check(
            Pieces::Gpt2,
            text,
            &[
                "I", "'ll", " say", " ", " it", "'s", " 2024", ",", " naïve", "!", "\n\n ", " Ok",
                " ",
            ],
        );
        check(Pieces::Gpt2, "a\tb\n c", &["a", "\t", "b", "\n", " c"]);
        check(Pieces::Gpt2, "'S", &["'", "S"]);
    }

    #[test]
    fn single_digits_end_a_piece_on_both_sides() {
        check(
            Pieces::SingleDigits,
            "x 12  3",
            &["x", " ", "1", "2", "  ", "3"],
        );
        check(Pieces::SingleDigits, "½a", &["½", "a"]);
    }

    #[test]
    fn llama3_groups_digits_and_newlines() {
        check(
            Pieces::Llama3,
            "It'S 12345 (foo)\n\n \n  bar\tbaz ...\nx  ",
            &[
                "It", "'S", " ", "123", "45", " (", "foo", ")\n\n", " \n", " ", " bar", "\tbaz",
                " ...\n", "x", "  ",
            ],
        );
        check(Pieces::Qwen2, "a123", &["a", "1", "2", "3"]);
    }

    #[test]
    fn default_cuts_at_punctuation_first() {
        check(
            Pieces::Default,
            "a, b== 12345x",
            &["a", ",", " b", "==", " ", "123", "45", "x"],
        );
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(text in "\\PC*|[a-zA-Z0-9' \\n\\r\\t.,$é½]*") {
            for kind in [Pieces::Default, Pieces::Gpt2, Pieces::SingleDigits, Pieces::Llama3, Pieces::Qwen2] {
                let mut joined = String::new();
                kind.split(&text, &mut |piece| {
                    assert!(!piece.is_empty());
                    joined.push_str(piece);
                });
                prop_assert_eq!(&joined, &text);
            }
        }
    }
}
