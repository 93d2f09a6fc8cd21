//! What was on in a run, in a line or two below a table's title.

use crate::conditions::Conditions;
use crate::receipt::StampSource;
use crate::report::Report;
use crate::row::Transport;

use super::wrap::wrapped;

/// The line, wrapped; empty where nothing is known.
pub(super) fn conditions(report: &Report, width: usize) -> String {
    let known = known(report);
    match known.is_empty() {
        true => String::new(),
        false => wrapped(&format!("Conditions: {}", known.join(", ")), width, "  "),
    }
}

fn known(report: &Report) -> Vec<String> {
    let conditions = &report.conditions;
    let has_pairs = (report.channels.iter()).any(|row| row.row.transport.is_pair());
    let switch = |name: &str, on: Option<bool>| {
        Some(match on? {
            true if has_pairs => format!("{name} on (not between the sidecars of a pair)"),
            true => format!("{name} on"),
            false => format!("{name} off"),
        })
    };
    let certificate = conditions.certificate;
    let shared = conditions.multiplex.map(|shared| match shared {
        true => "sessions share a connection",
        false => "a connection per session",
    });
    let pace = conditions.tokens_per_second;
    let held = conditions.nagle.map(|on| match on {
        true => "Nagle on",
        false => "Nagle off",
    });
    let stamped = conditions.stamp.map(|source| match source {
        StampSource::Kernel => "stamped by the kernel at receipt",
        StampSource::User => "stamped as reads return",
    });
    let congestion = |name: &str, control: &Option<String>| {
        let control = control.as_ref().filter(|control| !control.is_empty())?;
        Some(format!("{name} {control}"))
    };
    [
        conditions.tls.map(|on| encryption(on, report)),
        certificate.map(|source| format!("certificate {source}")),
        switch("resumption", conditions.resumption),
        switch("0-RTT", conditions.zero_rtt),
        conditions
            .state_at
            .map(|place| format!("state at the {place}")),
        shared.map(str::to_owned),
        pace.map(|most| format!("the model held to {most} tokens/s")),
        held.map(str::to_owned),
        stamped.map(str::to_owned),
        conditions.link.as_ref().map(|link| format!("link {link}")),
        congestion("TCP", &both_sides(conditions)),
        congestion("QUIC", &conditions.quic_congestion_control),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// TCP's congestion control of both sides, where an emulated link has two.
fn both_sides(conditions: &Conditions) -> Option<String> {
    let server = conditions.tcp_congestion_control.as_ref()?;
    Some(match &conditions.client_tcp_congestion_control {
        None => server.clone(),
        Some(client) if client == server => format!("{server} on both sides"),
        Some(client) => format!("{client} at the client, {server} at the server"),
    })
}

/// TLS off does not mean that everything went in clear.
fn encryption(on: bool, report: &Report) -> String {
    if on {
        // The application of a pair speaks plain HTTP to the sidecar beside it.
        let pairs = (report.channels.iter()).any(|row| row.row.transport.is_pair());
        return match pairs {
            true => "TLS on (in pairs between the sidecars alone)".to_owned(),
            false => "TLS on".to_owned(),
        };
    }
    let is_encrypted =
        |channel: &Transport| channel.leg().unwrap_or(*channel).is_encrypted_always();
    let mut encrypted: Vec<String> = report
        .channels
        .iter()
        .map(|row| row.row.transport)
        .filter(is_encrypted)
        .map(|channel| channel.to_string())
        .collect();
    encrypted.dedup();
    match encrypted.is_empty() {
        true => "TLS off".to_owned(),
        false => format!("TLS off (always on in {})", encrypted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_link_are_told() {
        let of = |client: Option<&str>, server: &str| {
            both_sides(&Conditions {
                tcp_congestion_control: Some(server.to_owned()),
                client_tcp_congestion_control: client.map(str::to_owned),
                ..Conditions::default()
            })
        };
        assert_eq!(of(None, "cubic").as_deref(), Some("cubic"));
        assert_eq!(
            of(Some("reno"), "reno").as_deref(),
            Some("reno on both sides")
        );
        assert_eq!(
            of(Some("bbr"), "reno").as_deref(),
            Some("bbr at the client, reno at the server")
        );
        assert_eq!(both_sides(&Conditions::default()), None);
    }
}
