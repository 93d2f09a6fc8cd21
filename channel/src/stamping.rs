//! Who stamps what a dialled socket receives: the kernel, where it is asked to and does, or the read.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::socket::sockopt::Timestamping;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, TimestampingFlag, recvmsg,
    setsockopt,
};
use quinn::udp::{EcnCodepoint, RecvMeta};
use tokenlag_probes::{MonoClock, Receipts, Stamp, StampSource, TakenWakeups, Wakeups};

use crate::SocketWatch;

/// Who stamps what arrives over a dialled channel: the read when it returns, or the kernel at receipt (`SO_TIMESTAMPING`); then
/// the read, where the kernel gives no stamp that can be trusted. Clones book into one place, what their sockets did besides
/// too.
#[derive(Clone, Debug, Default)]
pub struct Stamping {
    /// Where the kernel stamps: how long what came lay there.
    kernel: Option<Arc<Wakeups>>,
    watch: SocketWatch,
}

impl Stamping {
    /// Stamps from `source`.
    pub fn new(source: StampSource) -> Self {
        let kernel = match source {
            StampSource::User => None,
            StampSource::Kernel => {
                keep_kernel_stamping();
                Some(Arc::default())
            }
        };
        Self {
            kernel,
            watch: SocketWatch::default(),
        }
    }

    /// What the sockets did below their bytes.
    pub fn watch(&self) -> &SocketWatch {
        &self.watch
    }

    /// Who is asked for stamps.
    pub fn source(&self) -> StampSource {
        match self.kernel {
            None => StampSource::User,
            Some(_) => StampSource::Kernel,
        }
    }

    /// Takes what was booked of the reads so far; nothing where the kernel is not asked.
    pub fn take(&self) -> TakenWakeups {
        let wakeups = self.kernel.as_ref();
        wakeups.map_or_else(TakenWakeups::default, |wakeups| wakeups.take())
    }

    /// When that was read which came at `at`, in the stamps that chunks have. Without it nothing lay in the kernel, as far as is
    /// known.
    pub fn read_of(&self, at: Stamp) -> Stamp {
        let wakeups = self.kernel.as_ref();
        wakeups
            .and_then(|wakeups| wakeups.read_of(at))
            .unwrap_or(at)
    }

    /// Asks the kernel to stamp what `socket` receives from now on. `None` where it is not to be asked. One that refuses is
    /// as good as one that gives no stamps: each read says so.
    pub(crate) fn begin(&self, socket: &impl AsFd, now: Stamp) -> Option<KernelStamps> {
        let wakeups = self.kernel.as_ref()?;
        let _ = ask(socket);
        Some(KernelStamps {
            wakeups: Arc::clone(wakeups),
            receipts: Receipts::since(now),
        })
    }
}

fn ask(socket: &impl AsFd) -> nix::Result<()> {
    let how = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(socket, Timestamping, &how)
}

/// So often, a millisecond apart, it is tried whether the kernel stamps.
const TRIES: u32 = 50;

/// The kernel stamps nothing until a first socket asks and from when the last one is closed, and leaves both to a worker: what
/// comes before that one ran has no stamp. So one socket asks as long as the process lives, from before the others do.
fn keep_kernel_stamping() {
    static ASKING: OnceLock<Option<UdpSocket>> = OnceLock::new();
    // Without it some first reads are their own stamps, and are counted.
    ASKING.get_or_init(|| stamped_socket().ok());
}

/// A socket that sent to itself until what came was stamped.
fn stamped_socket() -> io::Result<UdpSocket> {
    let pause = Duration::from_millis(1);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    socket.set_read_timeout(Some(pause))?;
    ask(&socket)?;
    for _ in 0..TRIES {
        socket.send(&[0])?;
        let mut room = [0; 1];
        match receive_datagrams(&socket, &mut IoSliceMut::new(&mut room)) {
            Ok((_, Some(_))) => break,
            _ => std::thread::sleep(pause),
        }
    }
    Ok(socket)
}

/// The kernel's stamps of one socket.
#[derive(Debug)]
pub(crate) struct KernelStamps {
    wakeups: Arc<Wakeups>,
    receipts: Receipts,
}

/// When something came, and when it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    pub(crate) at: Stamp,
    pub(crate) read_at: Stamp,
}

impl KernelStamps {
    /// Books a read that just returned, with the kernel's stamp of it.
    pub(crate) fn came(&self, wall: Option<i64>) -> Came {
        let clocks = MonoClock.with_wall();
        let read_at = clocks.at;
        let received = wall.and_then(|wall| self.receipts.received(wall, clocks));
        match received {
            Some(received) => self.wakeups.stamped(received, read_at),
            None => self.wakeups.unstamped(read_at),
        }
        Came {
            at: received.unwrap_or(read_at),
            read_at,
        }
    }
}

/// Room for the control messages of one receive, aligned as their headers must be.
#[repr(align(8))]
struct Control([u8; 256]);

/// Receives once from a stream: bytes, and the kernel's stamp of the last segment among them, in nanoseconds of the wall clock.
///
/// # Errors
/// The system's own.
pub(crate) fn receive(socket: &impl AsRawFd, room: &mut [u8]) -> io::Result<(usize, Option<i64>)> {
    let mut control = Control([0; 256]);
    let mut room = [IoSliceMut::new(room)];
    let flags = MsgFlags::empty();
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut room, Some(&mut control.0), flags)?;
    // Control messages that found no room leave the bytes without a stamp.
    let messages = received.cmsgs().into_iter().flatten();
    Ok((received.bytes, messages.filter_map(stamp).last()))
}

/// Receives once from a datagram socket: one datagram, or several of one length that the kernel joined.
///
/// # Errors
/// The system's own.
pub(crate) fn receive_datagrams(
    socket: &impl AsRawFd,
    room: &mut IoSliceMut<'_>,
) -> io::Result<(RecvMeta, Option<i64>)> {
    loop {
        let mut control = Control([0; 256]);
        let mut room = [IoSliceMut::new(room)];
        let flags = MsgFlags::empty();
        let received =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut room, Some(&mut control.0), flags)?;
        // One that was cut can be no whole packet.
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            continue;
        }
        let address = received.address.as_ref().and_then(address);
        let address = address.ok_or(io::ErrorKind::InvalidData)?;
        let mut meta = RecvMeta {
            addr: address,
            len: received.bytes,
            stride: received.bytes,
            ecn: None,
            dst_ip: None,
        };
        let mut wall = None;
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                ControlMessageOwned::UdpGroSegments(stride) if stride > 0 => {
                    meta.stride = stride as usize;
                }
                ControlMessageOwned::Ipv4Tos(bits) => meta.ecn = EcnCodepoint::from_bits(bits),
                ControlMessageOwned::Ipv6TClass(bits) => {
                    meta.ecn = EcnCodepoint::from_bits(bits as u8);
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let here = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                    meta.dst_ip = Some(IpAddr::V4(here));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    meta.dst_ip = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                other => wall = stamp(other).or(wall),
            }
        }
        return Ok((meta, wall));
    }
}

fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
    of.family()?;
    let v4 = of.as_sockaddr_in().map(|&of| SocketAddr::V4(of.into()));
    v4.or_else(|| of.as_sockaddr_in6().map(|&of| SocketAddr::V6(of.into())))
}

/// The kernel's own stamp (the first of three, `SCM_TIMESTAMPING`); zero says that it has none.
fn stamp(message: ControlMessageOwned) -> Option<i64> {
    let ControlMessageOwned::ScmTimestampsns(stamps) = message else {
        return None;
    };
    let seconds = stamps.system.tv_sec().checked_mul(1_000_000_000)?;
    let nanos = seconds.checked_add(stamps.system.tv_nsec())?;
    (nanos != 0).then_some(nanos)
}
