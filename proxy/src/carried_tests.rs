//! Totals that never fall, whatever comes and goes.

use super::*;

fn sent(bytes_sent: u64) -> Counters {
    Counters {
        bytes_sent,
        connections_opened: 1,
        ..Counters::default()
    }
}

#[test]
fn what_is_out_of_sight_for_a_while_is_neither_lost_nor_counted_twice() {
    let total = Total::new(false);
    let (mut one, mut other) = (Carried::default(), Carried::default());
    total.book(&mut one, sent(100));
    // Its connection has an exchange under way: the channel leaves it out.
    total.book(&mut one, Counters::default());
    total.book(&mut other, sent(7));
    assert_eq!(total.carried().0[0], 107);
    total.book(&mut one, sent(130));
    assert_eq!(total.carried().0[0], 137);
    // Two connections in clear, so no handshake.
    assert_eq!(total.carried().0[6..8], [2, 0]);
}

#[test]
fn connections_that_are_encrypted_have_had_their_handshake() {
    let total = Total::new(true);
    total.book(&mut Carried::default(), sent(1));
    assert_eq!(COUNTS[7].0, "handshakes_made");
    assert_eq!(total.carried().0[6..8], [1, 1]);
}

#[tokio::test]
async fn a_thread_that_ended_counts_as_when_it_last_answered() {
    let (thread, mut asked) = Thread::new();
    let threads = [thread];
    let mut carried = Carried::default();
    carried.0[0] = 42;
    let answering = async {
        let tell = asked.recv().await.expect("the thread is asked");
        tell.send(ByChannel::from([(Transport::Quic, carried)]))
            .expect("somebody waits for the answer");
    };
    let (sum, ()) = tokio::join!(gathered(&threads), answering);
    assert_eq!(sum[&Transport::Quic], carried);
    drop(asked);
    assert_eq!(gathered(&threads).await, sum);
}

#[tokio::test]
async fn a_thread_that_does_not_answer_takes_no_other_answer_with_it() {
    let ((slow, _not_answered), (thread, mut asked)) = (Thread::new(), Thread::new());
    let threads = [slow, thread];
    let mut carried = Carried::default();
    carried.0[0] = 42;
    let answering = async {
        let tell = asked.recv().await.expect("the thread is asked");
        tell.send(ByChannel::from([(Transport::Ws, carried)]))
            .expect("somebody waits for the answer");
    };
    let (sum, ()) = tokio::join!(gathered(&threads), answering);
    assert_eq!(sum[&Transport::Ws], carried);
}
