//! The kernel's interface for interfaces, addresses and routes: the four requests that a link needs, of RFC 3549 and
//! `linux/rtnetlink.h`. They concern the calling thread's namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

/// NLM_F_REQUEST and NLM_F_ACK: each request has an answer.
const REQUEST: u16 = 0x1 | 0x4;
/// NLM_F_CREATE.
const CREATE: u16 = 0x400;

const IFF_UP: u32 = 0x1;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// IFA_F_NODAD and IFA_F_NOPREFIXROUTE: the address is there at once, and its route is made by hand.
const PLAIN_ADDRESS: u32 = 0x2 | 0x200;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_METRICS: u16 = 8;
const RTAX_INITCWND: u16 = 11;
const RTAX_CC_ALGO: u16 = 16;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// Sets an interface up.
pub(crate) fn set_up(index: u32) -> io::Result<()> {
    ask(link(index))
}

/// Sets an interface up, with an MTU in bytes and room for so many packets that wait to be read.
pub(crate) fn set_up_with(index: u32, mtu: u16, queue: u32) -> io::Result<()> {
    let mut request = link(index);
    request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    request.attribute(IFLA_TXQLEN, &queue.to_ne_bytes());
    ask(request)
}

/// Gives an interface an address.
pub(crate) fn add_address(index: u32, address: IpAddr) -> io::Result<()> {
    let (family, bits, bytes) = parts(address);
    let mut request = Request::new(RTM_NEWADDR, CREATE);
    request.bytes.extend([family, bits, 0, RT_SCOPE_UNIVERSE]);
    request.bytes.extend(index.to_ne_bytes());
    request.attribute(IFA_LOCAL, &bytes);
    request.attribute(IFA_ADDRESS, &bytes);
    request.attribute(IFA_FLAGS, &PLAIN_ADDRESS.to_ne_bytes());
    ask(request)
}

/// What a route says of the TCP connections that go by it; `None`: what the kernel does by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpMetrics<'a> {
    /// Their congestion control.
    pub(crate) congestion_control: Option<&'a str>,
    /// Segments that a new one may send before the first acknowledgement.
    pub(crate) initial_window: Option<u16>,
}

/// Sends a network through an interface.
pub(crate) fn add_route(
    index: u32,
    network: IpAddr,
    prefix: u8,
    tcp: TcpMetrics<'_>,
) -> io::Result<()> {
    let (family, _, bytes) = parts(network);
    let mut request = Request::new(RTM_NEWROUTE, CREATE);
    let scope = if network.is_ipv4() {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    request.bytes.extend([family, prefix, 0, 0]);
    let table = [RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST];
    request.bytes.extend(table);
    request.bytes.extend(0u32.to_ne_bytes());
    request.attribute(RTA_DST, &bytes);
    request.attribute(RTA_OIF, &index.to_ne_bytes());
    let mut metrics = Request { bytes: Vec::new() };
    if let Some(segments) = tcp.initial_window {
        metrics.attribute(RTAX_INITCWND, &u32::from(segments).to_ne_bytes());
    }
    if let Some(name) = tcp.congestion_control {
        let name: Vec<u8> = name.bytes().chain([0]).collect();
        metrics.attribute(RTAX_CC_ALGO, &name);
    }
    if !metrics.bytes.is_empty() {
        request.attribute(RTA_METRICS, &metrics.bytes);
    }
    ask(request)
}

fn link(index: u32) -> Request {
    let mut request = Request::new(RTM_NEWLINK, 0);
    // struct ifinfomsg: family, padding, type, index, flags, which flags change.
    request.bytes.extend([0; 4]);
    request.bytes.extend(index.to_ne_bytes());
    request.bytes.extend(IFF_UP.to_ne_bytes());
    request.bytes.extend(IFF_UP.to_ne_bytes());
    request
}

/// Family, length of a host's prefix, bytes.
fn parts(address: IpAddr) -> (u8, u8, Vec<u8>) {
    match address {
        IpAddr::V4(it) => (AddressFamily::Inet as u8, 32, it.octets().into()),
        IpAddr::V6(it) => (AddressFamily::Inet6 as u8, 128, it.octets().into()),
    }
}

/// A message that is being written: its length is filled in at the end.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        // Sequence and port: there is one request on a socket, and it is the kernel's to answer.
        bytes.extend([0; 8]);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = 4 + value.len() as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finished(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

fn ask(request: Request) -> io::Result<()> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(kernel.as_raw_fd(), &request.finished(), MsgFlags::empty())?;
    let mut answer = [0; 1_024];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    outcome(&answer[..length])
}

/// What the kernel's answer says: an error's number, negative, or 0.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let odd = || io::Error::other("the kernel gave an answer that is none");
    let kind = answer.get(4..6).ok_or_else(odd)?;
    let code = answer.get(16..20).ok_or_else(odd)?;
    if kind != NLMSG_ERROR.to_ne_bytes() {
        return Err(odd());
    }
    let code = code.try_into().map_err(|_| odd())?;
    match i32::from_ne_bytes(code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_whole_words() {
        let mut request = Request::new(RTM_NEWROUTE, CREATE);
        request.attribute(RTAX_CC_ALGO, b"reno\0");
        let bytes = request.finished();
        assert_eq!(bytes.len(), 16 + 12);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 9u16.to_ne_bytes());
        assert_eq!(bytes[20..25], *b"reno\0");
    }

    #[test]
    fn an_answer_is_read_as_far_as_it_goes() {
        let mut answer = vec![0; 20];
        answer[4] = NLMSG_ERROR as u8;
        assert!(outcome(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        let refused = outcome(&answer).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        for length in 0..20 {
            assert!(outcome(&answer[..length]).is_err());
        }
        answer[4] = 9;
        assert!(outcome(&answer).is_err());
    }
}
