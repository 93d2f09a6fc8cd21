//! A JSON object whose members are kept as raw text and in order, so that unknown ones survive untouched.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::read_str;

/// The members of one JSON object. Reading keeps each key and value as the bytes it came in; only whitespace around
/// them is lost when it is written again.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    members: Vec<(Cow<'a, RawValue>, Cow<'a, RawValue>)>,
}

/// The bytes are not one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: {reason}")]
pub struct NotAnObject {
    /// What was expected, and at which line and column, both from 1.
    pub reason: String,
    /// Line of the fault, from 1; 0 where there is none.
    pub line: usize,
    /// Column of the fault, in bytes.
    pub column: usize,
}

impl From<serde_json::Error> for NotAnObject {
    fn from(error: serde_json::Error) -> Self {
        Self {
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        }
    }
}

impl<'a> Fields<'a> {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON, not an object, not UTF-8, or something follows the object.
    pub fn parse(json: &'a [u8]) -> Result<Self, NotAnObject> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The value of a member; of several of one name the last, as JSON readers commonly do. `null` is a value.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.members
            .iter()
            .rev()
            .find(|(key, _)| is_key(key, name))
            .map(|(_, value)| &**value)
    }

    /// The value of a member that is a string. `None` where it is missing or anything else.
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        read_str(self.get(name)?)
    }

    /// The value of a member that is `true` or `false`.
    pub fn get_bool(&self, name: &str) -> Option<bool> {
        match self.get(name)?.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Removes every member of that name; `true` where there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|(key, _)| !is_key(key, name));
        self.members.len() != before
    }

    /// Sets a member: in its place where it exists, else at the end.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        let first = self.members.iter().position(|(key, _)| is_key(key, name));
        match first {
            Some(place) => {
                self.members[place].1 = Cow::Owned(value);
                let mut index = 0;
                self.members.retain(|(key, _)| {
                    index += 1;
                    index - 1 <= place || !is_key(key, name)
                });
            }
            None => self
                .members
                .push((Cow::Owned(crate::json::raw(name)), Cow::Owned(value))),
        }
    }

    /// Sets a member and puts it first.
    pub fn set_first(&mut self, name: &str, value: Box<RawValue>) {
        self.remove(name);
        self.members
            .insert(0, (Cow::Owned(crate::json::raw(name)), Cow::Owned(value)));
    }

    /// Sets a member to a string, as [`Fields::set`] does.
    pub fn set_str(&mut self, name: &str, value: &str) {
        self.set(name, crate::json::raw(value));
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> Fields<'static> {
        let owned = |json: Cow<'_, RawValue>| Cow::Owned(json.into_owned());
        let members = self.members.into_iter();
        Fields {
            members: members
                .map(|(key, value)| (owned(key), owned(value)))
                .collect(),
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// There is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Appends the object's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (key, value)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key.get().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }

    /// The object as a raw value, to be a member of another.
    pub fn to_raw(&self) -> Box<RawValue> {
        let json = String::from_utf8(self.to_vec()).expect("joined from UTF-8");
        RawValue::from_string(json).expect("joined from whole JSON values")
    }

    /// The object's JSON.
    pub fn to_vec(&self) -> Vec<u8> {
        let size: usize = self
            .members
            .iter()
            .map(|(key, value)| key.get().len() + value.get().len() + 2)
            .sum();
        let mut out = Vec::with_capacity(size + 2);
        self.write(&mut out);
        out
    }
}

fn is_key(key: &RawValue, name: &str) -> bool {
    let inner = &key.get()[1..key.get().len() - 1];
    inner == name || (inner.contains('\\') && read_str(key).as_deref() == Some(name))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((Cow::Borrowed(key), Cow::Borrowed(value)));
                }
                Ok(Fields { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(json: &str, change: impl FnOnce(&mut Fields<'_>)) -> String {
        let mut fields = Fields::parse(json.as_bytes()).unwrap();
        change(&mut fields);
        String::from_utf8(fields.to_vec()).unwrap()
    }

    #[test]
    fn unknown_members_survive_byte_for_byte() {
        let json = r#"{"z":1.50,"a":{ "deep" : [1e5 , "\u00e9"] },"kéy\n":"\/","big":123456789012345678901234567890}"#;
        assert_eq!(rewritten(json, |_| {}), json);
        assert_eq!(
            rewritten(json, |fields| {
                fields.set_str("model", "m");
                assert!(fields.remove("z"));
                assert!(!fields.remove("nothing"));
            }),
            r#"{"a":{ "deep" : [1e5 , "\u00e9"] },"kéy\n":"\/","big":123456789012345678901234567890,"model":"m"}"#
        );
    }

    #[test]
    fn members_are_set_in_place() {
        assert_eq!(
            rewritten(r#"{"a":1,"b":2,"a":3}"#, |fields| {
                assert_eq!(fields.get("a").unwrap().get(), "3");
                fields.set_str("a", "x");
            }),
            r#"{"a":"x","b":2}"#
        );
        assert_eq!(
            rewritten(r#"{"a":1,"b":2}"#, |fields| fields
                .set_first("b", crate::json::raw(&true))),
            r#"{"b":true,"a":1}"#
        );
    }

    #[test]
    fn escaped_keys_are_the_same_keys() {
        let fields = Fields::parse(br#"{"str\u0065am":true,"s":"a\"b","n":null}"#).unwrap();
        assert_eq!(fields.get_bool("stream"), Some(true));
        assert_eq!(fields.get_str("s").as_deref(), Some("a\"b"));
        assert_eq!(fields.get_str("n"), None);
        assert!(fields.get("n").is_some());
        assert!(fields.get("m").is_none());
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        for bad in ["", "[1]", "null", "{\"a\":}", "{} {}", "{\"a\":1", "{a:1}"] {
            let error = Fields::parse(bad.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("column"), "{bad}: {error}");
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
        assert_eq!(Fields::parse(b"{\n\"a\":x}").unwrap_err().line, 2);
    }
}
