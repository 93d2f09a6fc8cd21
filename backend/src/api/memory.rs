//! What the server remembers of responses: their token ids, so that the next turn tokenises only what is new.

use std::collections::VecDeque;
use std::sync::Arc;

use tokenlag_dialect::message::Message;
use tokenlag_dialect::{ConversationStore, Limits};

use crate::model::Model;

/// Conversations as token ids, and the instructions seen last.
pub(super) struct Memory {
    model: Arc<Model>,
    /// Of each response: the ids of its turn, from its input to the end mark of its output.
    turns: ConversationStore<Vec<u32>>,
    /// Newest last. Instructions are no part of a stored turn (each request brings its own), yet rarely change.
    instructions: VecDeque<(String, Vec<u32>)>,
}

/// How many instructions are kept as ids, and the longest text among them, in bytes.
const INSTRUCTIONS: (usize, usize) = (8, 1 << 20);

/// A turn that is about to be answered.
pub(super) struct Turn {
    /// All that the model reads: what came before, the turn's input, the beginning of the answer.
    pub(super) prompt: Vec<u32>,
    /// How much of it is the turn's own.
    own: usize,
    parent: Option<String>,
}

/// The response that a turn goes on from is not known (any more).
pub(super) struct UnknownResponse;

impl Memory {
    pub(super) fn new(model: Arc<Model>, limits: Limits) -> Self {
        Self {
            model,
            turns: ConversationStore::new(limits),
            instructions: VecDeque::new(),
        }
    }

    /// Puts a turn's prompt together. Only the messages (and instructions not seen lately) are tokenised.
    pub(super) fn turn(
        &mut self,
        parent: Option<&str>,
        instructions: Option<&str>,
        messages: &[Message],
    ) -> Result<Turn, UnknownResponse> {
        let mut prompt = self.model.tokenizer().chat_start();
        if let Some(text) = instructions {
            self.push_instructions(text, &mut prompt);
        }
        if let Some(parent) = parent {
            let history = self.turns.history(parent).ok_or(UnknownResponse)?;
            history.for_each(|ids| prompt.extend_from_slice(ids));
            self.turns.touch(parent);
        }
        let shared = prompt.len();
        let tokenizer = self.model.tokenizer();
        for message in messages {
            prompt.extend(tokenizer.render_message(role(&message.role), &message.text));
        }
        prompt.extend(tokenizer.generation_prompt());
        Ok(Turn {
            own: prompt.len() - shared,
            prompt,
            parent: parent.map(str::to_owned),
        })
    }

    /// Remembers an answered turn under the response's id. `answer` are the ids that were generated, without an end
    /// mark.
    pub(super) fn remember(&mut self, id: &str, turn: &Remembered, answer: &[u32]) {
        let mut ids = Vec::with_capacity(turn.own.len() + answer.len() + 4);
        ids.extend_from_slice(&turn.own);
        ids.extend_from_slice(answer);
        ids.extend(self.end_of_answer());
        self.turns.insert(id, turn.parent.as_deref(), vec![ids]);
    }

    /// What the template puts after an assistant's text.
    fn end_of_answer(&self) -> Vec<u32> {
        let tokenizer = self.model.tokenizer();
        let empty = tokenizer.render_message("assistant", "");
        let begun = tokenizer.generation_prompt().len();
        empty.get(begun..).unwrap_or_default().to_vec()
    }

    fn push_instructions(&mut self, text: &str, prompt: &mut Vec<u32>) {
        let known = self
            .instructions
            .iter()
            .position(|(known, _)| known == text);
        let entry = match known.and_then(|place| self.instructions.remove(place)) {
            Some(entry) => entry,
            None => (
                text.to_owned(),
                self.model.tokenizer().render_message("system", text),
            ),
        };
        prompt.extend_from_slice(&entry.1);
        let (most, longest) = INSTRUCTIONS;
        if text.len() <= longest {
            self.instructions.push_back(entry);
        }
        if self.instructions.len() > most {
            self.instructions.pop_front();
        }
    }
}

/// What of a turn is needed to remember it.
pub(super) struct Remembered {
    own: Vec<u32>,
    parent: Option<String>,
}

impl Turn {
    /// The prompt, to be submitted, and what is needed to remember the turn.
    pub(super) fn split(self) -> (Vec<u32>, Remembered) {
        let own = self.prompt[self.prompt.len() - self.own..].to_vec();
        let remembered = Remembered {
            own,
            parent: self.parent,
        };
        (self.prompt, remembered)
    }
}

/// The role that the templates know.
pub(super) fn role(role: &str) -> &str {
    match role {
        "developer" => "system",
        "function" => "tool",
        other => other,
    }
}
