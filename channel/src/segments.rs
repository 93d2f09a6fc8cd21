//! What the kernel tells of one TCP connection (`TCP_INFO`): segments both ways, those that were sent again, and what waits to
//! be sent.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sys::socket::GetSockOpt;
// The macro below names the crate.
use nix::libc;

/// The kernel's `struct tcp_info` as far as it is used here (include/uapi/linux/tcp.h), which Linux has had since 4.6. It only
/// ever grew at its end, and whoever asks for less is given less.
const KNOWN: usize = 148;

/// Where fields lie in it, in the machine's byte order.
const SEND_MSS: usize = 16;
const SEND_WINDOW: usize = 80;
const RETRANSMITTED: usize = 100;
const ACKNOWLEDGED: usize = 120;
const SENT: usize = 136;
const RECEIVED: usize = 140;
const UNSENT: usize = 144;

/// `TCP_INFO`, as bytes: any bytes are some.
#[derive(Clone, Copy, Debug)]
struct TcpInfo;

nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u8; KNOWN],
    nix::sys::socket::sockopt::GetStruct<[u8; KNOWN]>
);

/// A connection as the kernel sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Segments sent, those that were sent again among them. The count wraps around.
    pub(crate) sent: u32,
    /// Segments received. The count wraps around.
    pub(crate) received: u32,
    /// Segments sent again. The count wraps around.
    pub(crate) retransmitted: u32,
    /// Bytes that the peer acknowledged, and its share of the handshake where it was dialled.
    pub(crate) acknowledged: u64,
    /// Bytes that were written and not sent.
    pub(crate) unsent: u32,
    /// What the congestion controller lets be under way, in bytes.
    pub(crate) window: u64,
}

impl Segments {
    /// Of a connection; `None` where the system does not tell.
    pub(crate) fn of(connection: &impl AsFd) -> Option<Self> {
        if !is_known() {
            return None;
        }
        TcpInfo.get(connection).ok().map(|info| Self::parse(&info))
    }

    fn parse(info: &[u8; KNOWN]) -> Self {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&info[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        let short = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&info[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        Self {
            sent: short(SENT),
            received: short(RECEIVED),
            retransmitted: short(RETRANSMITTED),
            acknowledged: long(ACKNOWLEDGED),
            unsent: short(UNSENT),
            window: u64::from(short(SEND_WINDOW)) * u64::from(short(SEND_MSS)),
        }
    }

    /// Bytes of `written` that lie in the send queue: not sent, or not acknowledged.
    pub(crate) fn queued(&self, written: u64) -> u64 {
        // The handshake counts as a byte that was acknowledged, so that one may be missing.
        let under_way = written.saturating_sub(self.acknowledged);
        under_way.max(self.unsent.into())
    }
}

/// Whether this kernel tells all that is [`KNOWN`]: 4.6 and later do.
fn is_known() -> bool {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    *IS_KNOWN.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        release.is_ok_and(|release| is_recent(&release))
    })
}

fn is_recent(release: &str) -> bool {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|number| number.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    matches!(version, (Some(major), Some(minor)) if (major, minor) >= (4, 6))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn segments_are_counted_at_both_ends() {
        let (mut dialled, mut accepted) = pair();
        let before = Segments::of(&accepted).unwrap();
        let mut room = [0; 5];
        for _ in 0..10 {
            dialled.write_all(b"token").unwrap();
            accepted.read_exact(&mut room).unwrap();
        }
        let after = Segments::of(&accepted).unwrap();
        assert!(
            after.received.wrapping_sub(before.received) >= 10,
            "{after:?}"
        );
        let sent = Segments::of(&dialled).unwrap();
        assert!(sent.sent >= 10 && sent.window > 0, "{sent:?}");
        assert_eq!(sent.retransmitted, 0);
        assert_eq!(sent.queued(50), 0);
    }

    #[test]
    fn what_the_peer_does_not_take_waits() {
        let (mut dialled, accepted) = pair();
        dialled.set_nonblocking(true).unwrap();
        let (bytes, mut written) = (vec![0; 1 << 16], 0);
        while let Ok(count) = dialled.write(&bytes) {
            written += count as u64;
        }
        let full = Segments::of(&dialled).unwrap();
        assert!(full.unsent > 0, "{full:?}");
        let queued = full.queued(written);
        assert!(
            queued >= full.unsent.into() && queued <= written,
            "{full:?}"
        );
        drop(accepted);
    }

    #[test]
    fn what_is_no_tcp_has_none() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Segments::of(&socket), None);
    }

    #[test]
    fn kernels_that_tell_less_are_not_asked() {
        for (release, is_known) in [
            ("6.18.44-generic\n", true),
            ("4.6.0", true),
            ("4.5.9", false),
            ("3.10.0-1160.el7", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(is_recent(release), is_known, "{release}");
        }
    }
}
