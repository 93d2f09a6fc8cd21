//! One side of a link: a namespace with a TUN device in it that leads to the other side.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use tun_rs::{DeviceBuilder, Layer};

use crate::left::Owner;
use crate::namespace::{Namespace, on_a_thread};
use crate::netlink::TcpMetrics;
use crate::{LinkError, LinkSpec, netlink};

/// The device's name in either namespace.
pub(crate) const DEVICE: &str = "link";
/// Packets that may wait until the relay reads them: it reads at once, but not while the system runs something else.
const WAITING: u32 = 10_000;
/// Addresses for measuring networks (RFC 2544, appendix C.2.2), of which no host's network makes use.
const NETWORK_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 24);
/// A unique local network (RFC 4193).
const NETWORK_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd74, 0x6f6b, 0x656e, 0, 0, 0, 0, 0), 64);

/// What it says holds for the namespace of the thread that opens it.
const IDLE_RESTART: &str = "/proc/sys/net/ipv4/tcp_slow_start_after_idle";
/// Whether what a connection learns of the way is kept from the next one to the same address. In the thread's namespace too.
const NO_METRICS_SAVE: &str = "/proc/sys/net/ipv4/tcp_no_metrics_save";

/// A side's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6; there even where the kernel has none.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Those of the client.
    pub const CLIENT: Addresses = Addresses::of(1);
    /// Those of the server.
    pub const SERVER: Addresses = Addresses::of(2);

    const fn of(host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(198, 18, 0, host),
            v6: Ipv6Addr::new(0xfd74, 0x6f6b, 0x656e, 0, 0, 0, 0, host as u16),
        }
    }
}

/// One side of a link.
#[derive(Debug)]
pub struct Side {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its addresses.
    pub addresses: Addresses,
    /// TCP's congestion control, by the kernel's name.
    pub congestion_control: String,
    /// Whether there is IPv6.
    pub has_v6: bool,
    /// Each new TCP connection begins without what earlier ones learned of the way; `false` where the system keeps that.
    pub forgets: bool,
    pub(crate) device: File,
}

impl Side {
    /// Makes the namespace and what is in it.
    pub(crate) fn make(addresses: Addresses, spec: &LinkSpec) -> Result<Self, LinkError> {
        let mut made = None;
        // The thread ends in the namespace that it made; ours never leaves its own.
        on_a_thread(|| {
            made = Some(Self::make_here(addresses, spec));
            Ok(())
        })
        .map_err(LinkError::system("start a thread", "there are too many"))?;
        made.expect("the thread has ended, and left what it made")
    }

    fn make_here(addresses: Addresses, spec: &LinkSpec) -> Result<Self, LinkError> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(LinkError::system("make a network namespace", KERNEL))?;
        let namespace = Namespace::current().map_err(LinkError::system(
            "hold a network namespace",
            "is /proc mounted?",
        ))?;
        let device = DeviceBuilder::new()
            .name(DEVICE)
            .layer(Layer::L3)
            .build_sync()
            .and_then(|device| {
                device.set_nonblocking(true)?;
                device.as_fd().try_clone_to_owned()
            })
            .map_err(LinkError::system("make a TUN device", TUN))?;
        let has_v6 = configure(addresses, spec)?;
        if let Some(on) = spec.idle_restart {
            set_idle_restart(on)?;
        }
        // Whoever comes second would be faster or slower by what came first. Containers may not have /proc/sys to write.
        let forgets = fs::write(NO_METRICS_SAVE, "1").is_ok();
        let inherited = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
        Ok(Self {
            namespace,
            addresses,
            congestion_control: spec
                .cc
                .clone()
                .or_else(|| Some(inherited.ok()?.trim().to_owned()))
                .unwrap_or_default(),
            has_v6,
            forgets,
            device: device.into(),
        })
    }
}

const KERNEL: &str = "is the kernel built with CONFIG_NET_NS?";
const TUN: &str = "is /dev/net/tun there (modprobe tun), and is the kernel built with CONFIG_TUN?";

/// Sets the thread's namespace up; says whether it has IPv6.
fn configure(addresses: Addresses, spec: &LinkSpec) -> Result<bool, LinkError> {
    let loopback = if_nametoindex("lo").map_err(io::Error::from);
    let loopback = loopback
        .and_then(|index| netlink::set_up(index).map(|()| index))
        .map_err(LinkError::system("set a namespace's loopback up", KERNEL))?;
    if let Some(owner) = Owner::current() {
        // Without IPv6 nobody can tell whose the namespace was, and what is left in it is left alone.
        let _ = netlink::add_address(loopback, owner.address().into());
    }
    let index = if_nametoindex(DEVICE)
        .map_err(io::Error::from)
        .map_err(LinkError::system("find the TUN device that was made", TUN))?;
    netlink::set_up_with(index, spec.mtu, WAITING)
        .map_err(LinkError::system("set a TUN device up", TUN))?;
    reach(
        index,
        addresses.v4.into(),
        NETWORK_V4.0.into(),
        NETWORK_V4.1,
        spec,
    )?;
    let v6 = reach(
        index,
        addresses.v6.into(),
        NETWORK_V6.0.into(),
        NETWORK_V6.1,
        spec,
    );
    // Hosts without IPv6 are common; a congestion control that is not there was refused above.
    Ok(v6.is_ok())
}

/// Says whether windows of the thread's namespace shrink while a connection is idle; it is for IPv6 too.
fn set_idle_restart(on: bool) -> Result<(), LinkError> {
    fs::write(IDLE_RESTART, if on { "1" } else { "0" }).map_err(|source| LinkError::System {
        what: format!("write {IDLE_RESTART} of a link's namespace, for idle-restart"),
        source,
        remedy: "containers often have /proc/sys mounted read-only: have it writable (docker: --privileged), or leave idle-restart out",
    })
}

/// Gives the device its address, and the network behind it its route.
fn reach(
    index: u32,
    address: IpAddr,
    network: IpAddr,
    prefix: u8,
    spec: &LinkSpec,
) -> Result<(), LinkError> {
    netlink::add_address(index, address).map_err(LinkError::system(
        format!("add the address {address}"),
        KERNEL,
    ))?;
    let tcp = TcpMetrics {
        congestion_control: spec.cc.as_deref(),
        initial_window: spec.initcwnd,
    };
    let added = netlink::add_route(index, network, prefix, tcp);
    added.map_err(|source| match tcp.congestion_control {
        None => LinkError::system(format!("add a route to {network}"), KERNEL)(source),
        Some(name) => LinkError::System {
            what: format!("have TCP's congestion control '{name}' on the link"),
            source,
            remedy: "net.ipv4.tcp_available_congestion_control lists what the kernel has",
        },
    })
}
