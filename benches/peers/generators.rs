//! The load generators' command lines.

use std::fs;
use std::path::Path;
use std::process::Command;

use tokenlag_probes::TraceId;

use crate::install::{self, Program};
use crate::process::Process;

/// Connections, each with one request under way.
pub const CONNECTIONS: &str = "64";

/// A generator, and how it is started: with the number of its turn.
pub struct Generator {
    pub name: &'static str,
    program: Program,
    arguments: Box<dyn Fn(u32) -> Vec<String>>,
    turn: u32,
}

impl Generator {
    /// Starts it once more, on `core`; what it says goes to a file in `folder`.
    pub fn start(&mut self, (core, folder): (usize, &Path)) -> Result<Process, String> {
        self.turn += 1;
        let arguments = (self.arguments)(self.turn);
        Process::start(self.name, &self.program, arguments, core, folder)
    }
}

/// tokenlag's own, with a folder in `folder` for each run. Sessions of one turn share their connections.
pub fn tokenlag(folder: &Path, url: String, more: &[&str]) -> Generator {
    let words =
        "load --model scripted --turns 1 --multiplex --num-warmups 0 --ui none --allow-untrusted";
    let mut common: Vec<String> = words.split(' ').map(str::to_owned).collect();
    common.extend(["--url".to_owned(), url]);
    common.extend(more.iter().map(|&word| word.to_owned()));
    let folder = folder.to_owned();
    Generator {
        name: "tokenlag",
        program: Program::at(env!("CARGO_BIN_EXE_tokenlag")),
        arguments: Box::new(move |turn| {
            let out = format!("--out={}/run-{turn}", folder.display());
            [&common[..], &[out]].concat()
        }),
        turn: 0,
    }
}

/// oha, posting what is in the file `body` to `target`.
pub fn oha(body: &Path, target: &str) -> Result<Generator, String> {
    let body = body.display().to_string();
    let words = format!("--no-tui -c {CONNECTIONS} -z 10m -m POST -T application/json -D");
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    arguments.extend([body, "-H".to_owned(), traceparent(": "), target.to_owned()]);
    Ok(Generator {
        name: "oha",
        program: Program::of_peer("oha")?,
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
    })
}

/// wrk, the same, told by a script.
pub fn wrk(body: &Path, target: &str) -> Result<Generator, String> {
    let script = body.with_file_name("post.lua");
    let lines = format!(
        "wrk.method = 'POST'\nwrk.body = io.open('{}'):read('*a')\n\
         wrk.headers['content-type'] = 'application/json'\nwrk.headers['accept'] = 'text/event-stream'\n\
         wrk.headers['{}'\n",
        body.display(),
        traceparent("'] = '")
    );
    write(&script, lines.as_bytes())?;
    let words = format!(
        "-t 1 -c {CONNECTIONS} -d 10m -s {} {target}",
        script.display()
    );
    let arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    Ok(Generator {
        name: "wrk",
        program: Program::of_peer("wrk")?,
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
    })
}

fn traceparent(between: &str) -> String {
    format!(
        "traceparent{between}{}",
        TraceId::from_bits(1).traceparent()
    )
}

/// Writes a file that a generator reads.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Makes a tokenizer of a few hundred pieces, since those that AIPerf knows are fetched from elsewhere when it runs.
const TOKENIZER: &str = r#"
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
pieces = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pieces, special_tokens=["<s>", "</s>"])
made.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 10, trainer)
PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>").save_pretrained(sys.argv[1])
"#;

/// AIPerf: so many streams side by side, requests in all, and tokens of each.
pub fn aiperf(
    folder: &Path,
    url: String,
    [count, requests, tokens]: [String; 3],
) -> Result<Generator, String> {
    let program = Program::of_peer("aiperf")?;
    let tokenizer = folder.join("tokenizer");
    // The interpreter that it is installed for.
    let mut python = Command::new(program.path.with_file_name("python3"));
    install::run(python.args(["-c", TOKENIZER]).arg(&tokenizer))?;
    let words = "profile -m scripted --endpoint-type chat --streaming --ui none --isl 64";
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let artifacts = folder.join("aiperf").display().to_string();
    for (flag, value) in [
        ("--url", url),
        ("--concurrency", count),
        ("--request-count", requests),
        ("--osl", tokens),
        ("--output-artifact-dir", artifacts),
        ("--tokenizer", tokenizer.display().to_string()),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    Ok(Generator {
        name: "aiperf",
        program,
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
    })
}
