//! What a recording may take of the disk and of the run's time, and what is said where that cut it short.

use std::time::Duration;

/// What a turn's recording may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the disk, in bytes: a sample is 17 KB, so that a second of CPU time is 70 MB.
    pub bytes: u64,
    /// To end, and to put its samples in order, each.
    pub time: Duration,
}

/// Those of a run: 15 s of CPU time.
pub const LIMITS: Limits = Limits {
    bytes: 1 << 30,
    time: Duration::from_secs(60),
};

/// Why a recording has not all of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// Its file had become as large as it may.
    Size,
    /// perf ended before the turn did, for a reason of its own.
    Ended,
    /// Its samples could not all be put in order in time.
    Time,
}

impl Cut {
    /// What is to be told of so many turns.
    pub fn told(self, turns: u32) -> String {
        let turns = match turns {
            1 => "one turn".to_owned(),
            turns => format!("{turns} turns"),
        };
        match self {
            Self::Size => format!(
                "perf's profile of {turns} has only the beginning: its file had reached {} MiB; have shorter turns (--num-prompts)",
                LIMITS.bytes >> 20
            ),
            Self::Ended => format!(
                "perf's profile of {turns} has only the beginning: it ended early, as it does where the disk is full"
            ),
            Self::Time => format!(
                "perf's profile of {turns} has a part of the samples: putting them in order took longer than {:?}; have shorter turns \
                 (--num-prompts)",
                LIMITS.time
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_said_with_what_to_do() {
        assert!(Cut::Size.told(1).contains("1024 MiB"));
        assert!(Cut::Time.told(3).contains("3 turns"));
        assert!(Cut::Ended.told(1).contains("one turn"));
    }
}
