//! How the command ends.

use std::fmt;
use std::process::ExitCode;

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Good,
    /// The run failed; why was said.
    Failed,
    /// The figures must not be trusted.
    Untrusted,
    /// A threshold was crossed.
    Crossed,
    /// A command that was run ended so.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Good => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::FAILURE,
            Exit::Untrusted => ExitCode::from(3),
            Exit::Crossed => ExitCode::from(99),
            Exit::Command(code) => ExitCode::from(code),
        }
    }
}

/// Exit code of wrong usage.
pub const USAGE: u8 = 2;

/// Flags or a plan that make no sense; what to write instead.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
