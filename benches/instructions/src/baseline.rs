//! The counts that are kept in the repository, and what they were counted with.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::measured::Measured;

/// What a count depends on beside the code. Counts of other surroundings are not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// As `rustc -V` has it.
    pub compiler: String,
    /// The target that is compiled for.
    pub target: String,
    /// The C library, whose allocator and memcpy are in the counts.
    pub libc: String,
    /// Valgrind's version.
    pub valgrind: String,
    /// Whether the processor has AVX2, which libraries look for as they run.
    pub avx2: bool,
}

impl Surroundings {
    /// Those of this process. What does not say its version is `unknown`.
    pub fn here() -> Self {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let compiler = said(Command::new(rustc).arg("-vV"));
        let target = compiler
            .lines()
            .find_map(|line| line.strip_prefix("host: "));
        Self {
            target: target.unwrap_or("unknown").to_owned(),
            compiler: first_line(&compiler),
            libc: first_line(&said(Command::new("getconf").arg("GNU_LIBC_VERSION"))),
            valgrind: first_line(&said(Command::new("valgrind").arg("--version"))),
            avx2: has_avx2(),
        }
    }

    /// What is another here than there, in words.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let avx2 = |has| if has { "AVX2" } else { "no AVX2" };
        [
            (self.compiler.as_str(), other.compiler.as_str()),
            (&self.target, &other.target),
            (&self.libc, &other.libc),
            (&self.valgrind, &other.valgrind),
            (avx2(self.avx2), avx2(other.avx2)),
        ]
        .into_iter()
        .filter(|(here, there)| here != there)
        .map(|(here, there)| format!("{here} instead of {there}"))
        .collect()
    }

    /// Says in one line, as [`NOT_COMPARED`] begins it, that counts of here say nothing of a baseline counted there, and why. `None`
    /// where they do.
    pub fn not_compared(&self, there: &Self) -> Option<String> {
        let differences = self.differences(there);
        (!differences.is_empty()).then(|| {
            let differences = differences.join(", ");
            format!(
                "{NOT_COMPARED}: instructions were counted and not judged, since here is another machine than the baseline's ({differences})"
            )
        })
    }
}

/// How the line begins that says that nothing was judged. `.ci/run` looks for it, and repeats the line at its end.
pub const NOT_COMPARED: &str = "NOT COMPARED";

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn said(command: &mut Command) -> String {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success());
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    said.unwrap_or_default()
}

fn first_line(said: &str) -> String {
    let line = said.lines().next().map(str::trim).unwrap_or_default();
    if line.is_empty() { "unknown" } else { line }.to_owned()
}

/// The counts in the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What they were counted with.
    pub counted_with: Surroundings,
    /// Instructions of one round of each piece.
    pub instructions: Measured,
}

impl Baseline {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no baseline.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        match fs::read(file) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(file, json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings {
            compiler: "rustc 1.95.0".to_owned(),
            target: "x86_64-unknown-linux-gnu".to_owned(),
            libc: "glibc 2.36".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            avx2: true,
        }
    }

    #[test]
    fn a_baseline_reads_back() {
        let file = std::env::temp_dir().join(format!("baseline-{}.json", std::process::id()));
        assert_eq!(Baseline::read(&file).unwrap(), None);
        let baseline = Baseline {
            counted_with: surroundings(),
            instructions: [("decode/chat".to_owned(), 1234.5)].into(),
        };
        baseline.write(&file).unwrap();
        assert_eq!(Baseline::read(&file).unwrap(), Some(baseline));
        fs::write(&file, "{").unwrap();
        assert!(Baseline::read(&file).is_err());
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn the_committed_baseline_can_be_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
        let baseline = Baseline::read(&file).unwrap().expect("it is committed");
        let labels: Vec<String> = crate::PIECES.iter().map(crate::Piece::label).collect();
        for (label, count) in &baseline.instructions {
            assert!(labels.contains(label), "{label} is no piece any more");
            assert!(*count > 0.0, "{label}");
        }
        assert_eq!(baseline.instructions.len(), labels.len());
    }

    #[test]
    fn what_is_another_is_named() {
        let other = Surroundings {
            libc: "glibc 2.41".to_owned(),
            avx2: false,
            ..surroundings()
        };
        let expected = [
            "glibc 2.36 instead of glibc 2.41",
            "AVX2 instead of no AVX2",
        ];
        assert_eq!(surroundings().differences(&other), expected);
        assert!(other.differences(&other).is_empty());
        let line = surroundings().not_compared(&other).unwrap();
        assert!(line.starts_with("NOT COMPARED: ") && !line.contains('\n'));
        assert!(line.ends_with("(glibc 2.36 instead of glibc 2.41, AVX2 instead of no AVX2)"));
        assert_eq!(other.not_compared(&other), None);
    }

    #[test]
    fn what_runs_before_a_change_lands_looks_for_the_line() {
        let run = include_str!("../../../.ci/run");
        assert!(run.contains(&format!("grep \"^{NOT_COMPARED}\"")));
    }

    #[test]
    fn what_does_not_say_its_version_is_unknown() {
        let nothing = said(&mut Command::new("a command that nobody has"));
        assert_eq!(first_line(&nothing), "unknown");
        assert!(Surroundings::here().compiler.starts_with("rustc "));
    }
}
