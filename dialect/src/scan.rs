//! A walk over one JSON text that builds nothing and allocates nothing: for the readers of deltas, which look at a few
//! members and pass all others by.

use std::ops::Range;

/// The text is not JSON, or not of the shape that was expected.
#[derive(Debug)]
pub(crate) struct Malformed;

/// A place in a JSON text. Every value that is passed is checked to be one; UTF-8 inside strings is not.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    /// What has not been passed yet.
    rest: &'a [u8],
    /// How far into the whole text its end is.
    end: usize,
    /// Where values lie whose content told the reader nothing.
    leaves: Leaves,
}

/// The places of those numbers and strings of a text that could be any other number, or any other string that is not empty:
/// its reader would have made the same of it.
#[derive(Debug, Default)]
pub(crate) struct Leaves {
    /// Of a string it is what follows the first quote, with the second.
    pub(crate) places: Vec<Range<usize>>,
    /// There are more, or more depends on the text than its reader looked at.
    pub(crate) incomplete: bool,
}

impl Leaves {
    /// The most places that are kept.
    pub(crate) const MOST: usize = 24;

    /// None yet, of another text.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.places.reserve(Self::MOST);
        self.incomplete = false;
    }

    fn push(&mut self, place: Range<usize>) {
        match self.places.len() < Self::MOST {
            true => self.places.push(place),
            false => self.incomplete = true,
        }
    }
}

/// Deeper values than serde_json takes are refused here too.
const DEPTH: u8 = 127;

impl<'a> Scanner<'a> {
    fn new(json: &'a [u8]) -> Self {
        Self {
            rest: json,
            end: json.len(),
            leaves: Leaves::default(),
        }
    }

    /// Walks the one object that the text is; see [`Scanner::object`]. Puts into `leaves` where values lie that told nothing.
    pub(crate) fn whole(
        json: &'a [u8],
        leaves: &mut Leaves,
        member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        Self::part(json, 0, leaves, member)
    }

    /// The same for an object that lies at `offset` in the text whose leaves are meant.
    pub(crate) fn part(
        json: &'a [u8],
        offset: usize,
        leaves: &mut Leaves,
        member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut scanner = Self {
            rest: json,
            end: offset + json.len(),
            leaves: std::mem::take(leaves),
        };
        let walked = scanner.object(member);
        let ended = scanner.peek().is_none();
        *leaves = scanner.leaves;
        walked?;
        match ended {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    /// Walks the object that comes next: `member` is given each key, and must take its value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            let (key, escaped) = self.string()?;
            self.expect(b':')?;
            match escaped.then(|| unescaped(key)).flatten() {
                None => member(self, key)?,
                Some(key) => member(self, &key)?,
            }
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Walks the array that comes next, or passes a null by: `element` must take each value.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.is_null() {
            return self.value().map(drop);
        }
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Walks the object that comes next, or passes a null by.
    pub(crate) fn optional_object(
        &mut self,
        member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        match self.is_null() {
            true => self.value().map(drop),
            false => self.object(member),
        }
    }

    /// Passes the value that comes next by, and gives its text.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Malformed> {
        self.taken(false)
    }

    /// Passes the value that comes next by, whatever it is.
    pub(crate) fn pass(&mut self) -> Result<(), Malformed> {
        self.taken(true).map(drop)
    }

    /// The value carries something: it is not null, nor an empty string, array or object.
    pub(crate) fn something(&mut self) -> Result<bool, Malformed> {
        let value = self.taken(true)?;
        Ok(!matches!(value, b"null" | b"\"\"" | b"[]" | b"{}"))
    }

    /// Passes a value; where it is `free`, its numbers and strings may be any others.
    fn taken(&mut self, free: bool) -> Result<&'a [u8], Malformed> {
        self.peek();
        let value = self.rest;
        self.skip(DEPTH, free)?;
        Ok(&value[..value.len() - self.rest.len()])
    }

    /// What follows the number that the text begins with.
    pub(crate) fn after_number(json: &'a [u8]) -> Option<&'a [u8]> {
        let mut scanner = Self::new(json);
        scanner.number().ok()?;
        Some(scanner.rest)
    }

    /// What follows the string that is not empty, and whose first quote was just before the text.
    pub(crate) fn after_string(json: &'a [u8]) -> Option<&'a [u8]> {
        let mut scanner = Self::new(json);
        let (text, _) = scanner.string().ok()?;
        (!text.is_empty()).then_some(scanner.rest)
    }

    /// The text between the quotes of a string that has no escapes, as names of types never have; of one that has, the
    /// text as it is written. `None` of a null.
    pub(crate) fn name(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.value()? {
            b"null" => Ok(None),
            [b'"', name @ .., b'"'] => Ok(Some(name)),
            _ => Err(Malformed),
        }
    }

    /// The next byte that is no white space, which is passed by.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.rest {
                [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] => self.rest = rest,
                [byte, ..] => return Some(*byte),
                [] => return None,
            }
        }
    }

    fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    /// Passes the byte by where it comes next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let comes = self.peek() == Some(byte);
        if comes {
            self.rest = &self.rest[1..];
        }
        comes
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        match self.take(byte) {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    fn skip(&mut self, depth: u8, free: bool) -> Result<(), Malformed> {
        match self.peek().ok_or(Malformed)? {
            b'"' => {
                self.rest = &self.rest[1..];
                let start = self.place();
                let (text, _) = self.string()?;
                if free && !text.is_empty() {
                    self.leaves.push(start..self.place());
                }
                Ok(())
            }
            b'{' | b'[' if depth == 0 => Err(Malformed),
            b'{' => self.object(|inner, _| inner.skip(depth - 1, free)),
            b'[' => self.array(|inner| inner.skip(depth - 1, free)),
            b'n' => self.literal(b"null"),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            _ => {
                let start = self.place();
                self.number()?;
                if free {
                    self.leaves.push(start..self.place());
                }
                Ok(())
            }
        }
    }

    /// How far into the whole text it is.
    pub(crate) fn place(&self) -> usize {
        self.end - self.rest.len()
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Malformed> {
        self.rest = self.rest.strip_prefix(literal).ok_or(Malformed)?;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.rest = self.rest.strip_prefix(b"-").unwrap_or(self.rest);
        match self.rest {
            [b'0', rest @ ..] => self.rest = rest,
            _ => self.digits()?,
        }
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        if let [b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let before = self.rest.len();
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
        match self.rest.len() < before {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    /// Passes the string by whose quote was just passed, and gives what is between its quotes; `true` where it has
    /// escapes.
    fn string(&mut self) -> Result<(&'a [u8], bool), Malformed> {
        let text = self.rest;
        let mut rest = text;
        let mut escaped = false;
        loop {
            while let Some((&word, after)) = rest.split_first_chunk::<8>() {
                let special = special_bytes(u64::from_le_bytes(word));
                if special != 0 {
                    rest = &rest[special.trailing_zeros() as usize / 8..];
                    break;
                }
                rest = after;
            }
            rest = match rest {
                [b'"', after @ ..] => {
                    self.rest = after;
                    return Ok((&text[..text.len() - rest.len()], escaped));
                }
                [b'\\', after @ ..] => {
                    escaped = true;
                    after_escape(after)?
                }
                [] | [0..=0x1F, ..] => return Err(Malformed),
                [_, after @ ..] => after,
            };
        }
    }
}

/// What follows an escape whose backslash was just passed.
fn after_escape(rest: &[u8]) -> Result<&[u8], Malformed> {
    match rest {
        [
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
            rest @ ..,
        ] => Ok(rest),
        [b'u', a, b, c, d, rest @ ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => {
            Ok(rest)
        }
        _ => Err(Malformed),
    }
}

/// The lowest bit set is in the first byte that is a quote, a backslash or a control character; 0 where there is none.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte borrows from the next only where it is below what is taken from it: the first that is so is always right.
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGHS
}

/// The bytes of a string with escapes, from what is between its quotes. `None` where they make no text (half a surrogate
/// pair).
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let quoted = [b"\"", text, b"\""].concat();
    let text: String = serde_json::from_slice(&quoted).ok()?;
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_object(json: &str) -> bool {
        let members = |scanner: &mut Scanner<'_>, _: &[u8]| scanner.value().map(drop);
        Scanner::whole(json.as_bytes(), &mut Leaves::default(), members).is_ok()
    }

    /// The scanner takes what serde_json takes, among objects.
    #[track_caller]
    fn check(json: &str) {
        let object = json.trim_ascii_start().starts_with('{');
        let valid = object && serde_json::from_str::<IgnoredAny>(json).is_ok();
        assert_eq!(is_object(json), valid, "{json}");
    }

    #[test]
    fn values_of_every_kind() {
        for value in [
            "0",
            "-0",
            "-1.5e+10",
            "1E5",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "--1",
            "0x1",
            "true",
            "tru",
            "null",
            "nul",
            "nulll",
            "\"\"",
            "\"a\\\"b\"",
            "\"\\u00e9\"",
            "\"\\u00g9\"",
            "\"\\x\"",
            "\"\\",
            "\"\u{1}\"",
            "\"\u{7f}é\"",
            "\"1234567\\\"89\"",
            "\"12345678",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[[[]],{}]",
            "[}",
            "{}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":[1,{\"b\":null}]}",
            "",
            " 1 ",
            "1 1",
        ] {
            check(value);
            check(&format!("{{\"k\":{value}}}"));
            check(&format!(" {{\n\"k\" : {value} , \"l\":[{value}]}}\t"));
        }
        check("{} {}");
        check("{\"\\u0061\":1}");
        check("{\"\\ud800\":1}");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_object(&nested(100)));
        assert!(!is_object(&nested(200)));
        assert!(!is_object(&nested(1_000_000)));
    }

    #[test]
    fn keys_and_values_are_handed_out_as_they_are() {
        let mut seen = Vec::new();
        let json = br#" { "a" : [ 1 , 2 ] , "b\n":"x\"y", "c":null,"d":"n" } "#;
        Scanner::whole(json, &mut Leaves::default(), |scanner, key| {
            let value = scanner.value()?;
            seen.push((key.to_vec(), value));
            Ok(())
        })
        .unwrap();
        let want: [(&[u8], &[u8]); 4] = [
            (b"a", b"[ 1 , 2 ]"),
            (b"b\n", br#""x\"y""#),
            (b"c", b"null"),
            (b"d", b"\"n\""),
        ];
        assert!(seen.iter().map(|(key, value)| (&key[..], *value)).eq(want));
    }

    #[test]
    fn the_places_of_what_told_nothing_are_kept() {
        let json = br#"{"id":"abc","n":[-1.5e3,null,""],"type":"t","c":{"x":"y\""},"u":7}"#;
        let mut leaves = Leaves::default();
        leaves.clear();
        Scanner::whole(json, &mut leaves, |scanner, key| match key {
            b"type" => scanner.name().map(drop),
            b"c" => scanner.something().map(drop),
            b"u" => scanner.value().map(drop),
            _ => scanner.pass(),
        })
        .unwrap();
        let places = leaves.places.iter();
        let texts: Vec<_> = places.map(|place| &json[place.clone()]).collect();
        let want: [&[u8]; 3] = [b"abc\"", b"-1.5e3", br#"y\"""#];
        assert_eq!(texts, want);
        assert!(!leaves.incomplete);
        let many = format!("{{\"n\":[1{}]}}", ",1".repeat(Leaves::MOST));
        let pass = |scanner: &mut Scanner<'_>, _: &[u8]| scanner.pass();
        Scanner::whole(many.as_bytes(), &mut leaves, pass).unwrap();
        assert!(leaves.incomplete);
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(pieces in prop::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""), Just("\\"), Just(" "),
                Just("\"a\":"), Just("\"key\""), Just("null"), Just("true"), Just("-1.5e3"), Just("0"), Just("\\u00e9"),
                Just("é"), Just("\n"), Just("\u{1}"), Just("long text of more than eight bytes"),
            ],
            0..24,
        )) {
            check(&pieces.concat());
            check(&format!("{{\"a\":{}}}", pieces.concat()));
            check(&format!("{{\"a\":\"{}\"}}", pieces.concat()));
        }

        #[test]
        fn finds_the_first_special_byte(bytes in any::<[u8; 8]>()) {
            let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F));
            let found = special_bytes(u64::from_le_bytes(bytes));
            prop_assert_eq!((found != 0).then(|| found.trailing_zeros() as usize / 8), first);
        }
    }
}
