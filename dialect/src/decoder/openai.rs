//! Reads one event of the chat completions and completions APIs, as OpenAI, llama-server and vLLM write them.

use tokenlag_probes::DeltaKind;

use super::failure::failure_kind;
use super::kinds::Kinds;
use super::{Reading, Terminal, Unreadable};
use crate::scan::{Leaves, Malformed, Scanner};
use crate::usage::{read_cached_from_timings, read_usage};

pub(super) fn read_chat(data: &[u8], leaves: &mut Leaves) -> Result<Reading, Unreadable> {
    read(data, leaves, chat_choice)
}

pub(super) fn read_completions(data: &[u8], leaves: &mut Leaves) -> Result<Reading, Unreadable> {
    read(data, leaves, text_choice)
}

/// `choice` counts the deltas of one choice.
fn read(
    data: &[u8],
    leaves: &mut Leaves,
    choice: impl Fn(&mut Scanner<'_>, &mut Kinds) -> Result<(), Malformed>,
) -> Result<Reading, Unreadable> {
    let mut reading = Reading::default();
    let mut failed = false;
    Scanner::whole(data, leaves, |scanner, key| match key {
        b"choices" => scanner.array(|scanner| choice(scanner, &mut reading.kinds)),
        b"usage" => {
            reading.usage = read_usage(scanner.value()?);
            Ok(())
        }
        b"timings" => {
            reading.cached_by_timings = read_cached_from_timings(scanner.value()?);
            Ok(())
        }
        // Servers report a failure within the stream as an `error` member; some send no `[DONE]` after it.
        b"error" => {
            failed = scanner.something()?;
            Ok(())
        }
        _ => scanner.pass(),
    })?;
    reading.terminal = failed.then(|| Terminal::Failed(failure_kind(data)));
    Ok(reading)
}

fn text_choice(scanner: &mut Scanner<'_>, kinds: &mut Kinds) -> Result<(), Malformed> {
    let mut text = false;
    scanner.object(|scanner, key| {
        match key {
            b"text" => text = scanner.something()?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    kinds.push_if(text, DeltaKind::Content);
    Ok(())
}

fn chat_choice(scanner: &mut Scanner<'_>, kinds: &mut Kinds) -> Result<(), Malformed> {
    scanner.object(|scanner, key| match key {
        b"delta" => chat_delta(scanner, kinds),
        _ => scanner.pass(),
    })
}

fn chat_delta(scanner: &mut Scanner<'_>, kinds: &mut Kinds) -> Result<(), Malformed> {
    let (mut reasoning, mut content, mut refusal, mut function) = (false, false, false, false);
    let mut tools = Kinds::default();
    scanner.optional_object(|scanner, key| {
        match key {
            // Two names of one thing, and some servers send both.
            b"reasoning_content" | b"reasoning" => reasoning |= scanner.something()?,
            b"content" => content = scanner.something()?,
            b"refusal" => refusal = scanner.something()?,
            b"tool_calls" => scanner.array(|scanner| tool_call(scanner, &mut tools))?,
            b"function_call" => function = has_arguments(scanner)?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    kinds.push_if(reasoning, DeltaKind::Reasoning);
    kinds.push_if(content, DeltaKind::Content);
    kinds.push_if(refusal, DeltaKind::Content);
    for &tool in tools.as_slice() {
        kinds.push(tool);
    }
    kinds.push_if(function, DeltaKind::Tool);
    Ok(())
}

fn tool_call(scanner: &mut Scanner<'_>, kinds: &mut Kinds) -> Result<(), Malformed> {
    let mut arguments = false;
    scanner.object(|scanner, key| {
        match key {
            b"function" => arguments = has_arguments(scanner)?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    kinds.push_if(arguments, DeltaKind::Tool);
    Ok(())
}

/// The function that comes next has a piece of arguments.
fn has_arguments(scanner: &mut Scanner<'_>) -> Result<bool, Malformed> {
    let mut arguments = false;
    scanner.optional_object(|scanner, key| {
        match key {
            b"arguments" => arguments = scanner.something()?,
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    Ok(arguments)
}
