//! Sampling this process: a signal each so many microseconds of its CPU time, whichever of its threads uses it.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, io};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use pprof::{Frames, ProfilerGuard, Symbol};

use crate::silence::{self, Silence};
use crate::stacks::{Frame, Stacks};

/// The most that may be asked for: beyond it the kernel gives no more.
pub const MOST_HERTZ: u64 = 250;

/// The kernel's tick bounds how often a process can be interrupted for its CPU time, at 250 Hz on usual systems; a rate that
/// is no divisor of it does not fall into step with what the program does at regular times.
pub const HERTZ: i32 = 199;

/// Why this process cannot be sampled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// One sampling at a time.
    #[error("this process is being sampled already; try again when that is over")]
    Running,
    /// No sample comes.
    #[error("cannot sample this process: {0}")]
    Silent(Silence),
    /// There is no room for what it writes.
    #[error(
        "cannot sample this process: no temporary file can be made in {}: {error}; have room there, or set TMPDIR to where there is some",
        folder.display()
    )]
    Folder {
        /// Where it was to be.
        folder: PathBuf,
        /// Why it cannot be made.
        error: io::Error,
    },
    /// An earlier one could not be brought to its end: the library then takes it for one that goes on.
    #[error(
        "cannot sample this process any more: when an earlier profile ended no temporary file could be made in {}; have room there, and \
         restart the process",
        .0.display()
    )]
    Stuck(PathBuf),
    /// The sampler does not start.
    #[error(
        "cannot sample this process: {0}; it needs the signal SIGPROF for itself and a folder for temporary files (TMPDIR)"
    )]
    Sampler(pprof::Error),
}

impl From<pprof::Error> for SamplingError {
    fn from(error: pprof::Error) -> Self {
        match error {
            // Of those that are under way this crate knows itself.
            pprof::Error::Running | pprof::Error::CreatingError => Self::Stuck(env::temp_dir()),
            error => Self::Sampler(error),
        }
    }
}

/// Whether a sampling is under way. A process has one timer and one handler for its signal, and the library one table.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// The one that is under way; dropped, there is none.
struct Only;

impl Only {
    fn take() -> Result<Self, SamplingError> {
        match UNDER_WAY.swap(true, Ordering::AcqRel) {
            true => Err(SamplingError::Running),
            false => Ok(Self),
        }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::Release);
    }
}

/// A sampling that is under way; dropped, it ends.
pub struct Sampling {
    guard: ProfilerGuard<'static>,
    /// Given up after the guard is: fields are dropped in their order.
    _only: Only,
}

impl Sampling {
    /// Begins to sample all threads of this process, `hertz` times in each second of CPU time that they use together.
    ///
    /// The first one in a process reads its debug information, which takes a second of a large program: that is done before
    /// the first sample.
    ///
    /// # Errors
    /// It is being sampled already, or the system does not allow it. That a timer is refused shows only in that no sample comes
    /// ([`try_out`]).
    pub fn start(hertz: i32) -> Result<Self, SamplingError> {
        let only = Only::take()?;
        if silence::is_blocked() {
            return Err(SamplingError::Silent(Silence::Blocked));
        }
        // Where the library finds no room it never tries again.
        tempfile::NamedTempFile::new().map_err(|error| SamplingError::Folder {
            folder: env::temp_dir(),
            error,
        })?;
        let builder = pprof::ProfilerGuardBuilder::default();
        // Unwinding from within the unwinder is asking for trouble, and no cost of a program that runs well.
        let builder = builder
            .frequency(hertz.clamp(1, MOST_HERTZ as i32))
            .blocklist(&["libgcc"]);
        let guard = builder.build()?;
        Ok(Self { guard, _only: only })
    }

    /// Whether there is a sample yet.
    fn has_some(&self) -> Result<bool, SamplingError> {
        let report = self.guard.report().build_unresolved()?;
        Ok(!report.data.is_empty())
    }

    /// Ends it here and now: what the program does from now on is in no sample. Its signals go on until [`Sampled::end`].
    ///
    /// # Errors
    /// The samples cannot be read back.
    pub fn stop(self) -> Result<Sampled, SamplingError> {
        let report = self.guard.report().build_unresolved()?;
        let left = report.data.into_iter();
        Ok(Sampled {
            left: Box::new(left.map(|(frames, count)| (frames.into(), count))),
            names: Names::default(),
            stacks: Stacks::default(),
            sampling: Some(self),
        })
    }

    /// Ends it: what was sampled, its frames resolved.
    ///
    /// # Errors
    /// The samples cannot be read back.
    pub fn finish(self) -> Result<Stacks, SamplingError> {
        let mut sampled = self.stop()?;
        sampled.resolve(|| true);
        Ok(sampled.into_stacks())
    }
}

/// Samples this process while it uses CPU time for nothing else: the first sampling in a process takes longer than others, and this
/// shows whether it is possible at all.
///
/// # Errors
/// It is not.
pub fn try_out() -> Result<(), SamplingError> {
    let sampling = Sampling::start(HERTZ)?;
    for time in [MOMENT, MOMENTS] {
        burn(time);
        if sampling.has_some()? {
            return Ok(());
        }
    }
    Err(SamplingError::Silent(Silence::of_this_process()))
}

/// CPU time in which a sample comes nearly always.
const MOMENT: Duration = Duration::from_millis(40);
/// CPU time in which there would be a hundred.
const MOMENTS: Duration = Duration::from_millis(500);

/// Uses so much CPU time; less, where the system does not tell how much was used.
fn burn(time: Duration) {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
        let both = usage.user_time() + usage.system_time();
        u128::try_from(both.num_nanoseconds()).ok()
    };
    let Some(before) = used() else {
        return;
    };
    // A system that books nothing shall not keep it here.
    for _ in 0..time.as_millis() * 100 {
        (0..50_000u64).for_each(|i| {
            black_box(i);
        });
        if used().is_none_or(|now| now.saturating_sub(before) >= time.as_nanos()) {
            return;
        }
    }
}

/// What was sampled, with frames that have no names yet. Another sampling can begin once this one has its end ([`Sampled::end`]).
pub struct Sampled {
    /// Resolved one by one, as they are taken.
    left: Box<dyn Iterator<Item = (Frames, isize)> + Send>,
    names: Names,
    stacks: Stacks,
    /// Until its tables are taken down.
    sampling: Option<Sampling>,
}

impl std::fmt::Debug for Sampled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampled").finish_non_exhaustive()
    }
}

impl Sampled {
    /// Ends the signals, and takes the sampler's tables down, in one piece: tenths of a second of CPU time. Another sampling can
    /// begin then.
    pub fn end(&mut self) {
        // The timer is stopped before the tables go.
        drop(self.sampling.take());
    }

    /// Looks up the names of one stack after another for as long as it may `go_on`, once the sampling has its end. Whether all have
    /// theirs now.
    pub fn resolve(&mut self, mut go_on: impl FnMut() -> bool) -> bool {
        self.end();
        while go_on() {
            let Some((frames, count)) = self.left.next() else {
                return true;
            };
            let count = u64::try_from(count).unwrap_or(0);
            self.stacks.add(self.names.stack(frames), count);
        }
        false
    }

    /// The stacks that have names.
    pub fn into_stacks(self) -> Stacks {
        self.stacks
    }
}

/// Names that were demangled already.
#[derive(Default)]
struct Names(HashMap<Place, Arc<Frame>>);

/// Raw name, file and line. What was inlined has a bare name, which functions of other files have too.
type Place = (Vec<u8>, Option<PathBuf>, u32);

impl Names {
    /// A stack from its root, which is its thread.
    fn stack(&mut self, frames: Frames) -> Vec<Arc<Frame>> {
        let thread = Arc::new(Frame::named(frames.thread_name_or_id()));
        let inner_first = frames.frames.iter().flatten();
        let mut stack: Vec<_> = inner_first.map(|symbol| self.frame(symbol)).collect();
        stack.push(thread);
        stack.reverse();
        stack
    }

    fn frame(&mut self, symbol: &Symbol) -> Arc<Frame> {
        let name = symbol.raw_name().to_vec();
        let key = (name, symbol.filename.clone(), symbol.lineno());
        let frame = self.0.entry(key).or_insert_with(|| {
            let file = symbol.filename.as_ref();
            Arc::new(Frame {
                function: symbol.name(),
                file: file.map_or_else(String::new, |file| file.to_string_lossy().into_owned()),
                line: symbol.lineno(),
            })
        });
        Arc::clone(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inlined_functions_of_two_files_may_have_one_name() {
        let mut names = Names::default();
        let mut file = |file: &str| {
            let symbol = Symbol {
                name: Some(b"poll".to_vec()),
                addr: None,
                lineno: Some(7),
                filename: Some(file.into()),
            };
            names.frame(&symbol).file.clone()
        };
        let files = ["proxy/src/relay.rs", "channel/src/ws/frames.rs"];
        assert_eq!(files.map(&mut file), files);
        assert_eq!(file(files[0]), files[0]);
    }

    #[inline(never)]
    fn busy(rounds: u64) -> u64 {
        (0..rounds).fold(0u64, |sum, i| {
            black_box(sum.wrapping_mul(31).wrapping_add(i))
        })
    }

    #[test]
    fn what_the_cpu_did_is_seen_and_one_samples_at_a_time() {
        try_out().unwrap();
        let sampling = Sampling::start(HERTZ).unwrap();
        assert!(matches!(
            Sampling::start(HERTZ),
            Err(SamplingError::Running)
        ));
        // Some CPU time, counted in samples and not in seconds.
        for _ in 0..3 {
            black_box(busy(10_000_000));
        }
        let stacks = sampling.finish().unwrap();
        assert!(stacks.total() > 20, "{}", stacks.total());
        let functions = stacks.functions();
        let busy = functions.iter().find(|(name, _)| name.ends_with("::busy"));
        let (_, share) = busy.unwrap_or_else(|| panic!("{functions:?}"));
        assert!(
            share.total * 10 > stacks.total() * 8,
            "{share:?} of {}",
            stacks.total()
        );
        // Names are looked up as far as there is leave to.
        let mut sampled = Sampling::start(HERTZ).unwrap().stop().unwrap();
        assert!(matches!(
            Sampling::start(HERTZ),
            Err(SamplingError::Running)
        ));
        assert!(!sampled.resolve(|| false));
        // It can begin again while names are looked up, and begins from nothing.
        let again = Sampling::start(HERTZ).unwrap();
        assert!(sampled.resolve(|| true));
        let again = again.finish().unwrap();
        assert!(again.total() < stacks.total());
    }
}
