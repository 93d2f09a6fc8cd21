//! A JSON object as it is written, member by member: one for each exchange, whose names are our own and need no look.

use serde::Serialize;

use crate::key::Key;

/// An object without its end.
pub(super) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    /// Begins one at the end of `text`.
    pub(super) fn begin(text: &'a mut Vec<u8>) -> Self {
        text.push(b'{');
        Self(text)
    }

    /// Adds a member. A number that JSON does not know is null.
    #[inline]
    pub(super) fn set(&mut self, key: Key, value: impl Serialize) {
        self.name(key);
        serde_json::to_writer(&mut *self.0, &value)
            .expect("numbers, words and structs of them are always JSON");
    }

    /// Adds a text that needs no escapes.
    #[inline]
    pub(super) fn say(&mut self, key: Key, text: &[u8]) {
        self.name(key);
        self.0.push(b'"');
        self.0.extend_from_slice(text);
        self.0.push(b'"');
    }

    /// Adds an object with what `fill` adds to it.
    pub(super) fn nest(&mut self, key: Key, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(key);
        let mut inner = Object::begin(self.0);
        fill(&mut inner);
        inner.end();
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.0.push(b'}');
    }

    #[inline]
    fn name(&mut self, Key(key): Key) {
        let is_first = self.0.last() == Some(&b'{');
        let key = &key.as_bytes()[usize::from(is_first)..];
        self.0.extend_from_slice(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key;

    #[test]
    fn members_follow_one_another_and_may_be_objects() {
        let mut text = Vec::new();
        let mut object = Object::begin(&mut text);
        object.nest(key!("none"), |_| {});
        object.set(key!("number"), -7);
        object.nest(key!("some"), |inner| {
            inner.say(key!("row"), b"ws/full");
            inner.set(key!("mean"), 0.5);
            inner.set(key!("beyond"), f64::NAN);
        });
        object.set(key!("is"), true);
        object.end();
        let wanted = r#"{"none":{},"number":-7,"some":{"row":"ws/full","mean":0.5,"beyond":null},"is":true}"#;
        assert_eq!(String::from_utf8(text).unwrap(), wanted);
    }
}
