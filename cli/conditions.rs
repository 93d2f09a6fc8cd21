//! What was on in a run, for its record.

use tokenlag_channel::quic::CONGESTION_CONTROL;
use tokenlag_loadgen::Connections;
use tokenlag_probes::{CertificateSource, Conditions, Floor, Host, Row, StateAt, Transport};

use crate::plan::Plan;

/// What only the command can know of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Where the certificate of the encrypted channels comes from.
    pub certificate: Option<CertificateSource>,
    /// Where the proxy keeps conversations.
    pub state_at: Option<StateAt>,
    /// What physics leaves on the way to the proxy.
    pub floor: Option<Floor>,
}

/// The conditions of the run that `plan` describes, on `host`. What concerns none of its rows is left out.
pub fn of(plan: &Plan, host: &Host, found: Found) -> Conditions {
    let rows = &plan.work.rows;
    let wire = plan.wire;
    let encrypted = any(rows, |leg| wire.carries_tls(leg));
    // The sidecars of a pair keep one warm connection, with full handshakes: the switches are the load generator's own.
    let dials_tls = (rows.iter().map(|row| row.transport))
        .any(|channel| !channel.is_pair() && wire.carries_tls(channel));
    let is_quic = |leg: Transport| leg.is_encrypted_always();
    let tcp = any(rows, |leg| !is_quic(leg)).then(|| match &plan.link {
        Some(link) => link.server_congestion_control.clone(),
        None => host.congestion_control.clone(),
    });
    Conditions {
        tls: Some(wire.tls),
        certificate: found.certificate.filter(|_| encrypted),
        resumption: dials_tls.then_some(wire.resumption),
        zero_rtt: dials_tls.then_some(wire.zero_rtt),
        state_at: found.state_at.filter(|_| plan.is_incremental()),
        multiplex: match plan.work.cell.connections {
            Connections::Shared => Some(true),
            Connections::PerSession => Some(false),
            // Sessions take turns with what others left: neither.
            Connections::Pooled => None,
        },
        tokens_per_second: plan.tokens_per_second,
        nagle: any(rows, |leg| !is_quic(leg)).then_some(wire.nagle),
        stamp: Some(wire.stamp),
        link: plan.link.as_ref().map(|link| link.parameters.clone()),
        client_tcp_congestion_control: (tcp.as_ref())
            .and(plan.link.as_ref())
            .map(|link| link.client_congestion_control.clone())
            .filter(|name| !name.is_empty()),
        tcp_congestion_control: tcp.filter(|name| !name.is_empty()),
        quic_congestion_control: any(rows, is_quic).then(|| CONGESTION_CONTROL.to_owned()),
    }
}

/// Whether `is` holds of a row's channel, or of that between the two proxies of a pair.
fn any(rows: &[Row], is: impl Fn(Transport) -> bool) -> bool {
    let leg = |row: &Row| row.transport.leg().unwrap_or(row.transport);
    rows.iter().map(leg).any(is)
}
