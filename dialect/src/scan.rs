//! A walk over one JSON text that builds nothing and allocates nothing: for the readers of deltas, which look at a few
//! members and pass all others by.

/// The text is not JSON, or not of the shape that was expected.
#[derive(Debug)]
pub(crate) struct Malformed;

/// A place in a JSON text. Every value that is passed is checked to be one; UTF-8 inside strings is not.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

/// Deeper values than serde_json takes are refused here too.
const DEPTH: u8 = 127;

impl<'a> Scanner<'a> {
    /// Walks the one object that the text is; see [`Scanner::object`].
    pub(crate) fn whole(
        json: &'a [u8],
        member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut scanner = Self { json, at: 0 };
        scanner.object(member)?;
        match scanner.peek() {
            None => Ok(()),
            Some(_) => Err(Malformed),
        }
    }

    /// Walks the object that comes next: `member` is given each key, and must take its value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(Malformed);
            }
            let start = self.at;
            let escaped = self.string()?;
            let key = &self.json[start..self.at];
            self.expect(b':')?;
            let plain = &key[1..key.len() - 1];
            match escaped.then(|| unescaped(key)).flatten() {
                None => member(self, plain)?,
                Some(key) => member(self, &key)?,
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Malformed),
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
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            element(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Malformed),
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
        self.peek();
        let start = self.at;
        self.skip(DEPTH)?;
        Ok(&self.json[start..self.at])
    }

    /// The value carries something: it is not null, nor an empty string, array or object.
    pub(crate) fn something(&mut self) -> Result<bool, Malformed> {
        let value = self.value()?;
        Ok(!matches!(value, b"null" | b"\"\"" | b"[]" | b"{}"))
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
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn skip(&mut self, depth: u8) -> Result<(), Malformed> {
        match self.peek().ok_or(Malformed)? {
            b'"' => self.string().map(drop),
            b'{' | b'[' if depth == 0 => Err(Malformed),
            b'{' => self.object(|inner, _| inner.skip(depth - 1)),
            b'[' => self.array(|inner| inner.skip(depth - 1)),
            b'n' => self.literal(b"null"),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Malformed> {
        if !self.json[self.at..].starts_with(literal) {
            return Err(Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    /// Passes the string by whose quote is here; `true` where it has escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        self.at += 1;
        let mut escaped = false;
        loop {
            while let Some(&word) = self.json[self.at..].first_chunk::<8>() {
                let special = special_bytes(u64::from_le_bytes(word));
                if special != 0 {
                    self.at += special.trailing_zeros() as usize / 8;
                    break;
                }
                self.at += 8;
            }
            match self.byte().ok_or(Malformed)? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                0..=0x1F => return Err(Malformed),
                _ => self.at += 1,
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), Malformed> {
        let length = match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => {
                let digits = self.json.get(self.at + 1..self.at + 5).ok_or(Malformed)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Malformed);
                }
                5
            }
            _ => return Err(Malformed),
        };
        self.at += length;
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }
}

/// The lowest bit set is in the first byte that is a quote, a backslash or a control character; 0 where there is none.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u8| {
        // A byte borrows from the next only where it is below the limit itself: the first one is always right.
        word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS
    };
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

/// The bytes of a string with escapes. `None` where they make no text (half a surrogate pair).
fn unescaped(quoted: &[u8]) -> Option<Vec<u8>> {
    let text: String = serde_json::from_slice(quoted).ok()?;
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_object(json: &str) -> bool {
        let members = |scanner: &mut Scanner<'_>, _: &[u8]| scanner.value().map(drop);
        Scanner::whole(json.as_bytes(), members).is_ok()
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
        Scanner::whole(json, |scanner, key| {
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
