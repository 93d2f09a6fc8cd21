//! Small helpers over serde_json: raw values built from text that this crate wrote itself.

use serde::Serialize;
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
