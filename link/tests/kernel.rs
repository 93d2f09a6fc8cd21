//! Links that are up, with the kernel's own TCP and UDP across them. Where the process may make none, each test checks that
//! the error says what is missing.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use support::now;
use tokenlag_link::{Forward, Forwarder, Link, LinkSpec, Side};

const PATIENCE: Duration = Duration::from_secs(20);

/// Does `test` on a link, where this process may have one.
fn with(spec: &str, test: impl FnOnce(Link)) {
    if let Some(link) = support::up(spec) {
        test(link);
    }
}

fn listen(side: &Side, address: IpAddr) -> TcpListener {
    let made = side.namespace.within(|| TcpListener::bind((address, 0)));
    made.unwrap().unwrap()
}

fn udp(side: &Side, address: IpAddr) -> UdpSocket {
    let made = side.namespace.within(|| UdpSocket::bind((address, 0)));
    let socket = made.unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Connects from the client's side; how long that took.
fn connect(link: &Link, to: SocketAddr) -> (TcpStream, Duration) {
    let dial = || {
        let before = now();
        let stream = TcpStream::connect_timeout(&to, PATIENCE);
        (stream, now() - before)
    };
    let (stream, took) = link.client.namespace.within(dial).unwrap();
    let stream = stream.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, Duration::from_nanos(took))
}

#[test]
fn a_handshake_and_an_echo_take_the_round_trip_each() {
    with("up-delay=20ms,down-delay=10ms", |link| {
        let addresses: [IpAddr; 2] = [
            link.server.addresses.v4.into(),
            link.server.addresses.v6.into(),
        ];
        let count = if link.server.has_v6 { 2 } else { 1 };
        for address in &addresses[..count] {
            let listener = listen(&link.server, *address);
            let to = listener.local_addr().unwrap();
            let echo = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                let mut byte = [0];
                while stream.read(&mut byte).unwrap() == 1 {
                    stream.write_all(&byte).unwrap();
                }
            });
            let (mut stream, took) = connect(&link, to);
            assert!(took >= Duration::from_millis(30), "{took:?}");
            for _ in 0..5 {
                let before = now();
                stream.write_all(&[7]).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                assert!(now() - before >= 30_000_000);
            }
            drop(stream);
            echo.join().unwrap();
        }
        let stats = link.take_stats();
        assert!(stats.up.delivered > 0 && stats.up.delivered == stats.up.packets.all());
        assert_eq!(
            stats.release_error.len(),
            stats.up.delivered + stats.down.delivered
        );
        assert_eq!((stats.overflow(), link.unread().unwrap()), (0, 0));
        assert_eq!(link.stats().up.packets.all(), 0, "they were taken");
    });
}

#[test]
fn datagrams_are_lost_dropped_and_paced_as_asked() {
    with("rate=8mbit,queue=20kb,down-loss=30%,seed=5", |link| {
        let server = udp(&link.server, link.server.addresses.v4.into());
        let client = udp(&link.client, link.client.addresses.v4.into());
        let to = server.local_addr().unwrap();
        // 100 datagrams of 1,000 bytes at once, with 28 bytes of headers each: 19 fit into the queue.
        let before = now();
        for number in 0..100u8 {
            client.send_to(&[number; 972], to).unwrap();
        }
        let mut datagram = [0; 2_000];
        for number in 0..19 {
            let (length, _) = server.recv_from(&mut datagram).unwrap();
            assert_eq!(
                (length, datagram[0]),
                (972, number),
                "the tail is dropped, not the head"
            );
        }
        let took = now() - before;
        assert!(
            took >= 19_000_000,
            "20 kB take 20 ms at 8 Mbit/s, not {took} ns"
        );
        // Downwards a third is lost. Each waits for the one before, so that the queue has no part in it.
        let back = client.local_addr().unwrap();
        let mut came = 0u64;
        client
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        for _ in 0..200 {
            server.send_to(&[1; 10], back).unwrap();
            came += u64::from(client.recv_from(&mut datagram).is_ok());
        }
        let stats = link.stats();
        assert_eq!(stats.down.lost.udp + came, 200);
        // Five standard deviations of a binomial count.
        assert!(came.abs_diff(140) <= 32, "{came}");
        assert!(
            // The queue drains meanwhile, a packet each millisecond for which sender or relay are held up.
            stats.up.queue_full >= 50 && stats.up.lost.all() == 0,
            "{stats:?}"
        );
    });
}

#[test]
fn what_overtakes_is_counted_as_the_receiver_sees_it() {
    for (spec, may) in [
        ("rtt=2ms,jitter=5ms,reorder=true", true),
        ("rtt=2ms,jitter=5ms", false),
    ] {
        with(spec, |link| {
            let server = udp(&link.server, link.server.addresses.v4.into());
            let client = udp(&link.client, link.client.addresses.v4.into());
            let to = server.local_addr().unwrap();
            for number in 0..200u8 {
                client.send_to(&[number], to).unwrap();
            }
            let (mut latest, mut overtaken) = (0, 0);
            for _ in 0..200 {
                let mut number = [0];
                server.recv_from(&mut number).unwrap();
                overtaken += u64::from(number[0] < latest);
                latest = latest.max(number[0]);
            }
            assert_eq!(link.stats().up.reordered, overtaken, "{spec}");
            assert_eq!(overtaken > 0, may, "{spec}");
        });
    }
}

#[test]
fn a_rush_is_seen_in_its_moment() {
    with("rtt=1ms", |link| {
        link.take_stats();
        let client = udp(&link.client, link.client.addresses.v4.into());
        let to: SocketAddr = (link.server.addresses.v4, 9).into();
        assert!(link.stats().busiest() < 0.2, "nothing was asked of it yet");
        let begun = now();
        // How much of it a busy host lets through in a tenth of a second is not known.
        while link.stats().busiest() < 0.3 {
            assert!(now() - begun < PATIENCE.as_nanos() as u64);
            for _ in 0..1_000 {
                let _ = client.send_to(&[0; 1_000], to);
            }
        }
        assert!(link.take_stats().busiest() <= 1.0);
        assert!(link.stats().busiest() <= 1.0, "it was taken");
    });
}

#[test]
fn tcp_comes_whole_over_a_line_that_loses() {
    with("rtt=2ms,jitter=1ms,loss=1%,rate=200mbit,cc=reno", |link| {
        let listener = listen(&link.server, link.server.addresses.v4.into());
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let control = socket2::SockRef::from(&stream).tcp_congestion().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            (all, control)
        });
        let (mut stream, _) = connect(&link, to);
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
        stream.write_all(&sent).unwrap();
        drop(stream);
        let (all, control) = server.join().unwrap();
        assert!(all == sent);
        assert!(control.starts_with(b"reno"), "{control:?}");
        assert_eq!(link.server.congestion_control, "reno");
        assert!(link.stats().up.lost.tcp > 0);
    });
}

#[test]
fn links_stand_side_by_side_and_leave_the_host_alone() {
    let devices = || std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
        text.lines().filter_map(name).collect()
    };
    let before = names(&devices());
    with("rtt=1ms", |one| {
        with("rtt=5ms", |other| {
            for (link, rtt) in [(&one, 1), (&other, 5)] {
                let listener = listen(&link.server, link.server.addresses.v4.into());
                let (_, took) = connect(link, listener.local_addr().unwrap());
                assert!(took >= Duration::from_millis(rtt));
            }
            assert_eq!(names(&devices()), before);
        });
    });
}

#[test]
fn a_congestion_control_that_is_not_there_is_refused() {
    let spec = LinkSpec::parse("rtt=1ms,cc=nonesuch").unwrap();
    let told = Link::up(spec, now).unwrap_err().to_string();
    let is_told = told.contains("nonesuch") && told.contains("tcp_available_congestion_control");
    assert!(is_told || told.contains("CAP_NET_ADMIN"), "{told}");
}

#[test]
fn a_service_of_the_host_is_reached_behind_the_link() {
    with("rtt=10ms", |link| {
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = UdpSocket::bind(service.local_addr().unwrap()).unwrap();
        let port = service.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut datagram = [0; 2_000];
            let (length, from) = echo.recv_from(&mut datagram).unwrap();
            echo.send_to(&datagram[..length], from).unwrap();
        });
        let server = thread::spawn(move || {
            let (mut stream, peer) = service.accept().unwrap();
            assert!(peer.ip().is_loopback());
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        });
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let forwards = [port.to_string(), format!("9=127.0.0.1:{closed}")];
        let forwards: Vec<Forward> = forwards.iter().map(|text| text.parse().unwrap()).collect();
        let forwarder = Forwarder::start(&link.server, &forwards).unwrap();
        assert_eq!(forwarder.ports(), [port, 9]);
        let at = IpAddr::from(link.server.addresses.v4);

        let before = now();
        let (mut stream, took) = connect(&link, (at, port).into());
        stream.write_all(b"hello").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello");
        assert!(took >= Duration::from_millis(10) && now() - before >= 20_000_000);
        server.join().unwrap();

        let client = udp(&link.client, link.client.addresses.v4.into());
        client.send_to(b"hi", (at, port)).unwrap();
        let mut datagram = [0; 10];
        let (length, from) = client.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..length], from), (&b"hi"[..], (at, port).into()));

        // Where nobody listens, the client's connection breaks; it does not end as if all had been said.
        let (mut stream, _) = connect(&link, (at, 9).into());
        let broken = stream.read(&mut [0]).unwrap_err();
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_relay_runs_where_it_is_put() {
    with("rtt=1ms", |link| {
        let all = link.cores();
        let Some(last) = all.last().copied() else {
            return;
        };
        link.run_on(&[last]).unwrap();
        assert_eq!(link.cores(), [last]);
        link.take_stats();
        let listener = listen(&link.server, link.server.addresses.v4.into());
        let before = std::thread::available_parallelism().unwrap();
        connect(&link, listener.local_addr().unwrap());
        let cores: Vec<usize> = link.stats().cores.into_iter().collect();
        assert_eq!(cores, [last]);
        // It is the relay that was put there, and nobody else.
        assert_eq!(std::thread::available_parallelism().unwrap(), before);
        assert!(link.run_on(&[]).is_err());
    });
}

#[test]
fn a_service_is_reached_at_the_address_where_it_is() {
    with("rtt=2ms", |link| {
        // Many hosts have `localhost` as ::1 first.
        let service = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let forward = format!("53=localhost:{port}").parse().unwrap();
        let _forwarder = Forwarder::start(&link.server, &[forward]).unwrap();
        let echo = thread::spawn(move || {
            let mut datagram = [0; 100];
            let (length, from) = service.recv_from(&mut datagram).unwrap();
            service.send_to(&datagram[..length], from).unwrap();
        });
        let client = udp(&link.client, link.client.addresses.v4.into());
        client
            .send_to(b"once", (link.server.addresses.v4, 53))
            .unwrap();
        let mut datagram = [0; 100];
        let (length, _) = client.recv_from(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"once");
        echo.join().unwrap();
    });
}

#[test]
fn nothing_waits_on_a_bare_link() {
    with("rtt=0", |link| {
        let listener = listen(&link.server, link.server.addresses.v4.into());
        connect(&link, listener.local_addr().unwrap());
        let stats = link.stats();
        assert!(stats.up.delivered >= 2 && stats.release_error.is_empty());
    });
}
