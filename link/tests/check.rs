//! Links that measure themselves. Where the process may make none, the error that says what is missing is checked instead.

mod support;

use support::{now, up};
use tokenlag_link::check;

#[test]
fn a_link_proves_itself() {
    if let Some(link) = up("rtt=4ms,rate=20mbit,loss=1%,seed=3") {
        let mut stages = 0;
        let findings = check(&link, now, &mut |_| stages += 1);
        assert!(stages >= 5);
        let of = |what: &str| {
            let found = findings.iter().find(|it| it.what.starts_with(what));
            found.unwrap_or_else(|| panic!("{what}: {findings:#?}"))
        };
        // What a host that does much else cannot spoil.
        for what in [
            "TCP loss up",
            "TCP loss down",
            "UDP loss up",
            "UDP loss down",
            "UDP datagrams that did not come",
            "packets that the emulator dropped",
        ] {
            assert_eq!(of(what).good, Some(true), "{findings:#?}");
        }
        for what in [
            "TCP connect",
            "TCP echo",
            "UDP echo",
            "TCP throughput up",
            "UDP throughput down",
            "TCP and UDP (QUIC) alike",
            "release error",
        ] {
            assert!(!of(what).found.contains("failed"), "{findings:#?}");
        }
        assert!(
            of("release error").what.ends_with("19mbit"),
            "a little below the line's own"
        );
    }
}

#[test]
fn a_slow_link_is_given_its_time() {
    // A full packet takes 0.4 s on the line.
    if let Some(link) = up("rtt=10ms,rate=30kbit") {
        let findings = check(&link, now, &mut |_| {});
        for what in ["TCP connect", "TCP echo", "UDP echo"] {
            let found = findings.iter().find(|it| it.what.starts_with(what));
            let found = found.unwrap_or_else(|| panic!("{what}: {findings:#?}"));
            assert!(found.found.contains("p50"), "{findings:#?}");
        }
        for what in ["UDP throughput up", "UDP throughput down"] {
            let found = findings.iter().find(|it| it.what == what).unwrap();
            assert_eq!(found.good, Some(true), "{findings:#?}");
        }
        let told = |what: &str| findings.iter().filter(|it| it.what == what).count();
        assert_eq!(told("what is left on the link"), 0, "{findings:#?}");
        assert_eq!(told("TCP throughput up"), 1);
        let datagrams = "UDP datagrams that did not come";
        let found = findings.iter().find(|it| it.what == datagrams).unwrap();
        assert_eq!(found.good, Some(true), "{findings:#?}");
    }
}
