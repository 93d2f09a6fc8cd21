//! How a conversation becomes one prompt. Templates are not interpreted: the usual forms are built in.

use crate::{tokenizer::Tokenizer, vocabulary::Vocabulary};

/// The form of a model's conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chat {
    /// ChatML: `<|im_start|>role\ntext<|im_end|>\n`
    Marked { start: u32, end: u32 },
    /// `<|start_header_id|>role<|end_header_id|>\n\ntext<|eot_id|>`
    Llama3 { start: u32, end: u32, turn: u32 },
    /// `[INST] text [/INST] answer </s>`, with system texts between `<<SYS>>` and `<</SYS>>` in a turn of their own.
    Llama2,
    /// `role: text\n`
    Plain,
}

impl Chat {
    /// The form that the special tokens tell, else the template.
    pub(crate) fn choose(vocabulary: &Vocabulary, template: &str) -> Chat {
        let special = |text| vocabulary.special(text);
        if let (Some(start), Some(end)) = (special("<|im_start|>"), special("<|im_end|>")) {
            return Chat::Marked { start, end };
        }
        if let (Some(start), Some(end), Some(turn)) = (
            special("<|start_header_id|>"),
            special("<|end_header_id|>"),
            special("<|eot_id|>"),
        ) {
            return Chat::Llama3 { start, end, turn };
        }
        if template.contains("[INST]") {
            Chat::Llama2
        } else {
            Chat::Plain
        }
    }

    /// One finished message. Header and text are tokenised apart, so that a message begins with the ids of
    /// [`Chat::generation`] if the role is the assistant's.
    pub(crate) fn message(self, tokenizer: &Tokenizer, role: &str, text: &str) -> Vec<u32> {
        let encode = |text: &str| tokenizer.encode(text, false);
        let mut ids = self.header(tokenizer, role);
        match self {
            Chat::Marked { end, .. } => {
                ids.extend(encode(text));
                ids.push(end);
                ids.extend(encode("\n"));
            }
            Chat::Llama3 { turn, .. } => {
                ids.extend(encode(text));
                ids.push(turn);
            }
            Chat::Llama2 if role == "assistant" => {
                ids.extend(encode(text));
                ids.extend(tokenizer.eos());
            }
            Chat::Llama2 if role == "system" || role == "developer" => {
                ids.extend(encode(&format!("[INST] <<SYS>>\n{text}\n<</SYS>> [/INST]")));
            }
            Chat::Llama2 => ids.extend(encode(&format!("[INST] {text} [/INST]"))),
            Chat::Plain => ids.extend(encode(&format!(" {text}\n"))),
        }
        ids
    }

    /// What makes the model answer: the beginning of an assistant's message.
    pub(crate) fn generation(self, tokenizer: &Tokenizer) -> Vec<u32> {
        self.header(tokenizer, "assistant")
    }

    fn header(self, tokenizer: &Tokenizer, role: &str) -> Vec<u32> {
        let encode = |text: &str| tokenizer.encode(text, false);
        match self {
            Chat::Marked { start, .. } => {
                let mut ids = vec![start];
                ids.extend(encode(&format!("{role}\n")));
                ids
            }
            Chat::Llama3 { start, end, .. } => {
                let mut ids = vec![start];
                ids.extend(encode(role));
                ids.push(end);
                ids.extend(encode("\n\n"));
                ids
            }
            Chat::Llama2 => Vec::new(),
            Chat::Plain => encode(&format!("{role}:")),
        }
    }
}
