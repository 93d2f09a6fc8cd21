//! The command line as a whole: flags, then the environment, then the plan file.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::compare::CompareArgs;
use crate::args::{Cli, Command as Subcommand};
use crate::exit::Usage;
use crate::plan_file::{self, Plan, Planned};
use crate::sweep::Case;

/// Flags whose values are secrets, or may hold one: they are kept out of what is written.
pub const SECRETS: [&str; 2] = ["api-key", "header"];

/// A command line that was read.
pub enum Parsed {
    /// What to do.
    One(Subcommand),
    /// What `compare` is to run where a plan leaves something to vary.
    Sweep(Swept),
}

/// The comparisons of a plan.
pub struct Swept {
    /// Each with its flags.
    pub cases: Vec<(Case, Box<CompareArgs>)>,
    /// What they were read from.
    pub plan: Plan,
}

/// Reads the process's own command line. Help, version and clap's own complaints end the process here.
pub fn parse() -> Result<Parsed, Usage> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = command();
    let given = command
        .clone()
        .try_get_matches_from(&words)
        .unwrap_or_else(|error| error.exit());
    let Planned {
        words: planned,
        sweep,
        plan,
    } = planned(&command, &given)?;
    // What follows a bare `--` are another command's words.
    let end = words.iter().position(|word| word == "--");
    let end = end.unwrap_or(words.len());
    let read = |more: &[OsString]| {
        let (ours, others) = words.split_at(end);
        let ours = ours.iter().chain(&planned).chain(more);
        let words = ours.chain(others).cloned();
        let matches = command.clone().try_get_matches_from(words);
        let matches = matches.unwrap_or_else(|error| error.exit());
        let read = Cli::from_arg_matches(&matches).map(|cli| cli.command);
        read.map_err(|error| Usage(error.to_string()))
    };
    let cases = sweep.map_or_else(Vec::new, |sweep| sweep.cases());
    if let Some(place) = case(&given, cases.len())? {
        return Ok(Parsed::One(read(&cases[place].words)?));
    }
    if cases.is_empty() {
        return Ok(Parsed::One(read(&[])?));
    }
    // What they have in common need not make sense alone: a flag may need one that varies.
    let mut swept = Vec::with_capacity(cases.len());
    for case in cases {
        if let Subcommand::Compare(args) = read(&case.words)? {
            swept.push((case, args));
        }
    }
    Ok(Parsed::Sweep(Swept { cases: swept, plan }))
}

/// The place of the one comparison of a sweep of `count` that was asked for.
fn case(given: &ArgMatches, count: usize) -> Result<Option<usize>, Usage> {
    let Some((_, given)) = given.subcommand() else {
        return Ok(None);
    };
    let Some(&number) = given.try_get_one::<u32>("case").ok().flatten() else {
        return Ok(None);
    };
    let place = (number as usize)
        .checked_sub(1)
        .filter(|place| *place < count);
    match place {
        Some(place) => Ok(Some(place)),
        None if count == 0 => Err(Usage(
            "--case is for a --plan with a [sweep], and this one has none".to_owned(),
        )),
        None => Err(Usage(format!(
            "--case {number}: the plan's sweep has {count} comparisons"
        ))),
    }
}

/// The words of the command line, for the record, without secrets.
pub fn without_secrets() -> Vec<String> {
    redact(std::env::args_os().map(|word| word.to_string_lossy().into_owned()))
}

/// Every flag can be set by `TOKENLAG_<FLAG>`, but those that the rig gives its children.
fn command() -> clap::Command {
    fn with_environment(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|arg| {
            let variable = match arg.get_long() {
                Some("help" | "version" | "plan") | None => None,
                Some(_) if arg.is_hide_set() => None,
                Some(long) => Some(format!(
                    "TOKENLAG_{}",
                    long.to_uppercase().replace('-', "_")
                )),
            };
            match variable {
                // Names must live as long as the command, which is as long as the process.
                Some(variable) => arg.env(&*variable.leak()).hide_env(true),
                None => arg,
            }
        });
        command.mut_subcommands(with_environment)
    }
    with_environment(Cli::command())
}

/// What the plan file says, where one is named.
fn planned(command: &clap::Command, given: &ArgMatches) -> Result<Planned, Usage> {
    let Some((name, given)) = given.subcommand() else {
        return Ok(Planned::default());
    };
    let plan = given
        .try_get_one::<std::path::PathBuf>("plan")
        .ok()
        .flatten();
    match (plan, command.find_subcommand(name)) {
        (Some(path), Some(command)) => plan_file::read(path, command, given),
        _ => Ok(Planned::default()),
    }
}

fn redact(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut secret_next = false;
    let mut header_next = false;
    words
        // Who repeats the run has another parent, and hands it nothing.
        .filter(|word| !word.starts_with("--die-with-parent=") && word != "--plan-on-stdin")
        .map(|word| {
            if std::mem::take(&mut secret_next) {
                return "...".to_owned();
            }
            if std::mem::take(&mut header_next) {
                return header_name(&word);
            }
            match word.split_once('=') {
                Some(("--api-key", _)) => "--api-key=...".to_owned(),
                Some(("--header", header)) => format!("--header={}", header_name(header)),
                _ => {
                    secret_next = word == "--api-key";
                    header_next = word == "--header";
                    word
                }
            }
        })
        .collect()
}

fn header_name(header: &str) -> String {
    format!("{}: ...", header.split(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_flag_whose_value_the_help_hides_is_a_secret() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let long = arg.get_long().unwrap_or_default();
                assert_eq!(
                    arg.is_hide_env_values_set(),
                    SECRETS.contains(&long),
                    "{long}"
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn secrets_stay_out_of_the_record() {
        let words = "tokenlag load --api-key sk-1 --header X-Key:sk-2 --api-key=sk-3 --header=Y:sk-4 --osl 8";
        let redacted = redact(words.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(
            redacted,
            "tokenlag load --api-key ... --header X-Key: ... --api-key=... --header=Y: ... --osl 8"
        );
    }
}
