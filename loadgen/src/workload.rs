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
    /// Output tokens of each turn; where turns differ, the most.
    pub output: u32,
    /// The fewest output tokens, where turns differ: each turn's number is drawn evenly, and is the same on all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_output: Option<u32>,
    /// Later turns bring what a tool returned, after the call that asked for it; else what a user says.
    #[serde(default)]
    pub tool_calls: bool,
}

/// Output of a turn of `edit` and `agent`.
const LEAST_OUTPUT: u32 = 50;
const MOST_OUTPUT: u32 = 200;
/// What brings the history from 2,048 tokens to 131,072 within the 23 later turns, their answers of 125 tokens on average,
/// their calls and what the embedded model's template puts around each of them (42 in all) included.
const AGENT_LATER_INPUT: u32 = 5_440;

/// A workload by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Targeted edits seen in real time: a long context, 50 to 200 tokens out.
    Edit,
    /// A tool loop: 24 turns on a history that grows from 2k tokens to 128k.
    Agent,
    /// Independent prompts.
    Chat,
}

impl Workload {
    /// Input tokens that a session sends in all, each once: what its last turn's history has, but for the answers.
    pub fn input(&self) -> u64 {
        let later = u64::from(self.turns.saturating_sub(1));
        u64::from(self.first_input) + later * u64::from(self.later_input)
    }
}

impl Preset {
    /// The preset's shape, at the size of the real thing.
    pub const fn workload(self) -> Workload {
        match self {
            Self::Edit => Workload {
                turns: 6,
                first_input: 32_768,
                later_input: 256,
                output: MOST_OUTPUT,
                least_output: Some(LEAST_OUTPUT),
                tool_calls: false,
            },
            Self::Agent => Workload {
                turns: 24,
                first_input: 2_048,
                later_input: AGENT_LATER_INPUT,
                output: MOST_OUTPUT,
                least_output: Some(LEAST_OUTPUT),
                tool_calls: true,
            },
            Self::Chat => Workload {
                turns: 1,
                first_input: 128,
                later_input: 0,
                output: 64,
                least_output: None,
                tool_calls: false,
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
    fn an_agents_history_ends_near_128k_tokens() {
        let agent = Preset::Agent.workload();
        let answer = (LEAST_OUTPUT + MOST_OUTPUT) / 2;
        let last = agent.first_input + (agent.turns - 1) * (answer + 42 + agent.later_input);
        assert!(last.abs_diff(128 * 1_024) < 1_024, "{last}");
    }

    #[test]
    fn a_shape_of_an_earlier_version_reads_back() {
        let earlier = r#"{"turns":4,"first_input":256,"later_input":24,"output":48}"#;
        let read: Workload = serde_json::from_str(earlier).unwrap();
        assert_eq!((read.least_output, read.tool_calls), (None, false));
    }

    #[test]
    fn an_unknown_workload_names_the_known_ones() {
        assert_eq!("edit".parse(), Ok(Preset::Edit));
        let error = "agents".parse::<Preset>().unwrap_err().to_string();
        assert_eq!(error, "unknown workload 'agents'; known: edit, agent, chat");
    }
}
