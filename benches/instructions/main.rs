//! How many instructions each piece of a token's path takes, beside the baseline in the repository:
//! `cargo bench -p tokenlag-instructions [-- accept]`.
//!
//! Instructions are no time, but they are the same on a busy machine and on a quiet one: what makes a piece dearer is found
//! without measuring for long. Each piece runs under valgrind, twice in all, which takes about a minute for all of them.
//!
//! A count beyond 3 % of the baseline's fails the run, dearer or cheaper: a gain that is not taken into the baseline can be
//! lost again unnoticed. `accept` writes what was counted into the baseline; the difference is committed with the change that
//! made it. Where the compiler, the C library, valgrind or the processor's own choices are others than those of the baseline, the
//! counts are no fault and no proof: nothing fails, and the last line, `NOT COMPARED: ...`, says so and why. There the pieces
//! can still be compared with themselves: `accept` before a change, count after it, and do not commit that baseline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokenlag_instructions::compare::TOLERANCE;
use tokenlag_instructions::{Baseline, Piece, Surroundings, compare, measure};

const USAGE: &str = "cargo bench -p tokenlag-instructions [-- accept]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--inner", label, rounds] => inner(label, rounds).map(|()| ExitCode::SUCCESS),
        [] => outer(false),
        ["accept"] => outer(true),
        _ => Err(format!("nothing is to be done with {words:?}: {USAGE}")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// Runs a piece, to be counted from outside.
fn inner(label: &str, rounds: &str) -> Result<(), String> {
    let piece = Piece::of_label(label).ok_or_else(|| format!("there is no piece {label}"))?;
    let rounds = rounds
        .parse()
        .map_err(|_| format!("{rounds} is no number of rounds"))?;
    (piece.prepare)()(rounds);
    Ok(())
}

/// Counts every piece, and compares or accepts.
fn outer(accept: bool) -> Result<ExitCode, String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let shown = file.display();
    let baseline = Baseline::read(&file).map_err(|error| format!("cannot use {shown}: {error}"))?;
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot tell where this program lies: {error}"))?;
    let here = Surroundings::here();
    println!("instructions of one round, counted by {}", here.valgrind);
    let known = |label: &str| baseline.as_ref()?.instructions.get(label).copied();
    let measured = measure(&program, |label, now| match known(label) {
        Some(before) => {
            let change = (now / before - 1.0) * 100.0;
            println!("{label:<32} {now:>12.1} {before:>12.1} {change:>+7.2} %");
        }
        None => println!("{label:<32} {now:>12.1} {:>12}", "-"),
    })
    .map_err(|error| error.to_string())?;
    let now = Baseline {
        counted_with: here,
        instructions: measured,
    };
    if accept {
        return write(&now, &file);
    }
    let Some(before) = baseline else {
        return Err(format!("there is no baseline {shown}: {USAGE}"));
    };
    Ok(judge(&before, &now))
}

fn write(now: &Baseline, file: &Path) -> Result<ExitCode, String> {
    let shown = file.display();
    now.write(file)
        .map_err(|error| format!("cannot write {shown}: {error}"))?;
    println!("accepted: {shown}");
    Ok(ExitCode::SUCCESS)
}

/// Whether all is as the baseline has it.
fn judge(before: &Baseline, now: &Baseline) -> ExitCode {
    let changed: Vec<_> = compare(&before.instructions, &now.instructions)
        .into_iter()
        .filter(|(_, change)| !change.is_same())
        .collect();
    for (label, change) in &changed {
        println!("{label}: {change}");
    }
    if let Some(line) = now.counted_with.not_compared(&before.counted_with) {
        println!("{line}");
        return ExitCode::SUCCESS;
    }
    let percent = TOLERANCE * 100.0;
    if changed.is_empty() {
        println!("all within {percent} % of the baseline");
        return ExitCode::SUCCESS;
    }
    println!(
        "{} beyond {percent} % of the baseline. If that is meant: cargo bench -p tokenlag-instructions -- accept, and commit the \
         baseline with the change",
        changed.len()
    );
    ExitCode::FAILURE
}
