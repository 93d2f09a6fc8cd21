//! Counting the instructions of a program with callgrind, valgrind's tool for that.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Glibc chooses its memcpy and the like by what the processor can do; without these there is but one choice left on x86-64.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-BMI2,-SSSE3,-SSE4_2";

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// There is no valgrind, or it cannot be started.
    #[error(
        "cannot start valgrind: {0}; install it (apt-get install valgrind) so that `valgrind` is found"
    )]
    NoValgrind(std::io::Error),
    /// It did not bring the program to its end.
    #[error("valgrind ended with {status} as it ran `{program}`; it said: {said}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it ran.
        program: String,
        /// Its last words.
        said: String,
    },
    /// It said nothing that could be read for a count.
    #[error("this valgrind tells no number of instructions; it said: {0}")]
    NoCount(String),
}

/// A program that is running under callgrind.
#[derive(Debug)]
pub struct Counting {
    child: Child,
    program: String,
}

impl Counting {
    /// Starts `program` with `arguments`. Its environment is the same wherever it is started: the environment lies on the stack,
    /// and moves what comes after.
    ///
    /// # Errors
    /// There is no valgrind.
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self, CountError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("GLIBC_TUNABLES", TUNABLES)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(Self {
            child: command.spawn().map_err(CountError::NoValgrind)?,
            program: program.display().to_string(),
        })
    }

    /// Waits for its end, and gives the number of instructions that it took.
    ///
    /// # Errors
    /// It failed, or its count could not be read.
    pub fn finish(self) -> Result<u64, CountError> {
        let output = self
            .child
            .wait_with_output()
            .map_err(CountError::NoValgrind)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(CountError::Failed {
                status: output.status,
                program: self.program,
                said: last_words(&said),
            });
        }
        collected(&said).ok_or_else(|| CountError::NoCount(last_words(&said)))
    }
}

/// The count in what callgrind says at its end: the line `==123== Collected : 4567`, the first of its numbers where it counts
/// other events too.
pub fn collected(said: &str) -> Option<u64> {
    let after = said.lines().rev().find_map(|line| {
        let (tag, rest) = line.trim_start().strip_prefix("==")?.split_once("==")?;
        let is_pid = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_digit());
        let (name, numbers) = rest.split_once(':')?;
        (is_pid && name.trim() == "Collected").then_some(numbers)
    })?;
    after.split_whitespace().next()?.parse().ok()
}

/// The end of a text, as much as an error can show.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(4);
    lines[from..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
==14058== Callgrind, a call-graph generating cache profiler
==14058== Using Valgrind-3.19.0 and LibVEX; rerun with -h for copyright info
Collected : 77
==14058== 
==14058== Events    : Ir
==14058== Collected : 1894568
==14058== 
==14058== I   refs:      1,894,568
";

    #[test]
    fn the_count_is_read_of_what_valgrind_itself_says() {
        assert_eq!(collected(SAID), Some(1_894_568));
        let more = SAID.replace("1894568", "1894568 22 9");
        assert_eq!(collected(&more), Some(1_894_568));
    }

    #[test]
    fn what_is_no_count_is_none() {
        for said in [
            "",
            "==1== Collected :",
            "==1== Collected : many",
            "==x== Collected : 5",
            "Collected : 5",
            "==1== Collected : -5",
            "==1== Collected : 99999999999999999999999",
            "== Collected : 5",
        ] {
            assert_eq!(collected(said), None, "{said}");
        }
    }

    #[test]
    fn last_words_are_few() {
        let said = "a\n\nb\nc\nd\ne\n";
        assert_eq!(last_words(said), "b | c | d | e");
        assert_eq!(last_words(""), "");
    }
}
