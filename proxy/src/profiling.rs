//! Profiles of this process on the admin endpoint, taken while it carries traffic: one at a time, for a bounded time, and not
//! on an address that others can reach.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokenlag_probes::clock::{Clock, MonoClock, Stamp, wall_clock};
use tokenlag_profiling::protobuf::Span;
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{
    Sampled, Sampling, SamplingError, Silence, Stacks, Title, flamegraph, protobuf, sampler,
    silence, tidy,
};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use crate::admin::Answer;
use crate::beside::{Died, Haste, beside};
use crate::usage;

/// Where they are.
pub(crate) const PATH: &str = "/debug/pprof/";

/// The longest that a profile may take, in seconds.
const LONGEST: u64 = 300;
/// How long one takes where nothing is said.
const USUAL: u64 = 30;
/// How long names are looked up only while nothing else wants the core. On one that is always busy that would take minutes.
const LEISURE: Duration = Duration::from_secs(5);

const OCTETS: &str = "application/octet-stream";
const SVG: &str = "image/svg+xml";

/// Profiles that are asked for, and the one that is being taken.
#[derive(Default)]
pub(crate) struct Profiling {
    /// Others can reach the admin endpoint.
    public: bool,
    /// What was started, and waits to be stopped.
    started: RefCell<Option<Started>>,
    /// CPU time since the last sample came, in nanoseconds at the usual rate: that of several short profiles may have been due one.
    unseen_ns: Cell<u64>,
}

struct Started {
    begun: Begun,
    wanted: Wanted,
    /// Waits for its seconds to be over.
    waiting: Waiting,
}

/// A task that is ended with what it waits for.
struct Waiting(AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A sampling that is under way.
struct Begun {
    sampling: Sampling,
    /// When it began, by either clock.
    at: (SystemTime, Stamp),
    /// CPU time of the process until then, in nanoseconds; `None` where the system does not tell.
    cpu_ns: Option<u64>,
}

/// What was sampled.
struct Taken {
    stacks: Stacks,
    /// Samples in a second of CPU time, as they came.
    hertz: f64,
    span: Span,
    /// CPU time that the process used meanwhile, in nanoseconds; `None` where the system does not tell.
    used_ns: Option<u64>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    seconds: u64,
    /// Samples in a second of CPU time.
    hertz: u64,
    /// With all frames, those too that only pass calls on.
    raw: bool,
}

impl std::fmt::Debug for Profiling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiling").finish_non_exhaustive()
    }
}

impl Profiling {
    /// Profiles of an endpoint that is `public`, or is not.
    pub(crate) fn new(public: bool) -> Rc<Self> {
        Rc::new(Self {
            public,
            ..Self::default()
        })
    }

    /// The answer to `method` at `path` below [`PATH`]. Dropped before it is there, it ends the sampling.
    pub(crate) async fn answer(self: &Rc<Self>, method: &str, path: &str, query: &str) -> Answer {
        if self.public {
            let why = "profiles are not taken on an address that others can reach: they show what the process does, and cost \
                       it time; have --admin on 127.0.0.1 and reach it through a tunnel (ssh -L, kubectl port-forward)";
            return Answer::error(403, "Forbidden", why);
        }
        let wanted = match Wanted::read(query) {
            Ok(wanted) => wanted,
            Err(why) => return Answer::error(400, "Bad Request", &why),
        };
        let answered = match (method, path) {
            ("GET", "profile") => (self.sampled(wanted).await.and_then(some))
                .map(|taken| Answer::ok(OCTETS, taken.packed())),
            ("GET", "flamegraph") => self.sampled(wanted).await.and_then(some).and_then(drawn),
            ("POST", "start") => self.start(wanted).await,
            ("POST", "stop") => self.stop().await,
            (_, "profile" | "flamegraph") => Err(wrong_method("GET")),
            (_, "start" | "stop") => Err(wrong_method("POST")),
            _ => Err(Answer::error(
                404,
                "Not Found",
                "GET /debug/pprof/profile?seconds=N is pprof's protobuf, GET /debug/pprof/flamegraph?seconds=N an SVG",
            )),
        };
        answered.unwrap_or_else(|error| error)
    }

    /// What the process does from now on, for as long as is wanted.
    async fn sampled(&self, wanted: Wanted) -> Result<Taken, Answer> {
        if self.started.borrow().is_some() {
            return Err(refused(&SamplingError::Running));
        }
        let begun = begun(wanted.hertz).await?;
        sleep(Duration::from_secs(wanted.seconds)).await;
        let taken = resolved(begun, wanted).await?;
        self.look(&taken, wanted)?;
        Ok(taken)
    }

    /// Refuses a profile without a sample where the process used so much CPU time that there would be one. Once that is told, it
    /// takes as much again: what is idle from then on is told that it is.
    fn look(&self, taken: &Taken, wanted: Wanted) -> Result<(), Answer> {
        let usual = f64::from(HERTZ);
        // More than the usual rate is asked for at the kernel's pleasure: it gives no more than it has ticks.
        let hertz = (wanted.hertz as f64).min(usual);
        let used_ns = taken.used_ns.unwrap_or(0) as f64 * hertz / usual;
        let unseen_ns = match taken.stacks.total() {
            0 => self.unseen_ns.get().saturating_add(used_ns as u64),
            _ => 0,
        };
        let is_clear = silence::is_clear(unseen_ns, usual);
        self.unseen_ns.set(if is_clear { 0 } else { unseen_ns });
        match is_clear {
            true => Err(refused(&SamplingError::Silent(Silence::of_this_process()))),
            false => Ok(()),
        }
    }

    /// Begins a profile that [`Profiling::stop`] ends, or that is given up after its seconds.
    async fn start(self: &Rc<Self>, wanted: Wanted) -> Result<Answer, Answer> {
        if self.started.borrow().is_some() {
            return Err(refused(&SamplingError::Running));
        }
        let begun = begun(wanted.hertz).await?;
        let profiling = Rc::clone(self);
        let waiting = spawn_local(async move {
            sleep(Duration::from_secs(wanted.seconds)).await;
            let left = profiling.started.borrow_mut().take();
            if let Some(left) = left {
                // The sampler's tables are taken down, which takes tenths of a second.
                let _ = beside(Haste::Little, move || drop(left.begun)).await;
            }
        });
        self.started.replace(Some(Started {
            begun,
            wanted,
            waiting: Waiting(waiting.abort_handle()),
        }));
        Ok(Answer::ok("text/plain; charset=utf-8", "sampling\n"))
    }

    /// The profile that was started; it may have no sample.
    async fn stop(&self) -> Result<Answer, Answer> {
        let started = self.started.borrow_mut().take();
        let Some(Started {
            begun,
            wanted,
            waiting,
        }) = started
        else {
            let why = "no profile was started, or its seconds are over";
            return Err(Answer::error(409, "Conflict", why));
        };
        // Before anything is waited for: another profile may begin meanwhile, and is not to be given up with this one's seconds.
        drop(waiting);
        let taken = resolved(begun, wanted).await?;
        self.look(&taken, wanted)?;
        Ok(Answer::ok(OCTETS, taken.packed()))
    }
}

impl Wanted {
    fn read(query: &str) -> Result<Self, String> {
        let mut wanted = Self {
            seconds: USUAL,
            hertz: HERTZ.unsigned_abs().into(),
            raw: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bounded = |most: u64| {
                let number = value
                    .parse()
                    .ok()
                    .filter(|number| (1..=most).contains(number));
                number.ok_or_else(|| {
                    format!("{name}={value}: {name} is a whole number from 1 to {most}")
                })
            };
            match (name, value) {
                ("seconds", _) => wanted.seconds = bounded(LONGEST)?,
                ("hz", _) => wanted.hertz = bounded(sampler::MOST_HERTZ)?,
                ("raw", "0" | "1") => wanted.raw = value == "1",
                _ => {
                    return Err(format!(
                        "'{pair}' says nothing here: seconds=1..{LONGEST}, hz=1..{}, raw=1",
                        sampler::MOST_HERTZ
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

fn wrong_method(right: &'static str) -> Answer {
    Answer::error(405, "Method Not Allowed", right)
}

fn refused(error: &SamplingError) -> Answer {
    match error {
        SamplingError::Running => Answer::error(409, "Conflict", &error.to_string()),
        SamplingError::Silent(_) => Answer::error(503, "Service Unavailable", &error.to_string()),
        error => Answer::error(500, "Internal Server Error", &error.to_string()),
    }
}

async fn begun(hertz: u64) -> Result<Begun, Answer> {
    let hertz = i32::try_from(hertz).unwrap_or(HERTZ);
    // The first one in a process reads its debug information. At leisure, that would be minutes on a busy core.
    let started = beside(Haste::Little, move || Sampling::start(hertz)).await?;
    let sampling = started.map_err(|error| refused(&error))?;
    Ok(Begun {
        sampling,
        at: (wall_clock(), MonoClock.now()),
        cpu_ns: cpu_ns(),
    })
}

async fn resolved(begun: Begun, wanted: Wanted) -> Result<Taken, Answer> {
    let Begun {
        sampling,
        at: (began, at),
        cpu_ns,
    } = begun;
    let lasted = Duration::from_nanos(MonoClock.now().since(at).unsigned_abs());
    // What ending it and looking up the names cost is no part of the profile.
    let used = self::cpu_ns().zip(cpu_ns);
    let used = used.map(|(now, then)| now.saturating_sub(then));
    // A profile is over when its seconds are, however busy the core is.
    let stopped = beside(Haste::Usual, move || sampling.stop()).await?;
    let mut sampled = stopped.map_err(|error| refused(&error))?;
    // In one piece, and the signals go on until it is done: not at leisure, and not in the traffic's way either.
    let sampled = beside(Haste::Little, move || {
        sampled.end();
        sampled
    })
    .await?;
    let stacks = named(sampled, wanted.raw).await?;
    let hertz = rate(stacks.total(), used).unwrap_or(wanted.hertz as f64);
    Ok(Taken {
        stacks,
        hertz,
        span: Span { began, lasted },
        used_ns: used,
    })
}

/// Looks up all names: at leisure, and what is left after that in its turn. The sampler is free for another profile then.
async fn named(mut sampled: Sampled, raw: bool) -> Result<Stacks, Died> {
    let is_late = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_late);
    let mut work = std::pin::pin!(beside(Haste::None, move || {
        match sampled.resolve(|| !seen.load(Ordering::Relaxed)) {
            true => Ok(shown(sampled, raw)),
            false => Err(Box::new(sampled)),
        }
    }));
    let done = tokio::select! {
        done = &mut work => done?,
        () = sleep(LEISURE) => {
            is_late.store(true, Ordering::Relaxed);
            work.await?
        }
    };
    match done {
        Ok(stacks) => Ok(stacks),
        Err(mut left) => {
            let rest = beside(Haste::Usual, move || {
                left.resolve(|| true);
                shown(*left, raw)
            });
            rest.await
        }
    }
}

fn shown(sampled: Sampled, raw: bool) -> Stacks {
    let stacks = sampled.into_stacks();
    if raw { stacks } else { tidy(&stacks) }
}

/// CPU time of this process until now, in nanoseconds.
fn cpu_ns() -> Option<u64> {
    usage::so_far(None).map(|used| used.user_ns.saturating_add(used.system_ns))
}

/// Samples in a second of CPU time, where so many came of `used_ns`. A process that works in short bursts is interrupted less often
/// than it asked for: the kernel looks at its ticks alone. `None` where either is not known.
fn rate(samples: u64, used_ns: Option<u64>) -> Option<f64> {
    let used_ns = used_ns.filter(|used_ns| *used_ns > 0 && samples > 0)?;
    Some(samples as f64 * 1e9 / used_ns as f64)
}

impl Taken {
    /// As pprof reads it.
    fn packed(&self) -> Vec<u8> {
        protobuf::encode_within(&self.stacks, self.hertz, self.span)
    }
}

impl From<Died> for Answer {
    fn from(_: Died) -> Self {
        Self::error(500, "Internal Server Error", "the sampler failed")
    }
}

fn some(taken: Taken) -> Result<Taken, Answer> {
    match taken.stacks.total() {
        0 => Err(Answer::error(
            503,
            "Service Unavailable",
            "not one sample: the process used hardly any CPU time meanwhile; ask while it carries traffic, or for more seconds",
        )),
        _ => Ok(taken),
    }
}

fn drawn(taken: Taken) -> Result<Answer, Answer> {
    let title = Title {
        title: "tokenlag proxy".to_owned(),
        subtitle: format!("{} samples of CPU time", taken.stacks.total()),
    };
    let svg = flamegraph::svg(&taken.stacks, &title);
    let svg =
        svg.map_err(|error| Answer::error(500, "Internal Server Error", &error.to_string()))?;
    Ok(Answer::ok(SVG, svg))
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[test]
    fn a_profile_that_is_fetched_leaves_nothing_that_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let profiling = Profiling::new(false);
            for _ in 0..2 {
                let wanted = Wanted::read("seconds=300").unwrap();
                profiling.start(wanted).await.unwrap();
                assert_eq!(Rc::strong_count(&profiling), 2, "one waits");
                let stopping = Rc::clone(&profiling);
                let stopping = spawn_local(async move { stopping.stop().await });
                for _ in 0..3 {
                    yield_now().await;
                }
                // While names are looked up nothing waits either: it would give up the profile that is started then.
                assert!(Rc::strong_count(&profiling) <= 2, "who stops, at most");
                stopping.await.unwrap().unwrap();
                assert_eq!(Rc::strong_count(&profiling), 1);
            }
        });
    }

    #[test]
    fn where_none_of_many_samples_came_the_cause_is_told() {
        let profiling = Profiling::new(false);
        let wanted = Wanted::read("").unwrap();
        let taken = |samples: u64, used_ns| Taken {
            stacks: tokenlag_profiling::folded::parse(&format!("t;f {samples}\n")).unwrap(),
            hertz: 199.0,
            span: Span {
                began: wall_clock(),
                lasted: Duration::from_secs(1),
            },
            used_ns: Some(used_ns),
        };
        let none_of = |used_ns| Taken {
            stacks: Stacks::default(),
            ..taken(1, used_ns)
        };
        let none = none_of(200_000_000);
        assert!(profiling.look(&none, wanted).is_ok());
        assert!(profiling.look(&none, wanted).is_ok());
        assert!(profiling.look(&none, wanted).is_err(), "600 ms");
        // One that does nothing from then on is not told so for ever.
        assert!(profiling.look(&none_of(1_000_000), wanted).is_ok());
        assert!(profiling.look(&none_of(600_000_000), wanted).is_err());
        // More are not due where more are asked for.
        let often = Wanted {
            hertz: sampler::MOST_HERTZ,
            ..wanted
        };
        assert!(profiling.look(&none_of(480_000_000), often).is_ok());
        assert!(profiling.look(&taken(1, 0), wanted).is_ok());
        // One sample a second is not due in 200 ms.
        let seldom = Wanted { hertz: 1, ..wanted };
        for _ in 0..50 {
            assert!(profiling.look(&none, seldom).is_ok());
        }
    }

    #[test]
    fn a_sample_stands_for_what_the_process_used() {
        // Half of 200 a second came.
        assert_eq!(rate(200, Some(2_000_000_000)), Some(100.0));
        assert_eq!(rate(0, Some(2_000_000_000)), None);
        assert_eq!(rate(3, Some(0)), None);
        assert_eq!(rate(3, None), None);
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let usual = Wanted {
            seconds: 30,
            hertz: 199,
            raw: false,
        };
        assert_eq!(Wanted::read(""), Ok(usual));
        let asked = Wanted {
            seconds: 300,
            hertz: 97,
            raw: true,
        };
        assert_eq!(Wanted::read("seconds=300&hz=97&raw=1"), Ok(asked));
        for wrong in [
            "seconds=301",
            "seconds=0",
            "seconds=-1",
            "seconds=x",
            "seconds",
            "hz=251",
            "raw=2",
            "second=1",
        ] {
            assert!(Wanted::read(wrong).is_err(), "{wrong}");
        }
        assert!(
            Wanted::read("seconds=301")
                .unwrap_err()
                .contains("1 to 300")
        );
    }
}
