//! `--plan FILE.toml`: a key for each flag, read as if it had been given on the command line, with less weight.

use std::ffi::OsString;
use std::path::Path;
use std::{fs, io};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::command_line::SECRETS;
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
    /// Itself.
    pub plan: Plan,
}

/// A plan as it was when it was read: its file may be another later, or be read only once.
#[derive(Debug, Default)]
pub struct Plan {
    /// Its text.
    pub text: String,
    /// The same as it may be written down.
    pub without_secrets: String,
}

/// Reads a plan.
///
/// # Errors
/// A file that cannot be read, keys that no flag has (all of them are named), values that no flag can take.
pub fn read(path: &Path, command: &Command, given: &ArgMatches) -> Result<Planned, Usage> {
    let shown = path.display();
    let text = text(path, given)
        .map_err(|error| Usage(format!("cannot read the plan {shown}: {error}")))?;
    let mut table: Table = text
        .parse()
        .map_err(|error| Usage(format!("the plan {shown} is no TOML: {error}")))?;
    let plan = Plan {
        without_secrets: without_secrets(&text, &table),
        text,
    };
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
    Ok(Planned { words, sweep, plan })
}

/// What stands in the file; a comparison of a sweep is handed what stood there when the sweep began.
fn text(path: &Path, given: &ArgMatches) -> io::Result<String> {
    let handed = given.try_get_one::<bool>("plan_on_stdin").ok().flatten();
    match handed {
        Some(true) => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(path),
    }
}

/// As it was written; where there are secrets, which may stand anywhere in it, what it says but for those.
fn without_secrets(text: &str, table: &Table) -> String {
    if !SECRETS.iter().any(|key| table.contains_key(*key)) {
        return text.to_owned();
    }
    let mut open = table.clone();
    open.retain(|key, _| !SECRETS.contains(&key));
    let left_out = SECRETS.join(" and ");
    format!("# {left_out}: left out here, as secrets\n{open}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_of_a_plan_has_no_secrets() {
        let kept = |text: &str| without_secrets(text, &text.parse().unwrap());
        let open = "# why\nosl = 3\n\n[sweep]\ntls = [false, true]\n";
        assert_eq!(kept(open), open);
        let secret = format!(
            "api-key = \"sk-1\" # not sk-0\nheader = [\n\"A: sk-2\",\n\"B: sk-3\"]\n{open}"
        );
        let kept = kept(&secret);
        assert!(!kept.contains("sk-"), "{kept}");
        let table: Table = kept.parse().unwrap();
        assert_eq!(table, open.parse().unwrap());
    }
}
