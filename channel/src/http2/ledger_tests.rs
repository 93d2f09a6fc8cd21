//! What the ledger tells of streams as their frames pass.

use super::*;

fn at(nanos: u64) -> Stamp {
    Stamp::from_nanos(nanos)
}

fn data(ledger: &mut Ledger, stream: u32, bytes: usize, nanos: u64) {
    ledger.read(Found::Data { stream, bytes }, at(nanos), &mut Vec::new());
}

#[test]
fn bytes_keep_the_stamp_of_their_read() {
    let mut ledger = Ledger::default();
    ledger.open(1);
    data(&mut ledger, 1, 10, 5);
    data(&mut ledger, 1, 5, 5);
    data(&mut ledger, 1, 20, 6);
    data(&mut ledger, 3, 20, 6);
    let piece = |at, ordinal, bytes| Piece { at, ordinal, bytes };
    assert_eq!(ledger.take(1, 12), piece(at(5), 0, 12));
    assert_eq!(ledger.take(1, 12), piece(at(5), 0, 3));
    assert_eq!(ledger.take(1, 9), piece(at(6), 1, 9));
    assert_eq!(ledger.take(1, 100), piece(at(6), 1, 11));
    data(&mut ledger, 1, 1, 9);
    assert_eq!(ledger.take(1, 1), piece(at(9), 2, 1));
}

#[test]
fn a_reader_that_sleeps_costs_a_bounded_number_of_marks() {
    let mut ledger = Ledger::default();
    ledger.open(1);
    for nanos in 0..2 * MARKS as u64 {
        data(&mut ledger, 1, 1, nanos);
    }
    assert_eq!(ledger.streams.get(1).unwrap().marks.len(), MARKS);
    let mut taken = 0;
    let mut last = at(0);
    while taken < 2 * MARKS {
        let piece = ledger.take(1, 2 * MARKS);
        assert!(piece.bytes > 0 && piece.at >= last);
        (taken, last) = (taken + piece.bytes, piece.at);
    }
    assert_eq!(last, at(2 * MARKS as u64 - 1), "an upper bound");
}

#[test]
fn streams_that_nobody_serves_are_forgotten() {
    let mut ledger = Ledger::accepting();
    for number in 0..10 * STREAMS as u32 {
        let stream = 2 * number + 1;
        let head = Found::Headers { stream, at: at(1) };
        ledger.read(head, at(1), &mut Vec::new());
    }
    assert_eq!(ledger.streams.0.len(), STREAMS);
    let stream = ledger.newest;
    let refusal = Found::Reset {
        stream,
        code: REFUSED_STREAM,
    };
    ledger.wrote(refusal, at(2), &mut Vec::new());
    assert_eq!(ledger.refused_streams(), 1);
    assert_eq!(ledger.streams.0.len(), STREAMS - 1);
}

#[test]
fn only_the_last_stream_that_is_over_leaves_nothing_to_do() {
    let mut ledger = Ledger::default();
    let (mut read, mut sent) = (Vec::new(), Vec::new());
    let end = Found::End { stream: 1 };
    ledger.open(1);
    ledger.wrote(end, at(1), &mut sent);
    assert!(!ledger.is_last(1), "the reply is not there");
    ledger.read(end, at(2), &mut read);
    assert!(ledger.is_last(1));
    ledger.open(3);
    assert!(!ledger.is_last(1), "another goes on");
    ledger.forget(3);
    assert!(ledger.is_last(1));
    ledger.read(Found::GoAway { code: 0 }, at(3), &mut read);
    assert!(!ledger.is_last(1), "the connection is to be closed");
}

#[test]
fn a_writer_is_told_of_progress_and_of_its_end() {
    let mut ledger = Ledger::accepting();
    ledger.claim(1);
    let mut woken = Vec::new();
    let context = Context::from_waker(Waker::noop());
    let before = ledger.sent(1).unwrap();
    assert!(ledger.poll_progress(1, before, &context).is_pending());
    let found = Found::Data {
        stream: 1,
        bytes: 7,
    };
    ledger.wrote(found, at(3), &mut woken);
    assert_eq!(woken.len(), 1);
    let Poll::Ready(Ok(sent)) = ledger.poll_progress(1, before, &context) else {
        panic!("7 bytes left");
    };
    assert_eq!((sent.bytes, sent.at), (7, Some(at(3))));
    assert!(ledger.poll_progress(1, sent, &context).is_pending());
    ledger.close(&mut woken);
    assert_eq!(
        ledger.poll_progress(1, sent, &context),
        Poll::Ready(Err(()))
    );
    assert!(ledger.poll_gone(1, &context).is_ready());
}
