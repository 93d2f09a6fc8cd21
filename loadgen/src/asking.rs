//! What every request of a run asks for, whatever its prompt: written once, and not with each request.

use serde::Serialize;
use serde_json::{Map, Value};
use tokenlag_dialect::Dialect;

/// What every request of a run asks for, whatever its prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// The API.
    pub dialect: Dialect,
    /// The model's name.
    pub model: String,
    /// Later turns bring what a tool returned (Responses API; elsewhere it is a user's message, since their servers' templates
    /// differ in what they make of a tool's).
    pub tool_calls: bool,
    /// Sampling seed.
    pub seed: u64,
    /// Ask the model to go on to `output` tokens whatever it says (vLLM's and llama-server's `ignore_eos`).
    pub ignore_eos: bool,
    /// Ask for responses to be kept, so that a later turn can go on from them (Responses API). All rows that are compared
    /// ask the same: what keeping costs is then in none of the differences.
    pub store: bool,
    /// Further members of every body; they replace ours of the same name.
    pub extra: Map<String, Value>,
}

/// The members of every body by which a run asks so, as JSON.
#[derive(Clone, Debug)]
pub struct Form {
    asking: Asking,
    /// An object without its end.
    json: Vec<u8>,
    /// Where in it the number of tokens to put out is missing; `None` where the user's own member says it.
    output_at: Option<usize>,
}

impl Form {
    /// Writes what `asking` says.
    pub fn of(asking: Asking) -> Self {
        let mut members = Members {
            json: vec![b'{'],
            theirs: &asking.extra,
        };
        members.set("model", &asking.model);
        members.set("stream", true);
        members.set("temperature", 0);
        members.set("seed", asking.seed);
        if asking.ignore_eos {
            members.set("ignore_eos", true);
        }
        let output_at = match asking.dialect {
            Dialect::Responses => {
                let output_at = members.name("max_output_tokens");
                members.set("store", asking.store);
                output_at
            }
            // The last two are read, not asked in; their requests look like a chat's.
            Dialect::Chat | Dialect::Completions | Dialect::Anthropic | Dialect::Ollama => {
                let include_usage = true;
                let output_at = members.name("max_tokens");
                members.set("stream_options", StreamOptions { include_usage });
                output_at
            }
        };
        let mut json = members.json;
        for (name, value) in &asking.extra {
            push_name(&mut json, name);
            push_value(&mut json, value);
        }
        Self {
            asking,
            json,
            output_at,
        }
    }

    /// What is asked for.
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    /// Writes the object's begin, for a reply of so many tokens; the prompt, and the end, are missing still.
    pub(crate) fn write(&self, json: &mut Vec<u8>, output: u32) {
        let (before, after) = self.json.split_at(self.output_at.unwrap_or(0));
        json.extend_from_slice(before);
        if self.output_at.is_some() {
            push_value(json, &output);
        }
        json.extend_from_slice(after);
    }

    /// Bytes of it, but for the number.
    pub(crate) fn size(&self) -> usize {
        self.json.len()
    }

    /// Whether a member of that name may be ours: the user gave none.
    pub(crate) fn may_name(&self, name: &str) -> bool {
        !self.asking.extra.contains_key(name)
    }
}

/// An object that is being written. What the user's own members name is theirs.
struct Members<'a> {
    json: Vec<u8>,
    theirs: &'a Map<String, Value>,
}

impl Members<'_> {
    fn set(&mut self, name: &'static str, value: impl Serialize) {
        if self.name(name).is_some() {
            push_value(&mut self.json, &value);
        }
    }

    /// Writes a member's name; gives where its value is to stand. `None` where the user named it.
    fn name(&mut self, name: &'static str) -> Option<usize> {
        if self.theirs.contains_key(name) {
            return None;
        }
        push_own_name(&mut self.json, name);
        Some(self.json.len())
    }
}

/// A further member's name, after the brace that begins the object or another member.
fn push_name(json: &mut Vec<u8>, name: &str) {
    if json.last() != Some(&b'{') {
        json.push(b',');
    }
    push_value(json, name);
    json.push(b':');
}

/// The same for a name that needs no escapes.
pub(crate) fn push_own_name(json: &mut Vec<u8>, name: &'static str) {
    let before: &[u8] = match json.last() {
        Some(b'{') => b"\"",
        _ => b",\"",
    };
    json.extend_from_slice(before);
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
}

/// A member's value.
pub(crate) fn push_value(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value).expect("values with names of text are always JSON");
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(asking: Asking) -> Value {
        let mut json = Vec::new();
        Form::of(asking).write(&mut json, 12);
        json.push(b'}');
        serde_json::from_slice(&json).unwrap()
    }

    fn asking(extra: Value) -> Asking {
        let Value::Object(extra) = extra else {
            panic!("{extra} is no object")
        };
        Asking {
            dialect: Dialect::Chat,
            model: "a \"model\"".to_owned(),
            tool_calls: false,
            seed: 3,
            ignore_eos: true,
            store: false,
            extra,
        }
    }

    #[test]
    fn what_is_asked_stands_in_every_body() {
        let body = written(asking(serde_json::json!({"top_k": 5})));
        let wanted = serde_json::json!({
            "model": "a \"model\"",
            "stream": true,
            "temperature": 0,
            "seed": 3,
            "ignore_eos": true,
            "max_tokens": 12,
            "stream_options": {"include_usage": true},
            "top_k": 5,
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn a_user_may_name_every_member() {
        let theirs = serde_json::json!({
            "model": 1, "stream": 2, "temperature": 3, "seed": 4, "ignore_eos": 5, "max_tokens": 6, "stream_options": 7,
        });
        assert_eq!(written(asking(theirs.clone())), theirs);
        let length = serde_json::json!({"max_tokens": 6});
        assert_eq!(written(asking(length))["max_tokens"], 6);
    }
}
