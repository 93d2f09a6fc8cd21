//! What may wait for a disk that takes nothing, and what is kept of what was written.

use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

use tokenlag_probes::{DeltaKind, Outcome, Place, RunFolder, RunRecord, TokenStamps, TraceId};

use super::*;

/// A writer whose rows go to `rows`, which need be no file.
fn writer(folder: &Path, rows: &Path, patience: Duration) -> Writer {
    let run = folder.join("run");
    std::fs::create_dir(&run).unwrap();
    std::os::unix::fs::symlink(rows, run.join("exchanges.jsonl")).unwrap();
    let record = RunRecord::begin("load", UNIX_EPOCH, vec![Row::HTTP_FULL]);
    let run = RunFolder::create(&run, &record, TokenStamps::Keep).unwrap();
    let at = Stamp::from_nanos(1);
    let writer = Writer::with_patience(Ledger::new(record, run, at), patience).unwrap();
    let (row, block, order) = (Row::HTTP_FULL, 0, 0);
    let starts = Entry::CellStarts {
        row,
        block,
        order,
        at,
    };
    writer.give(starts).unwrap();
    writer
}

/// An exchange of so many deltas, with `room` for more.
fn exchange(deltas: usize, room: usize) -> Exchange {
    let at = Stamp::from_nanos(1_000);
    let mut exchange = Exchange::begin(TraceId::from_bits(7), Place::default(), at, at, room);
    let mark = TokenMark {
        at,
        chunk: 0,
        kind: DeltaKind::Content,
    };
    exchange.tokens.resize(deltas, mark);
    exchange.outcome = Outcome::Complete;
    exchange
}

fn finished(deltas: usize, room: usize) -> Entry {
    Entry::Finished(vec![exchange(deltas, room)])
}

/// Gives until nothing more is taken; how many entries were.
fn fill(writer: &Writer, deltas: usize, room: usize) -> u64 {
    let taken = (0..10_000).take_while(|_| writer.give(finished(deltas, room)).is_ok());
    taken.count() as u64
}

/// Gives exchanges to a disk that takes nothing, until no more of them may wait. Gives how many wait, and what one takes.
fn those_that_wait(deltas: usize, room: usize) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Held open, and never read.
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let writer = writer(folder.path(), &pipe, Duration::from_millis(500));
    let given = fill(&writer, deltas, room);
    // One more is done than was given here: the cell's start.
    let waiting = given + 1 - writer.waiting.done.load(Ordering::Acquire);
    let error = writer.finish().map(drop).unwrap_err().to_string();
    assert!(error.contains("has taken nothing"), "{error}");
    assert!(error.contains("--out"), "{error}");
    // The thread can write now that nobody holds the pipe, and ends.
    drop(reader);
    (waiting, finished(deltas, room).bytes())
}

#[test]
fn a_disk_that_takes_nothing_ends_the_run_and_little_waits_for_it() {
    let (waiting, bytes) = those_that_wait(10_000, 10_000);
    assert!(waiting * bytes <= WAITING_BYTES, "{waiting}");
    assert!((waiting + 1) * bytes > WAITING_BYTES, "{waiting}");
}

#[test]
fn what_waits_is_counted_by_its_room_where_replies_are_short_or_failed() {
    for deltas in [0, 5] {
        let (waiting, bytes) = those_that_wait(deltas, 100_000);
        assert!(bytes >= 100_000 * 40, "{bytes}");
        assert!(waiting * bytes <= WAITING_BYTES, "{waiting}");
        assert!((waiting + 1) * bytes > WAITING_BYTES, "{waiting}");
    }
}

#[test]
fn four_thousand_sessions_may_wait_on_their_own_where_replies_have_room_for_a_thousand() {
    for room in [20, 1_000] {
        let (waiting, _) = those_that_wait(2, room);
        // One more is being written, unless it is what waited before that hangs.
        let on_their_own = 4_096..=4_097;
        assert!(on_their_own.contains(&waiting), "{waiting}");
    }
}

#[test]
fn what_is_left_to_be_used_anew_is_bounded_in_number_and_room() {
    let left = |mut exchanges: Vec<Exchange>| {
        leave_what_is_used_anew(&mut exchanges);
        assert!(exchanges.capacity() <= SPENT_EXCHANGES);
        exchanges.len()
    };
    let list = |count: usize, room| (0..count).map(|_| exchange(1, room)).collect();
    // Plain requests that came home together.
    assert_eq!(left(list(64, 80)), 64);
    // Sessions of twenty turns that asked for much and got little.
    assert_eq!(left(list(64 * 20, 900)), SPENT_MARKS / 900);
    // Failures without any room.
    assert_eq!(left(vec![exchange(0, 0); 2_000]), SPENT_EXCHANGES);
    // One that is large is passed over for smaller ones.
    let mixed = vec![exchange(1, SPENT_MARKS_OF_ONE + 1), exchange(1, 10)];
    assert_eq!(left(mixed), 1);
}

#[test]
fn a_full_disk_is_one_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let writer = writer(folder.path(), full, PATIENCE);
    fill(&writer, 1_000, 1_000);
    let (_, written) = writer.finish().unwrap();
    let error = format!("{:#}", written.unwrap_err());
    assert!(error.contains("exchanges.jsonl"), "{error}");
    assert!(error.contains("free some space"), "{error}");
}

#[test]
fn an_entry_larger_than_all_that_may_wait_is_taken_alone() {
    let folder = tempfile::tempdir().unwrap();
    let writer = writer(folder.path(), Path::new("/dev/null"), PATIENCE);
    let room = WAITING_BYTES as usize / size_of::<TokenMark>();
    for _ in 0..2 {
        writer.give(finished(1, room)).unwrap();
    }
    let (_, written) = writer.finish().unwrap();
    written.unwrap();
}
