//! `--plan FILE.toml`: a key for each flag, read as if it had been given on the command line, with less weight.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::exit::Usage;

/// The flags that the file adds to those that were given: nothing where a flag or its variable is set already.
///
/// # Errors
/// A file that cannot be read, keys that no flag has (all of them are named), values that no flag can take.
pub fn flags(path: &Path, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, Usage> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read the plan {shown}: {error}")))?;
    let table: Table = text
        .parse()
        .map_err(|error| Usage(format!("the plan {shown} is no TOML: {error}")))?;
    refuse_unknown(path, command, &table)?;
    let mut flags = Vec::new();
    for (key, value) in &table {
        let Some(arg) = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(key))
        else {
            continue;
        };
        let set = matches!(
            given.value_source(arg.get_id().as_str()),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        );
        if !set {
            let switch = matches!(arg.get_action(), ArgAction::SetTrue);
            push(&mut flags, key, value, switch)
                .map_err(|reason| Usage(format!("the plan {shown}: {key}: {reason}")))?;
        }
    }
    Ok(flags)
}

fn refuse_unknown(path: &Path, command: &Command, table: &Table) -> Result<(), Usage> {
    let is_flag = |key: &str| {
        let flag = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(key));
        flag.is_some_and(|arg| !arg.is_hide_set()) && !matches!(key, "plan" | "help")
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

fn push(flags: &mut Vec<OsString>, key: &str, value: &Value, switch: bool) -> Result<(), String> {
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
