//! Text to token ids and back.

/// The tokenizer of a model.
pub struct Tokenizer {}

impl Tokenizer {
    /// Token ids of `text`, without a beginning-of-sequence token. Special tokens written in the text (`<|im_start|>`)
    /// become themselves only if `parse_special`; otherwise they are ordinary text, as a user's input must be.
    pub fn encode(&self, text: &str, _parse_special: bool) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// The whole prompt of a plain completion: the beginning-of-sequence token if the model wants one, then the text
    /// with its special tokens.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.encode(text, true)
    }

    /// A decoder for one stream of tokens.
    pub fn decoder(&self) -> TokenDecoder {
        TokenDecoder::default()
    }

    /// The bytes that a token stands for in an answer; none for control tokens and unknown ids.
    pub fn token_bytes(&self, _id: u32) -> &[u8] {
        b"?"
    }

    /// How many tokens there are.
    pub fn vocabulary(&self) -> usize {
        256
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<u32> {
        None
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        None
    }

    /// End of turn.
    pub fn eot(&self) -> Option<u32> {
        None
    }

    /// Whether a model that says this token has finished its answer.
    pub fn is_end_of_generation(&self, _id: u32) -> bool {
        false
    }

    /// What stands before the first message of a conversation.
    pub fn chat_start(&self) -> Vec<u32> {
        Vec::new()
    }

    /// One finished message of a conversation, its end mark included.
    pub fn render_message(&self, role: &str, text: &str) -> Vec<u32> {
        self.encode(&format!("{role}: {text}\n"), false)
    }

    /// What stands after the last message, so that the model answers.
    pub fn generation_prompt(&self) -> Vec<u32> {
        self.encode("assistant:", false)
    }

    /// A conversation that waits for its answer: start, messages, generation prompt. Each part is tokenised on its own,
    /// so a longer conversation begins with the ids of a shorter one.
    pub fn chat_prompt(&self, messages: &[(&str, &str)]) -> Vec<u32> {
        let mut ids = self.chat_start();
        for (role, text) in messages {
            ids.extend(self.render_message(role, text));
        }
        ids.extend(self.generation_prompt());
        ids
    }
}

/// Turns a stream of tokens into valid text, holding back characters that are not complete yet.
#[derive(Debug, Default)]
pub struct TokenDecoder {
    piece: String,
}

impl TokenDecoder {
    /// The text that this token completes; may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.piece = String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned();
        &self.piece
    }

    /// What was held back at the end of the stream, incomplete characters replaced by U+FFFD.
    pub fn finish(&mut self) -> &str {
        ""
    }
}
