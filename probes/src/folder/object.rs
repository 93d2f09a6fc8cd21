//! A JSON object as it is written, member by member: one for each exchange, whose names are our own and need no look.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

/// An object without its end.
pub(super) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    /// Begins one at the end of `text`.
    pub(super) fn begin(text: &'a mut Vec<u8>) -> Self {
        text.push(b'{');
        Self(text)
    }

    /// Adds a member. A number that JSON does not know is null.
    pub(super) fn set(&mut self, name: &'static str, value: impl Serialize) {
        self.name(name);
        serde_json::to_writer(&mut *self.0, &value)
            .expect("numbers, words and structs of them are always JSON");
    }

    /// Adds a text that needs no escapes.
    pub(super) fn say(&mut self, name: &'static str, text: impl Display) {
        self.name(name);
        write!(self.0, "\"{text}\"").expect("memory takes all that is written to it");
    }

    /// Adds an object with what `fill` adds to it.
    pub(super) fn nest(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        let mut inner = Object::begin(self.0);
        fill(&mut inner);
        inner.end();
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.0.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        let before: &[u8] = match self.0.last() {
            Some(b'{') => b"\"",
            _ => b",\"",
        };
        self.0.extend_from_slice(before);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_follow_one_another_and_may_be_objects() {
        let mut text = Vec::new();
        let mut object = Object::begin(&mut text);
        object.nest("none", |_| {});
        object.set("number", -7);
        object.nest("some", |inner| {
            inner.say("row", "ws/full");
            inner.set("mean", 0.5);
            inner.set("beyond", f64::NAN);
        });
        object.set("is", true);
        object.end();
        let wanted = r#"{"none":{},"number":-7,"some":{"row":"ws/full","mean":0.5,"beyond":null},"is":true}"#;
        assert_eq!(String::from_utf8(text).unwrap(), wanted);
    }
}
