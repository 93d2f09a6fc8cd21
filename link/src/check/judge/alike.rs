//! Whether the link treats TCP and UDP, which QUIC goes by, alike: the same delay, and the same loss.

use super::{Judge, SOCKETS, ms, quantile};

/// What was found of one protocol.
#[derive(Debug, Default)]
struct Found {
    /// The median of its echoes, in nanoseconds, and how many there were.
    echo: Option<(u64, usize)>,
    /// Packets that were lost, of those that reached the line.
    lost: u64,
    reached: u64,
    /// Whether its losses were what chance allows, in each direction.
    fits: Vec<Option<bool>>,
}

/// What was found of both.
#[derive(Debug, Default)]
pub(super) struct Alike {
    tcp: Found,
    udp: Found,
}

impl Alike {
    /// Round trips of a protocol that `what` begins with.
    pub(super) fn echoes(&mut self, what: &str, took: &[u64]) {
        let median = quantile(took, 0.5);
        self.of(what).echo = median.map(|median| (median, took.len()));
    }

    /// What one direction lost of a protocol, and whether that was within chance.
    pub(super) fn lost(&mut self, what: &str, lost: u64, reached: u64, fits: Option<bool>) {
        let found = self.of(what);
        found.lost += lost;
        found.reached += reached;
        found.fits.push(fits);
    }

    fn of(&mut self, what: &str) -> &mut Found {
        match what.starts_with("TCP") {
            true => &mut self.tcp,
            false => &mut self.udp,
        }
    }
}

impl Judge<'_> {
    /// The two beside each other; nothing where one could not be measured.
    pub(super) fn alike(&mut self) {
        let Alike { tcp, udp } = &self.alike;
        let (Some((tcp_took, tcp_count)), Some((udp_took, udp_count))) = (tcp.echo, udp.echo)
        else {
            return;
        };
        // The median of a handful strays by a part of what jitter draws: its deviation is about half of all of that, over the
        // root of the count.
        let jitter = (self.spec.up.jitter + self.spec.down.jitter).as_nanos() as f64;
        let strays = 2.0 * jitter / (tcp_count.min(udp_count) as f64).sqrt();
        let apart = tcp_took.abs_diff(udp_took);
        let is_same_delay = apart <= SOCKETS + strays as u64;
        let fits: Vec<Option<bool>> = tcp.fits.iter().chain(&udp.fits).copied().collect();
        let is_same_loss = match fits.contains(&Some(false)) {
            true => Some(false),
            false => (!fits.contains(&None)).then_some(true),
        };
        let good = match (is_same_delay, is_same_loss) {
            (false, _) | (_, Some(false)) => Some(false),
            (true, told) => told,
        };
        let found = format!(
            "echoes {} and {}; lost {} of {} and {} of {}",
            ms(tcp_took),
            ms(udp_took),
            tcp.lost,
            tcp.reached,
            udp.lost,
            udp.reached
        );
        let asked = "the same delay, and losses within the same chance".to_owned();
        self.add("TCP and UDP (QUIC) alike", asked, found, good);
    }
}
