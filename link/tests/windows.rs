//! What a link says of TCP's congestion window reaches the connections over it: how much goes out before anything came back
//! is counted at the link. Where the process may make none, nothing is checked.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::up;
use tokenlag_link::{Link, LinkStats};

/// The segments that Linux has by itself (RFC 6928).
const USUAL: u64 = 10;
/// Fits into the window that a receiver offers at first, which is below 64 KiB.
const FLIGHT: usize = 60_000;
/// Its packets.
const WHOLE: u64 = FLIGHT.div_ceil(1_448) as u64;

/// A connection from the client's side to the server's.
fn connected(link: &Link) -> (TcpStream, TcpStream) {
    let at = (link.server.addresses.v4, 0);
    let listener = link.server.namespace.within(|| TcpListener::bind(at));
    let listener = listener.unwrap().unwrap();
    let to = listener.local_addr().unwrap();
    let client = link.client.namespace.within(|| TcpStream::connect(to));
    let client = client.unwrap().unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends more than any window holds from one end, and gives the packets that one direction had taken when the first byte came
/// to the other: no acknowledgement of them can have come back by then.
fn first_flight(
    link: &Link,
    (from, to): (&TcpStream, &mut TcpStream),
    packets: fn(&LinkStats) -> u64,
) -> u64 {
    let mut copy = from.try_clone().unwrap();
    let before = packets(&link.stats());
    // It ends when nearly all of it is acknowledged: the kernel takes no more than twice the window.
    let write = thread::spawn(move || copy.write_all(&[7; FLIGHT]).unwrap());
    to.read_exact(&mut [0; 1]).unwrap();
    let sent = packets(&link.stats()) - before;
    to.read_exact(&mut [0; FLIGHT - 1]).unwrap();
    write.join().unwrap();
    sent
}

fn up_packets(stats: &LinkStats) -> u64 {
    stats.up.packets.tcp
}

fn down_packets(stats: &LinkStats) -> u64 {
    stats.down.packets.tcp
}

#[test]
fn a_new_connection_begins_with_the_window_that_was_asked_for() {
    for (asked, expected) in [("", USUAL), (",initcwnd=4", 4), (",initcwnd=30", 30)] {
        let Some(link) = up(&format!("up-delay=10ms,down-delay=400ms,cc=reno{asked}")) else {
            return;
        };
        let (client, mut server) = connected(&link);
        let sent = first_flight(&link, (&client, &mut server), up_packets);
        assert_eq!(sent, expected, "{asked}");
        // A server's answer goes by the route of its own side.
        let Some(link) = up(&format!("down-delay=10ms,up-delay=400ms,cc=reno{asked}")) else {
            return;
        };
        let (mut client, server) = connected(&link);
        let sent = first_flight(&link, (&server, &mut client), down_packets);
        assert_eq!(sent, expected, "{asked}");
    }
}

#[test]
fn a_new_connection_knows_nothing_of_earlier_ones() {
    let Some(link) = up("rtt=10ms,cc=reno") else {
        return;
    };
    for side in [&link.client, &link.server] {
        let setting = "/proc/sys/net/ipv4/tcp_no_metrics_save";
        let text = side.namespace.within(|| std::fs::read_to_string(setting));
        let is_set = text.unwrap().is_ok_and(|text| text.trim() == "1");
        // Where it cannot be written, that is told.
        assert_eq!(is_set, side.forgets);
    }
}

#[test]
fn a_window_shrinks_while_idle_unless_it_was_asked_not_to() {
    for (switch, expected) in [("on", USUAL), ("off", WHOLE)] {
        let way = "up-delay=10ms,down-delay=150ms,cc=reno";
        let Some(link) = up(&format!("{way},idle-restart={switch}")) else {
            return;
        };
        let (client, mut server) = connected(&link);
        // Each of these opens the window further, until a flight fits.
        for _ in 0..4 {
            first_flight(&link, (&client, &mut server), up_packets);
        }
        // It is halved for each retransmission timeout of silence, which is some 0.36 s here.
        thread::sleep(Duration::from_millis(2_500));
        let sent = first_flight(&link, (&client, &mut server), up_packets);
        assert_eq!(sent, expected, "{switch}");
    }
}
