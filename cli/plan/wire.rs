//! How channels are encrypted and shared, checked against the rows that will run.

use serde::Serialize;
use tokenlag_channel::tls::ClientTls;
use tokenlag_probes::{Row, StampSource, Transport};

use crate::args::wire::WireArgs;
use crate::exit::Usage;

/// How channels are encrypted and shared, alike for all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// TLS on the channels that have a form in clear.
    pub tls: bool,
    /// Handshakes may resume an earlier session.
    pub resumption: bool,
    /// Requests go out with the handshake.
    pub zero_rtt: bool,
    /// Sessions share their channel.
    pub multiplex: bool,
    /// TCP holds small writes back (Nagle's algorithm).
    pub nagle: bool,
    /// Who stamps what comes.
    pub stamp: StampSource,
}

impl Wire {
    /// What the flags say.
    ///
    /// # Errors
    /// They ask for what none of `rows` can do, or for one thing without the other that it needs.
    pub fn new(args: &WireArgs, tls: bool, rows: &[Row]) -> Result<Self, Usage> {
        let wire = Self {
            tls,
            resumption: args.resumption.is_on(),
            zero_rtt: args.zero_rtt,
            multiplex: args.multiplex,
            nagle: args.nagle.is_on(),
            stamp: args.stamp,
        };
        if wire.zero_rtt && !wire.resumption {
            return usage(
                "--zero-rtt needs --resumption on: what goes out before the handshake is encrypted with what an earlier \
                 connection left",
            );
        }
        if wire.zero_rtt && !rows.iter().any(sends_early_data) {
            return usage(
                "--zero-rtt: no row can send before its handshake is over; http3 and quic can",
            );
        }
        if wire.nagle && !rows.iter().any(goes_over_tcp) {
            return usage(
                "--nagle on: every row goes over UDP, which holds nothing back; take http or ws",
            );
        }
        let encrypted = rows.iter().any(|row| wire.carries_tls(row.transport));
        if !encrypted && wire.resumption {
            return usage(&format!("--resumption on: {IN_CLEAR}"));
        }
        if !encrypted && args.trust.is_some() {
            return usage(&format!("--trust: {IN_CLEAR}"));
        }
        Ok(wire)
    }

    /// Whether some connection of such a row is encrypted: the load generator's own, or that between the proxies of a pair.
    /// What a control at an https address does is its server's affair.
    pub fn carries_tls(self, transport: Transport) -> bool {
        let leg = transport.leg().unwrap_or(transport);
        leg != Transport::Direct && (self.tls || leg.is_encrypted_always())
    }

    /// Whether the connection that the load generator opens for such a row is encrypted. To the first proxy of a pair it is
    /// not: an application beside it speaks plain HTTP.
    pub fn dials_tls(self, transport: Transport) -> bool {
        !transport.is_pair() && self.carries_tls(transport)
    }

    /// A client that trusts whom `trust` does, with the switches of this run.
    pub fn client(self, trust: ClientTls) -> ClientTls {
        let client = match self.resumption {
            true => trust.with_resumption(),
            false => trust,
        };
        match self.zero_rtt {
            true => client.with_early_data(),
            false => client,
        }
    }
}

const IN_CLEAR: &str = "every row is in clear; encrypt them (compare: --tls, load: an https address), or take http3 or quic";

fn sends_early_data(row: &Row) -> bool {
    matches!(row.transport, Transport::Http3 | Transport::Quic)
}

fn goes_over_tcp(row: &Row) -> bool {
    let leg = row.transport.leg().unwrap_or(row.transport);
    !leg.is_encrypted_always()
}

fn usage<T>(what: &str) -> Result<T, Usage> {
    Err(Usage(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::values::Switch;

    #[track_caller]
    fn check(args: &WireArgs, tls: bool, row: &str, says: Option<&str>) {
        let rows = [row.parse().unwrap()];
        match (Wire::new(args, tls, &rows), says) {
            (Ok(wire), None) => assert_eq!(wire.tls, tls),
            (Err(Usage(error)), Some(part)) => assert!(error.contains(part), "{error}"),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn what_no_row_can_do_is_refused() {
        let args = |resumption, zero_rtt| WireArgs {
            trust: None,
            resumption,
            zero_rtt,
            multiplex: false,
            nagle: Switch::Off,
            stamp: StampSource::User,
        };
        check(&args(Switch::Off, false), false, "http/full", None);
        check(&args(Switch::On, false), true, "http/full", None);
        check(&args(Switch::On, true), false, "quic/full", None);
        let clear = Some("every row is in clear");
        check(&args(Switch::On, false), false, "http/full", clear);
        check(&args(Switch::On, false), true, "direct/full", clear);
        let alone = Some("--zero-rtt needs --resumption on");
        check(&args(Switch::Off, true), false, "http3/full", alone);
        let late = Some("http3 and quic can");
        check(&args(Switch::On, true), true, "http2/full", late);
        check(&args(Switch::On, true), true, "pair-quic/full", late);
        let trusting = WireArgs {
            trust: Some("cert.pem".into()),
            ..args(Switch::Off, false)
        };
        check(&trusting, false, "ws/full", Some("--trust: every row"));
        check(&trusting, false, "pair-http3/full", None);
        let held = WireArgs {
            nagle: Switch::On,
            ..args(Switch::Off, false)
        };
        check(&held, false, "pair-ws/full", None);
        check(&held, false, "quic/full", Some("every row goes over UDP"));
    }

    #[test]
    fn a_pair_is_dialled_in_clear_and_encrypted_within() {
        let tls = Wire {
            tls: true,
            ..Wire::default()
        };
        for (wire, transport, carries, dials) in [
            (tls, Transport::Http, true, true),
            (tls, Transport::PairHttp, true, false),
            (tls, Transport::Direct, false, false),
            (Wire::default(), Transport::Http, false, false),
            (Wire::default(), Transport::Quic, true, true),
            (Wire::default(), Transport::PairQuic, true, false),
            (Wire::default(), Transport::PairWs, false, false),
        ] {
            assert_eq!(wire.carries_tls(transport), carries, "{transport}");
            assert_eq!(wire.dials_tls(transport), dials, "{transport}");
        }
    }
}
