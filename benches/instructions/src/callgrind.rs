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
        "cannot start {valgrind}: {source}; install valgrind (apt-get install valgrind), and see to it that it is found"
    )]
    NoValgrind {
        /// What was to be started.
        valgrind: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// It did not bring the program to its end.
    #[error("valgrind ended with {status} as it ran {program}; it said: {said}")]
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
    valgrind: String,
    program: String,
}

impl Counting {
    /// Starts `program` with `arguments` under `valgrind`, a command or its path. The program's environment is the same wherever it
    /// is started: it lies on the stack, and moves what comes after.
    ///
    /// # Errors
    /// There is no valgrind.
    pub fn start<S: AsRef<OsStr>>(
        valgrind: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self, CountError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut command = Command::new(valgrind);
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
            child: command.spawn().map_err(no(valgrind))?,
            valgrind: valgrind.to_owned(),
            program: program.display().to_string(),
        })
    }

    /// Waits for its end, and gives the number of instructions that it took.
    ///
    /// # Errors
    /// It failed, or its count could not be read.
    pub fn finish(self) -> Result<u64, CountError> {
        let output = self.child.wait_with_output().map_err(no(&self.valgrind))?;
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

fn no(valgrind: &str) -> impl FnOnce(std::io::Error) -> CountError {
    |source| CountError::NoValgrind {
        valgrind: valgrind.to_owned(),
        source,
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

/// The end of what was said, as much as an error can show. The program's own words come before valgrind's.
fn last_words(said: &str) -> String {
    let lines = || said.lines().filter(|line| !line.trim().is_empty());
    let mut words: Vec<&str> = lines().filter(|line| !line.starts_with("==")).collect();
    if words.is_empty() {
        words.extend(lines());
    }
    let from = words.len().saturating_sub(4);
    words[from..].join(" | ")
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
    fn last_words_are_few_and_the_programs_own() {
        assert_eq!(last_words("a\n\nb\nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(last_words("it broke\n==1== Collected : 5\n"), "it broke");
        assert_eq!(last_words("==1== no memory\n"), "==1== no memory");
        assert_eq!(last_words(""), "");
    }

    fn counted_by(valgrind: &str) -> String {
        let counted = Counting::start(valgrind, Path::new("true"), ["--inner"]);
        let counted = counted.and_then(Counting::finish);
        counted.expect_err("it is no valgrind").to_string()
    }

    #[test]
    fn a_valgrind_that_is_missing_or_another_is_told() {
        let said = counted_by("valgrind-that-nobody-has");
        assert!(
            said.starts_with("cannot start valgrind-that-nobody-has: "),
            "{said}"
        );
        assert!(said.contains("apt-get install valgrind"), "{said}");
        let said = counted_by("false");
        assert!(
            said.starts_with("valgrind ended with exit status: 1"),
            "{said}"
        );
        let said = counted_by("true");
        assert!(said.starts_with("this valgrind tells no number"), "{said}");
    }
}
