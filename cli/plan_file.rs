//! `--plan FILE.toml`: a key for each flag, read as if it had been given on the command line, with less weight.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::exit::Usage;
use crate::sweep::Sweep;

/// The table of a plan in which the flags of several comparisons stand.
const SWEEP: &str = "sweep";

/// What a file says.
#[derive(Debug, Default)]
pub struct Planned {
    /// The flags that it adds to those that were given: nothing where a flag or its variable is set already.
    pub words: Vec<OsString>,
    /// What it leaves to vary.
    pub sweep: Option<Sweep>,
}

/// Reads a plan.
///
/// # Errors
/// A file that cannot be read, keys that no flag has (all of them are named), values that no flag can take.
pub fn read(path: &Path, command: &Command, given: &ArgMatches) -> Result<Planned, Usage> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read the plan {shown}: {error}")))?;
    let mut table: Table = text
        .parse()
        .map_err(|error| Usage(format!("the plan {shown} is no TOML: {error}")))?;
    let sweep = match command.get_name() {
        "compare" => table.remove(SWEEP),
        _ => None,
    };
    refuse_unknown(path, command, &table)?;
    let is_set = |arg: &Arg| {
        matches!(
            given.value_source(arg.get_id().as_str()),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        )
    };
    let set = |key: &str| named(command, key).is_some_and(is_set);
    let sweep = sweep.map(|sweep| Sweep::read(path, &sweep, &table, command, set));
    // What the command line leaves nothing of is one comparison as any other.
    let sweep = sweep.transpose()?.filter(|sweep| !sweep.is_empty());
    let mut words = Vec::new();
    for (key, value) in &table {
        if !set(key) {
            push(&mut words, key, value, is_switch(command, key))
                .map_err(|reason| Usage(format!("the plan {shown}: {key}: {reason}")))?;
        }
    }
    Ok(Planned { words, sweep })
}

/// The flag of that name.
fn named<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let mut args = command.get_arguments();
    args.find(|arg| arg.get_long() == Some(key))
}

/// Whether the flag of that name takes no value.
pub fn is_switch(command: &Command, key: &str) -> bool {
    named(command, key).is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
}

/// Refuses keys that no flag has: all of them are named, and what is known.
pub fn refuse_unknown(path: &Path, command: &Command, table: &Table) -> Result<(), Usage> {
    let is_flag = |key: &str| {
        let flag = named(command, key);
        flag.is_some_and(|arg| !arg.is_hide_set()) && !matches!(key, "plan" | "case" | "help")
    };
    let unknown: Vec<&str> = table
        .keys()
        .map(String::as_str)
        .filter(|key| !is_flag(key))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut known: Vec<&str> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|key| is_flag(key))
        .collect();
    known.sort_unstable();
    Err(Usage(format!(
        "the plan {} has keys that `{}` does not know: {}; known: {}",
        path.display(),
        command.get_name(),
        unknown.join(", "),
        known.join(", ")
    )))
}

/// Appends the words by which a command line says that `key` is `value`.
///
/// # Errors
/// Such a value has no words.
pub fn push(
    flags: &mut Vec<OsString>,
    key: &str,
    value: &Value,
    switch: bool,
) -> Result<(), String> {
    let text = match value {
        Value::Boolean(on) if switch => {
            if *on {
                flags.push(format!("--{key}").into());
            }
            return Ok(());
        }
        Value::Array(values) => {
            for value in values {
                push(flags, key, value, switch)?;
            }
            return Ok(());
        }
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(on) => on.to_string(),
        Value::Datetime(_) | Value::Table(_) => {
            return Err("must be text, a number, true or false, or a list of those".to_owned());
        }
    };
    // One word with an equals sign: a value may begin with a dash.
    flags.push(format!("--{key}={text}").into());
    Ok(())
}
