//! Header fields of HTTP/1.1 messages: kept in one piece, and found without a look at every name.

use std::fmt;
use std::ops::Range;

/// Header fields in the order and the spelling in which they came.
#[derive(Clone, Default)]
pub struct Headers {
    /// Where names and values lie, among other bytes of their head.
    text: Vec<u8>,
    fields: Vec<Field>,
    /// Which marks the names have, a bit each: what nobody sent is not looked for.
    marks: u64,
}

/// One field's place in the text.
#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
    /// The name's.
    mark: u8,
}

impl Headers {
    /// The fields of a `head`, of which they borrow their names and values.
    pub(super) fn of(head: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        let span = |part: &[u8]| {
            let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
            // A part that is empty may lie anywhere.
            match start.checked_add(part.len()) {
                Some(end) if end <= head.len() => start..end,
                _ => 0..0,
            }
        };
        let mut marks = 0;
        let fields = parsed.iter().map(|field| {
            let mark = mark(field.name.as_bytes());
            marks |= 1 << mark;
            Field {
                name: span(field.name.as_bytes()),
                value: span(field.value),
                mark,
            }
        });
        Self {
            fields: fields.collect(),
            text: head.to_vec(),
            marks,
        }
    }

    /// The first field of that name (in any case), where its value is text.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.first(name)?).ok()
    }

    /// The value of the first field of that name.
    #[inline]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        match self.may_have(name) {
            true => self.values(name).next(),
            false => None,
        }
    }

    /// Every field of that name whose value is text.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Whether some name has this one's mark. Of a name that is known as this is built, its mark is too.
    #[inline]
    fn may_have(&self, name: &str) -> bool {
        self.marks & (1 << mark(name.as_bytes())) != 0
    }

    /// How many fields there are of that name.
    #[inline]
    pub(super) fn count(&self, name: &str) -> usize {
        match self.may_have(name) {
            true => self.values(name).count(),
            false => 0,
        }
    }

    /// The value of every field of that name.
    pub(super) fn values<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let mark = mark(name.as_bytes());
        let fields = match self.marks & (1 << mark) {
            0 => &[],
            _ => &self.fields[..],
        };
        fields
            .iter()
            .filter(move |field| field.mark == mark && is_same(self.name(field), name.as_bytes()))
            .map(|field| self.value(field))
    }

    /// Whether a comma list of that name (`Connection`, say) has the token, in any case.
    #[inline]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.may_have(name) && self.lists(name, token.as_bytes())
    }

    fn lists(&self, name: &str, token: &[u8]) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|entry| is_same(entry.trim_ascii(), token))
    }

    /// All fields as raw bytes: name, value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.fields.iter();
        fields.map(|field| (self.name(field), self.value(field)))
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let mut put = |part: &[u8]| {
            let start = self.text.len();
            self.text.extend_from_slice(part);
            start..self.text.len()
        };
        let mark = mark(name.as_bytes());
        let field = Field {
            name: put(name.as_bytes()),
            value: put(value),
            mark,
        };
        self.fields.push(field);
        self.marks |= 1 << mark;
    }

    /// The fields that an intermediary forwards: all but the hop-by-hop ones (RFC 9110, section 7.6.1) and those that
    /// `Connection` names.
    pub fn end_to_end(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let names_some = self.count("connection") > 0;
        self.iter().filter(move |(name, _)| {
            !(is_hop_by_hop(name) || names_some && self.lists("connection", name))
        })
    }

    fn name(&self, field: &Field) -> &[u8] {
        &self.text[field.name.clone()]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.text[field.value.clone()]
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.iter();
        let shown = fields.map(|(name, value)| {
            let (name, value) = (name.escape_ascii(), value.escape_ascii());
            (name.to_string(), value.to_string())
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Six bits of a name, of its length and its first letter in any case: names whose marks differ are not compared. The names
/// that the proxy asks for, and that clients usually send, have marks of their own.
#[inline]
const fn mark(name: &[u8]) -> u8 {
    let first = match name {
        [first, ..] => *first & 0x1f,
        [] => 0,
    };
    (name.len() as u8).wrapping_mul(7).wrapping_add(first) & 63
}

/// Whether two names are the same in any case. Eight bytes are compared at once, since some of each message are.
#[inline]
pub(super) fn is_same(name: &[u8], other: &[u8]) -> bool {
    if name.len() != other.len() {
        return false;
    }
    if let (Some(&end), Some(&other_end)) = (name.last_chunk(), other.last_chunk()) {
        let (words, _) = name.as_chunks();
        let (others, _) = other.as_chunks();
        let mut pairs = words.iter().zip(others);
        return pairs.all(|(&word, &other)| lower(word) == lower(other))
            && lower(end) == lower(other_end);
    }
    name.eq_ignore_ascii_case(other)
}

/// Eight bytes, the letters of ASCII among them in lower case.
#[inline]
const fn lower(bytes: [u8; 8]) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const TOP: u64 = EACH << 7;
    let word = u64::from_ne_bytes(bytes);
    // Without their highest bits bytes can be added to, each by itself: the bit is then set where the sum reaches it.
    let low = word & !TOP;
    let from_a = low + EACH * (0x80 - b'A' as u64);
    let beyond_z = low + EACH * (0x7f - b'Z' as u64);
    let upper = from_a & !beyond_z & !word & TOP;
    // That bit, two places lower, is what tells the cases of a letter apart.
    word | upper >> 2
}

/// Whether a field concerns one connection only, and never passes an intermediary (RFC 9110, section 7.6.1).
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    // Few names are as long as one of them.
    let candidates: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        7 => &[b"trailer", b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        19 => &[b"proxy-authorization"],
        _ => &[],
    };
    candidates.iter().any(|hop| is_same(name, hop))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_names_have_marks_of_their_own() {
        let mut marks: Vec<_> = [
            "host",
            "connection",
            "content-length",
            "content-type",
            "content-encoding",
            "transfer-encoding",
            "expect",
            "upgrade",
            "traceparent",
            "alt-svc",
            "authorization",
            "accept",
            "user-agent",
            "accept-encoding",
        ]
        .map(|name| mark(name.as_bytes()))
        .into();
        marks.sort_unstable();
        assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
    }

    #[test]
    fn names_that_differ_in_one_place_differ() {
        for length in 0..40 {
            let name = vec![b'a'; length];
            for place in 0..length {
                let mut other = name.clone();
                other[place] = b'b';
                assert!(!is_same(&name, &other), "{place} of {length}");
            }
        }
    }

    #[test]
    fn every_byte_has_the_case_that_ascii_gives_it() {
        for byte in 0..=u8::MAX {
            let lowered = lower([byte; 8]).to_ne_bytes();
            assert_eq!(lowered, [byte.to_ascii_lowercase(); 8], "{byte:#x}");
        }
    }

    #[test]
    fn fields_that_concern_one_connection() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
        }
        for name in ["", "t", "Host", "Content-Length", "Trailers", "Updates"] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_are_the_same_where_only_their_case_differs(
            name in prop::collection::vec(any::<u8>(), 0..20),
            changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut other = name.to_ascii_uppercase();
            prop_assert!(is_same(&name, &other));
            for (place, byte) in changed {
                if !other.is_empty() {
                    let place = place.index(other.len());
                    other[place] = byte;
                }
            }
            prop_assert_eq!(is_same(&name, &other), name.eq_ignore_ascii_case(&other));
            prop_assert!(!is_same(&name, &[&name[..], b"x"].concat()));
        }

        #[test]
        fn a_field_is_found_by_its_name_in_any_case(
            fields in prop::collection::vec(("[A-Da-d-]{1,3}", prop::collection::vec(any::<u8>(), 0..9)), 0..12),
            name in "[A-Da-d-]{1,3}",
        ) {
            let mut headers = Headers::default();
            for (name, value) in &fields {
                headers.push(name, value);
            }
            let same = |other: &str| other.eq_ignore_ascii_case(&name);
            let wanted: Vec<_> = fields.iter().filter(|(other, _)| same(other)).map(|(_, value)| &value[..]).collect();
            prop_assert_eq!(headers.values(&name).collect::<Vec<_>>(), wanted);
            let all: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..])).collect();
            prop_assert_eq!(headers.iter().collect::<Vec<_>>(), all);
        }
    }
}
