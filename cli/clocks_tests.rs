use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use tokenlag_probes::{ClockRelation, Unjoined};

use super::*;

/// A clock that went away from ours at `origin`: ahead by an offset, and faster by so many millionths.
#[derive(Clone, Copy)]
struct Planted {
    origin: Stamp,
    offset: i64,
    drift_ppm: f64,
}

impl Planted {
    fn ahead_at(&self, at: Stamp) -> i64 {
        self.offset + (at.since(self.origin) as f64 * self.drift_ppm / 1e6) as i64
    }
}

impl Clock for Planted {
    fn now(&self) -> Stamp {
        let now = MonoClock.now();
        now.moved_by(self.ahead_at(now))
    }
}

/// Numbers that look random, the same for the same seed (Steele et al., "Fast splittable pseudorandom number generators", 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A value below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Keeps the core busy for so many nanoseconds, as other load does.
fn be_busy(nanos: u64) {
    let end = MonoClock.now() + Duration::from_nanos(nanos);
    while MonoClock.now() < end {
        std::hint::spin_loop();
    }
}

/// Serves what `answer` says to each request on a real socket, one connection after the other.
fn server(mut answer: impl FnMut() -> String + Send + 'static) -> BaseUrl {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &mut answer);
        }
    });
    format!("http://{address}").parse().unwrap()
}

fn serve(mut stream: TcpStream, answer: &mut impl FnMut() -> String) {
    let _ = stream.set_nodelay(true);
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..count]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(answer().as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A server with that clock, whose ways there and back take up to half a millisecond longer at random, each for itself.
fn planted_server(clock: Planted, seed: u64) -> BaseUrl {
    let mut random = SplitMix(seed);
    let mut jitter = move || {
        // Now and then there is none: those are the round trips that are found.
        let some = random.below(500_000);
        let calm = random.below(3) == 0;
        if calm { some / 100 } else { some }
    };
    server(move || {
        be_busy(jitter());
        let received = clock.now().as_nanos();
        be_busy(jitter() / 10);
        let replied = clock.now().as_nanos();
        be_busy(jitter());
        ok(&format!(
            r#"{{"received":{received},"replied":{replied},"clock":"there"}}"#
        ))
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

#[test]
fn the_estimate_is_within_what_it_states_over_real_round_trips_with_jitter() {
    const TRIALS: u64 = 240;
    let (mut held, mut drift_held, mut widest) = (0, 0, 0);
    block_on(async {
        for seed in 0..TRIALS {
            let mut random = SplitMix(seed);
            let planted = Planted {
                origin: MonoClock.now(),
                // Up to two weeks either way, and up to 500 ppm.
                offset: random.below(2_400_000_000_000_000) as i64 - 1_200_000_000_000_000,
                drift_ppm: random.below(1_000) as f64 - 500.0,
            };
            // Our clock may have begun a moment ago: no stamp is before its origin.
            let planted = Planted {
                offset: planted.offset.max(-(planted.origin.as_nanos() as i64) / 2),
                ..planted
            };
            let base = planted_server(planted, seed);
            let mut clocks = Clocks::compare(&base, planted.origin).await.unwrap();
            assert_eq!(clocks.record().relation(), ClockRelation::Estimated);
            for _ in 0..2 {
                clocks.cell_ended().await.unwrap();
            }
            let batches = clocks.news();
            assert_eq!((batches.len(), clocks.news().len()), (2, 0));
            // In the middle of a cell, where the estimate is a line between two batches.
            let at = batches[0].moment().midpoint(batches[1].moment());
            let record = clocks.record();
            let off = record.offset_ns(at).unwrap().abs_diff(planted.ahead_at(at));
            let stated = record.uncertainty_ns(at, at).unwrap();
            // What the planted clock's own arithmetic rounds.
            held += u64::from(off <= stated + 2);
            widest = widest.max(stated);
            let estimate = record.estimate().unwrap();
            let drift = estimate.drift_ppm.unwrap() - planted.drift_ppm;
            drift_held += u64::from(drift.abs() <= estimate.drift_uncertainty_ppm.unwrap());
        }
    });
    println!("{held} of {TRIALS} offsets and {drift_held} drifts held, within {widest} ns at most");
    assert!(held * 100 >= TRIALS * 95, "{held} of {TRIALS}");
    assert!(drift_held * 100 >= TRIALS * 95, "{drift_held} of {TRIALS}");
}

#[test]
fn one_clock_is_found_to_be_one_and_nothing_is_moved() {
    let name = clock_name().unwrap();
    let base = server(move || {
        let now = MonoClock.now().as_nanos();
        ok(&format!(
            r#"{{"received":{now},"replied":{now},"clock":"{name}"}}"#
        ))
    });
    block_on(async {
        let mut clocks = Clocks::compare(&base, MonoClock.now()).await.unwrap();
        assert_eq!(clocks.record().relation(), ClockRelation::Same);
        clocks.cell_starts().await.unwrap();
        clocks.cell_ended().await.unwrap();
        assert!(clocks.news().is_empty(), "one clock is not asked again");
        let mut joined = Joined {
            exchanges: Vec::new(),
            unjoined: Unjoined::default(),
            foreign: 0,
        };
        clocks.move_onto_ours(&mut joined, Stamp::default(), MonoClock.now());
        assert_eq!(joined, Joined::default());
    });
}

#[test]
fn a_clock_that_cannot_be_read_is_one_clear_error() {
    let refused = |answer: String| {
        let base = server(move || answer.clone());
        let asked = block_on(Clocks::compare(&base, MonoClock.now()));
        let error = asked.err().expect("that is no clock");
        format!("{error:#}")
    };
    for (answer, part) in [
        (ok("{}"), "whole numbers `received` and `replied`"),
        (ok(r#"{"received":-1,"replied":2}"#), "whole numbers"),
        (ok(r#"{"received":3,"replied":2}"#), "went back by 1 ns"),
        (
            ok(r#"{"received":3,"replied":900000000000}"#),
            "had the request for longer than the answer took",
        ),
        (ok(&"x".repeat(5_000)), "longer than 4096 bytes"),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "of another version",
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 27\r\n\r\n{\"received\":1,\"replied\":2 }"
                .to_owned(),
            "closes the connection after each answer",
        ),
        ("SSH-2.0-thing\r\n\r\n".to_owned(), "cannot learn the time"),
    ] {
        let error = refused(answer);
        assert!(error.contains(part), "{part}: {error}");
        assert!(error.contains("/clock"), "{error}");
    }
    let nobody = "http://127.0.0.1:1".parse().unwrap();
    let asked = block_on(Clocks::compare(&nobody, MonoClock.now()));
    let error = format!("{:#}", asked.err().expect("nobody listens"));
    assert!(error.contains("cannot learn the time"), "{error}");
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let mut left = 20;
    let base = server(move || {
        left -= 1;
        if left % 5 == 0 {
            // No answer that can be read: the connection is given up.
            return "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n.".to_owned();
        }
        let now = MonoClock.now().as_nanos() + 5_000_000_000;
        ok(&format!(r#"{{"received":{now},"replied":{now}}}"#))
    });
    block_on(async {
        let clocks = Clocks::compare(&base, MonoClock.now()).await.unwrap();
        let estimate = clocks.record().estimate().unwrap();
        assert!(estimate.offset_ns.abs_diff(5_000_000_000) <= estimate.uncertainty_ns);
    });
}
