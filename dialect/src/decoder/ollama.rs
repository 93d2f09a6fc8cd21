//! Reads one line of Ollama's own API, of `/api/chat` and of `/api/generate`.
//!
//! Shapes after <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use tokenlag_probes::{DeltaKind, Usage};

use super::failure::failure_kind;
use super::kinds::Kinds;
use super::{Reading, Terminal, Unreadable};
use crate::scan::{Leaves, Malformed, Scanner};

/// What one line holds.
#[derive(Default)]
struct Line {
    thinking: bool,
    content: bool,
    tools: Kinds,
    done: bool,
    failed: bool,
    prompt_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

pub(super) fn read(data: &[u8], leaves: &mut Leaves) -> Result<Reading, Unreadable> {
    let mut line = Line::default();
    Scanner::whole(data, leaves, |scanner, key| {
        match key {
            b"message" => message(scanner, &mut line)?,
            b"response" => line.content |= scanner.something()?,
            b"thinking" => line.thinking |= scanner.something()?,
            b"done" => line.done = flag(scanner)?,
            b"prompt_eval_count" => line.prompt_tokens = count(scanner)?,
            b"eval_count" => line.output_tokens = count(scanner)?,
            b"error" => line.failed = scanner.something()?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    let mut kinds = Kinds::default();
    kinds.push_if(line.thinking, DeltaKind::Reasoning);
    kinds.push_if(line.content, DeltaKind::Content);
    for &tool in line.tools.as_slice() {
        kinds.push(tool);
    }
    let terminal = if line.failed {
        Some(Terminal::Failed(failure_kind(data)))
    } else {
        line.done.then_some(Terminal::Done)
    };
    // A prompt that was in the cache as a whole is not counted by some versions; then nothing tells its length.
    let counted = line.prompt_tokens.is_some() || line.output_tokens.is_some();
    Ok(Reading {
        kinds,
        terminal,
        usage: counted.then_some(Usage {
            input: line.prompt_tokens.unwrap_or(0),
            cached_input: None,
            output: line.output_tokens.unwrap_or(0),
        }),
        cached_by_timings: None,
    })
}

fn message(scanner: &mut Scanner<'_>, line: &mut Line) -> Result<(), Malformed> {
    scanner.optional_object(|scanner, key| {
        match key {
            b"content" => line.content |= scanner.something()?,
            b"thinking" => line.thinking |= scanner.something()?,
            b"tool_calls" => scanner.array(|scanner| tool_call(scanner, &mut line.tools))?,
            _ => scanner.pass()?,
        }
        Ok(())
    })
}

/// A call comes whole, its arguments as an object: it is one delta, even without arguments.
fn tool_call(scanner: &mut Scanner<'_>, tools: &mut Kinds) -> Result<(), Malformed> {
    let mut called = false;
    scanner.object(|scanner, key| {
        match key {
            b"function" => called = scanner.something()?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    tools.push_if(called, DeltaKind::Tool);
    Ok(())
}

fn flag(scanner: &mut Scanner<'_>) -> Result<bool, Malformed> {
    match scanner.value()? {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(Malformed),
    }
}

fn count(scanner: &mut Scanner<'_>) -> Result<Option<u64>, Malformed> {
    serde_json::from_slice(scanner.value()?).map_err(|_| Malformed)
}
