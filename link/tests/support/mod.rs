//! What tests of links share: what becomes of one that cannot be had here.

use tokenlag_link::{Link, LinkError, LinkSpec};
use tokenlag_probes::{Clock, MonoClock};

/// Where this variable is set, links can be had, and a test that cannot have one fails.
const MUST_LINK: &str = "TOKENLAG_TESTS_MUST_LINK";

/// The clock of the links.
pub fn now() -> u64 {
    MonoClock.now().as_nanos()
}

/// A link, where this process may have one; else the error says what is missing.
pub fn up(spec: &str) -> Option<Link> {
    match Link::up(LinkSpec::parse(spec).unwrap(), now) {
        Ok(link) => Some(link),
        Err(error @ LinkError::Rights { .. }) => {
            let told = error.to_string();
            assert!(
                told.contains("CAP_NET_ADMIN") && told.contains("sudo"),
                "{told}"
            );
            not_checked(&told);
            None
        }
        Err(LinkError::System { what, source, .. }) if what.contains("/proc/sys") => {
            not_checked(&format!("{what}: {source}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Nothing is checked here; a failure where that must not be.
#[track_caller]
fn not_checked(why: &str) {
    assert!(std::env::var_os(MUST_LINK).is_none(), "not checked: {why}");
    eprintln!("not checked: {why}");
}
