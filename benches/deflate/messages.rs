//! The messages of an agent's session, made as the load generator makes them.

use std::fmt;
use std::path::Path;

use serde_json::json;
use tokenlag_dialect::Dialect;
use tokenlag_dialect::responses::TextDelta;
use tokenlag_loadgen::conversation::{Conversation, Said};
use tokenlag_loadgen::prompt::nonce;
use tokenlag_loadgen::{Asking, Form, Phase, Preset, Prompts, WordCount};
use tokenlag_probes::{Place, State};

const SEED: u64 = 7;
/// Tokens that a word of the generator's text is to the embedded model, and so the size of its requests.
const COUNT: WordCount = WordCount {
    tokens_per_word: 2.5,
    fixed_tokens: 24.0,
};

/// What the tools returned.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// The load generator's text: a small vocabulary, drawn anew for each turn.
    Synthetic,
    /// This repository's source: what an agent that reads files has in its history.
    Code,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synthetic => "with the load generator's text",
            Self::Code => "with source files of this repository in its stead",
        })
    }
}

/// A turn's request, in both states.
pub struct Turn {
    /// With the history.
    pub full: Vec<u8>,
    /// With what is new alone.
    pub new: Vec<u8>,
}

/// A session of the preset.
pub fn session(content: Content) -> Vec<Turn> {
    let workload = Preset::Agent.workload();
    let prompts = Prompts {
        seed: SEED,
        workload,
        count: COUNT,
    };
    let form = Form::of(Asking {
        dialect: Dialect::Responses,
        model: "stories".to_owned(),
        tool_calls: workload.tool_calls,
        seed: SEED,
        ignore_eos: true,
        store: true,
        extra: serde_json::Map::new(),
    });
    let mut full = Conversation::new(&form, State::Full);
    let mut new = Conversation::new(&form, State::Incremental);
    let source = source();
    let mut read = 0;
    let nonce = nonce(SEED, Phase::Measured, 0);
    let turn = |turn: u32| {
        let place = Place {
            turn,
            ..Place::default()
        };
        let mut input = prompts.input(place, &nonce);
        if matches!(content, Content::Code) {
            // As long, and nothing of it twice.
            let end = source.ceil_char_boundary(read + input.len());
            input = source[read..end].to_owned();
            read = end;
        }
        let output = prompts.output(place);
        let made = Turn {
            full: full.body(&input, output),
            new: new.body(&input, output),
        };
        let terminal = completed(turn, &prompts.probe(output as usize / 2, ""));
        let said = Said {
            terminal: &terminal,
            bytes: &[],
        };
        full.advance(&input, &said);
        new.advance(&input, &said);
        made
    };
    (0..workload.turns).map(turn).collect()
}

/// An answer's text deltas as events, each with a word.
pub fn events() -> Vec<Vec<u8>> {
    let prompts = Prompts {
        seed: SEED,
        workload: Preset::Agent.workload(),
        count: COUNT,
    };
    let text = prompts.probe(125, "");
    let words = text.split_inclusive(' ').zip(4..);
    let event = |(word, number): (&str, u64)| {
        let mut event = Vec::new();
        let delta = TextDelta {
            item_id: "msg_6741f1d2a7c84f6f9a0c2b1d".into(),
            output_index: 0,
            content_index: 0,
            sequence_number: number,
            delta: word.into(),
            logprobs: true,
        };
        delta.write(&mut event);
        event
    };
    words.map(event).collect()
}

/// The event that ends a turn.
fn completed(turn: u32, text: &str) -> Vec<u8> {
    let item = json!({
        "type": "message",
        "id": format!("msg_{turn:024x}"),
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    });
    let event = json!({
        "type": "response.completed",
        "response": {"id": format!("resp_{turn:024x}"), "status": "completed", "output": [item]},
    });
    event.to_string().into_bytes()
}

/// The source files of some crates, one after another.
fn source() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for folder in [
        "proxy/src",
        "channel/src",
        "cli",
        "dialect/src",
        "probes/src",
        "backend/src",
    ] {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
            .expect("the repository is there")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
            .collect();
        files.sort();
        for file in files {
            all.push_str(&std::fs::read_to_string(file).expect("it was listed a moment ago"));
        }
    }
    all
}
