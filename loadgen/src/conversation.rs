//! One session's conversation as request bodies: what each turn sends, and what it learns from the reply.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenlag_dialect::responses::Completed;
use tokenlag_dialect::responses::request::user_message;
use tokenlag_dialect::{Dialect, Framing, SseSplitter};
use tokenlag_probes::State;

use crate::asking::{Form, push_own_name, push_value};

/// A conversation in the making.
#[derive(Debug)]
pub struct Conversation<'a> {
    form: &'a Form,
    state: State,
    /// Input items (Responses) or messages (chat) so far; for completions, one string.
    history: Vec<Box<RawValue>>,
    previous: Option<String>,
    /// Turns that are over.
    turns: u32,
}

/// What lies around a prompt, and a little more.
const AROUND: usize = 160;

/// What a reply left for the next turn.
#[derive(Debug, Default)]
pub struct Said<'a> {
    /// The data of the terminal event.
    pub terminal: &'a [u8],
    /// The reply's bytes, as far as they were kept (chat and completions only).
    pub bytes: &'a [u8],
}

impl<'a> Conversation<'a> {
    /// A conversation before its first turn. Only the Responses API can be `incremental`.
    pub fn new(form: &'a Form, state: State) -> Self {
        Self {
            form,
            state,
            history: Vec::new(),
            previous: None,
            turns: 0,
        }
    }

    /// The body of the turn whose new input is `input`, and which asks for `output` tokens.
    pub fn body(&self, input: &str, output: u32) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.room(input));
        self.form.write(&mut json, output);
        if let Some(previous) = &self.previous
            && self.form.may_name("previous_response_id")
        {
            push_own_name(&mut json, "previous_response_id");
            push_value(&mut json, previous);
        }
        self.prompt(input, json)
    }

    /// Takes a turn's input and its reply into the history.
    pub fn advance(&mut self, input: &str, said: &Said<'_>) {
        match (self.form.asking().dialect, self.state) {
            (Dialect::Responses, State::Incremental) => {
                self.previous = Completed::parse(said.terminal).map(|completed| completed.id);
            }
            (Dialect::Responses, State::Full) => {
                self.history.extend(self.items(input));
                let output = Completed::parse(said.terminal).map(|completed| completed.output);
                // Every item, as it came: that is what a server that keeps the turn goes on from.
                self.history.extend(output.into_iter().flatten());
            }
            (Dialect::Chat | Dialect::Anthropic | Dialect::Ollama, _) => {
                let text = text_of(said.bytes);
                self.history.push(raw(&message("user", input)));
                self.history.push(raw(&message("assistant", &text)));
            }
            (Dialect::Completions, _) => {
                let text = text_of(said.bytes);
                self.history.push(raw(&format!("{input}{text}\n")));
            }
        }
        self.turns += 1;
    }

    /// A turn's own input items. A tool's result follows the call that it answers, which no server could know otherwise: the
    /// models that are measured with answer in text, whatever they are asked.
    fn items(&self, input: &str) -> Vec<Box<RawValue>> {
        match self.form.asking().tool_calls && self.turns > 0 {
            true => tool_call(self.turns, input).into(),
            false => vec![user_message(input)],
        }
    }

    /// How many bytes a body with `input` takes, most likely.
    fn room(&self, input: &str) -> usize {
        let history: usize = self.history.iter().map(|item| item.get().len() + 1).sum();
        history + input.len() + input.len() / 8 + self.form.size() + AROUND
    }

    /// Adds the member that carries the prompt to an object that lacks its end. What was said before is spliced in as it is, so
    /// that a long history is not parsed and built anew at each turn.
    fn prompt(&self, input: &str, mut json: Vec<u8>) -> Vec<u8> {
        let name = match self.form.asking().dialect {
            Dialect::Responses => "input",
            Dialect::Chat | Dialect::Anthropic | Dialect::Ollama => "messages",
            Dialect::Completions => "prompt",
        };
        push_own_name(&mut json, name);
        if self.form.asking().dialect == Dialect::Completions {
            let earlier = self.history.iter();
            let mut prompt: String = earlier
                .filter_map(|part| serde_json::from_str::<String>(part.get()).ok())
                .collect();
            prompt.push_str(input);
            push_value(&mut json, &prompt);
        } else {
            json.push(b'[');
            for item in &self.history {
                json.extend_from_slice(item.get().as_bytes());
                json.push(b',');
            }
            match self.form.asking().dialect {
                Dialect::Responses => {
                    for item in self.items(input) {
                        json.extend_from_slice(item.get().as_bytes());
                        json.push(b',');
                    }
                    json.pop();
                }
                _ => {
                    json.extend_from_slice(br#"{"role":"user","content":"#);
                    push_value(&mut json, input);
                    json.push(b'}');
                }
            }
            json.push(b']');
        }
        json.push(b'}');
        json
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

fn message<'a>(role: &'a str, content: &'a str) -> Message<'a> {
    Message { role, content }
}

/// The `number`-th call of a session, and what it returned.
fn tool_call(number: u32, returned: &str) -> [Box<RawValue>; 2] {
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Item<'a> {
        FunctionCall {
            call_id: &'a str,
            name: &'a str,
            arguments: &'a str,
        },
        FunctionCallOutput {
            call_id: &'a str,
            output: &'a str,
        },
    }

    // Two digits each, so that a call costs as many tokens at any turn.
    let call_id = &*format!("call_{number:02}");
    let arguments = &*format!(r#"{{"path":"src/part_{number:02}.rs"}}"#);
    [
        raw(&Item::FunctionCall {
            call_id,
            name: "read_file",
            arguments,
        }),
        raw(&Item::FunctionCallOutput {
            call_id,
            output: returned,
        }),
    ]
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("strings and structs of strings are always JSON")
}

/// The text of a chat or completions stream.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut splitter = SseSplitter::new(tokenlag_dialect::decoder::EVENT_LIMIT);
    // An event too large ends the text early; the exchange itself was judged by the decoder.
    let _ = splitter.feed(bytes, &mut |event| {
        let Ok(event) = serde_json::from_slice::<Value>(event.data) else {
            return;
        };
        let choice = &event["choices"][0];
        let piece = choice["delta"]["content"]
            .as_str()
            .or(choice["text"].as_str());
        text.push_str(piece.unwrap_or_default());
    });
    text
}

/// Whether a reply's bytes must be kept for [`Said::bytes`].
pub(crate) fn needs_bytes(dialect: Dialect, framing: Framing) -> bool {
    framing == Framing::Sse && dialect != Dialect::Responses
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
