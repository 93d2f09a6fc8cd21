//! The flags in which the comparisons of a sweep differ, and every combination of their values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use toml::{Table, Value};

use crate::command_line::SECRETS;
use crate::exit::Usage;
use crate::plan_file;

/// More than anybody would wait for: a slip of the pen.
const MOST_CASES: usize = 1_000;
/// A folder's name keeps so much of each value.
const LONGEST_VALUE: usize = 32;
/// It is no longer than this, in bytes: file systems take 255, and programs put words of their own around it.
const LONGEST_FOLDER: usize = 199;

/// A plan's `[sweep]`, as far as the command line leaves it open.
#[derive(Debug)]
pub struct Sweep {
    axes: Vec<Axis>,
}

#[derive(Debug)]
struct Axis {
    key: String,
    values: Vec<Choice>,
}

#[derive(Clone, Debug)]
struct Choice {
    shown: String,
    words: Vec<OsString>,
}

/// One combination.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its place in the sweep, from 1.
    pub number: u32,
    /// What each flag is.
    pub values: BTreeMap<String, String>,
    /// The same as words of a command line.
    pub words: Vec<OsString>,
}

impl Sweep {
    /// Reads the table. Keys that are `set` already, on the command line or in the environment, keep that value, and are no
    /// part of the sweep.
    ///
    /// # Errors
    /// It is no table of lists, names a flag that there is not or that `plan` names too, or has too many combinations.
    pub fn read(
        path: &Path,
        sweep: &Value,
        plan: &Table,
        command: &Command,
        set: impl Fn(&str) -> bool,
    ) -> Result<Self, Usage> {
        let wrong = |what: &str| Err(Usage(format!("the plan {}: {what}", path.display())));
        let Some(table) = sweep.as_table() else {
            return wrong("sweep must be a table: [sweep], then a key for each flag that varies");
        };
        plan_file::refuse_unknown(path, command, table)?;
        let mut axes = Vec::new();
        for (key, values) in table {
            let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
                return wrong(&format!(
                    "sweep.{key} must be a list of the values that --{key} shall take"
                ));
            };
            if plan.contains_key(key) {
                return wrong(&format!(
                    "{key} stands in [sweep] and outside; leave one out"
                ));
            }
            if SECRETS.contains(&&**key) {
                return wrong(&format!(
                    "sweep.{key}: what varies stands in names and tables, and this may be a secret; give --{key} outside [sweep]"
                ));
            }
            if matches!(&**key, "out" | "case") {
                return wrong(&format!(
                    "sweep.{key}: each comparison has its own anyway; leave it out"
                ));
            }
            if key == "output" {
                return wrong("sweep.output: all comparisons have one report; leave it out");
            }
            if set(key) {
                continue;
            }
            let choice = |value: &Value| choice(command, key, value);
            let values: Result<Vec<Choice>, String> = values.iter().map(choice).collect();
            match values {
                Ok(values) => axes.push(Axis {
                    key: key.clone(),
                    values,
                }),
                Err(reason) => return wrong(&format!("sweep.{key}: {reason}")),
            }
        }
        let count = axes.iter().try_fold(1_usize, |count, axis: &Axis| {
            count.checked_mul(axis.values.len())
        });
        match count {
            Some(count) if count <= MOST_CASES => Ok(Self { axes }),
            _ => wrong(&format!(
                "[sweep] has more than {MOST_CASES} combinations; leave some values out"
            )),
        }
    }

    /// Nothing varies.
    pub fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    /// Every combination; the last key's values change fastest.
    pub fn cases(&self) -> Vec<Case> {
        let mut combined: Vec<Vec<(&str, &Choice)>> = vec![Vec::new()];
        for axis in &self.axes {
            combined = combined
                .into_iter()
                .flat_map(|head| {
                    axis.values.iter().map(move |choice| {
                        let mut whole = head.clone();
                        whole.push((axis.key.as_str(), choice));
                        whole
                    })
                })
                .collect();
        }
        let numbered = combined.into_iter().zip(1..);
        numbered
            .map(|(choices, number)| Case {
                number,
                values: (choices.iter())
                    .map(|(key, choice)| ((*key).to_owned(), choice.shown.clone()))
                    .collect(),
                words: (choices.iter())
                    .flat_map(|(_, choice)| choice.words.clone())
                    .collect(),
            })
            .collect()
    }
}

fn choice(command: &Command, key: &str, value: &Value) -> Result<Choice, String> {
    let switch = plan_file::is_switch(command, key);
    let mut words = Vec::new();
    plan_file::push(&mut words, key, value, switch)?;
    let shown = match value {
        Value::Boolean(true) => "on".to_owned(),
        Value::Boolean(false) => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let shown: Vec<String> = values.iter().map(plain).collect();
            shown.join("+")
        }
        other => other.to_string(),
    };
    Ok(Choice { shown, words })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Case {
    /// The name of its folder: its number, which no other case has, and its values, in letters that any file system takes.
    pub fn folder(&self) -> String {
        let mut name = format!("{:02}", self.number);
        for (key, value) in &self.values {
            let kept = value.chars().take(LONGEST_VALUE);
            let safe = kept.map(|c| match c {
                '.' | '+' | '_' => c,
                c if c.is_ascii_alphanumeric() => c,
                _ => '-',
            });
            name.push_str(&format!("-{key}-{}", safe.collect::<String>()));
        }
        // Flags and safe letters are ASCII: a letter is a byte.
        name.chars().take(LONGEST_FOLDER).collect()
    }

    /// Its values as people read them.
    pub fn told(&self) -> String {
        let told: Vec<String> = (self.values.iter())
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        told.join(", ")
    }
}

#[cfg(test)]
#[path = "axes_tests.rs"]
mod tests;
