//! What is asked: sessions of turns, and how many tokens go in and come out of each.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The shape of a session. Token counts are targets: they are met as exactly as the calibration allows, and by all
/// rows alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Exchanges of a session.
    pub turns: u32,
    /// Prompt tokens of the first turn, all told.
    pub first_input: u32,
    /// New input tokens of each later turn: a tool's result, or what the user says.
    pub later_input: u32,
    /// Output tokens of each turn.
    pub output: u32,
}

/// A workload by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Targeted edits seen in real time: a long context, short answers.
    Edit,
    /// A tool loop: many turns on a growing history.
    Agent,
    /// Independent prompts.
    Chat,
}

impl Preset {
    /// The preset's shape, small enough for a model that runs on a laptop's core.
    pub const fn workload(self) -> Workload {
        match self {
            Self::Edit => Workload {
                turns: 3,
                first_input: 768,
                later_input: 32,
                output: 24,
            },
            Self::Agent => Workload {
                turns: 20,
                first_input: 384,
                later_input: 48,
                output: 32,
            },
            Self::Chat => Workload {
                turns: 1,
                first_input: 128,
                later_input: 0,
                output: 64,
            },
        }
    }
}

/// A name that no preset has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown workload '{0}'; known: edit, agent, chat")]
pub struct UnknownPreset(String);

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        match name {
            "edit" => Ok(Self::Edit),
            "agent" => Ok(Self::Agent),
            "chat" => Ok(Self::Chat),
            _ => Err(UnknownPreset(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_workload_names_the_known_ones() {
        assert_eq!("edit".parse(), Ok(Preset::Edit));
        let error = "agents".parse::<Preset>().unwrap_err().to_string();
        assert_eq!(error, "unknown workload 'agents'; known: edit, agent, chat");
    }
}
