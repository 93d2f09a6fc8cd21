//! Small helpers over serde_json: raw values built from text that this crate wrote itself.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `value` as raw JSON text. For types of this crate, whose serialization cannot fail: string keys, no foreign code.
pub(crate) fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value)
        .expect("types of this crate serialize: no map has a key that is not a string")
}

/// Appends `value` as JSON. Same condition as [`raw`].
pub(crate) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .expect("types of this crate serialize, and a Vec takes every byte");
}

/// Raw text of a value that carries something: not null, not an empty string, array or object.
pub(crate) fn carries_something(raw: &RawValue) -> bool {
    !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}")
}

/// The text can only be an object. (Derived readers take an array of the members' values for one, too.)
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// A string, borrowed where it has no escapes. (A bare `Option<Cow<str>>` member would always be copied: serde borrows
/// a `Cow` only where it is the member itself.)
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The text of a raw value that is a string.
pub(crate) fn read_str(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_where_it_can_be() {
        #[derive(Deserialize)]
        struct Holder<'a> {
            #[serde(borrow)]
            text: Option<Text<'a>>,
        }

        for (json, text, borrowed) in [
            (r#"{"text":"plain é"}"#, Some("plain é"), true),
            (r#"{"text":"a\nb"}"#, Some("a\nb"), false),
            (r#"{"text":null}"#, None, false),
            ("{}", None, false),
        ] {
            let holder: Holder<'_> = serde_json::from_str(json).unwrap();
            assert_eq!(holder.text.as_deref(), text, "{json}");
            let is_borrowed = matches!(holder.text, Some(Text(Cow::Borrowed(_))));
            assert_eq!(is_borrowed, borrowed, "{json}");
        }
    }
}
