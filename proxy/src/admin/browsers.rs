//! What pages of a browser may not ask of the admin endpoint: any page can have its visitor's browser ask 127.0.0.1, and where it
//! cannot read the answer it has had its effect all the same.
//!
//! Browsers say where a request comes from: `Sec-Fetch-Site` (W3C Fetch Metadata Request Headers), and `Origin` on every POST
//! (Fetch Standard, section 3.2). A name that was bound to a loopback address to get around both stands in `Host`. Programs send
//! none of the first two, and reach a loopback endpoint by its address or as localhost.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokenlag_channel::http::Headers;

/// Why this request is refused, if a page of some other place may have sent it. `local`: the endpoint is on a loopback address.
pub(super) fn refusal(headers: &Headers, local: bool) -> Option<&'static str> {
    let from = headers.get("sec-fetch-site").unwrap_or("none");
    if !matches!(from, "none" | "same-origin") {
        return Some(CROSS_SITE);
    }
    let host = headers.get("host").unwrap_or_default();
    let origin = headers.get("origin");
    let other = |origin: &str| {
        let authority = origin.split_once("://").map_or("", |(_, it)| it);
        !authority.eq_ignore_ascii_case(host)
    };
    if origin.is_some_and(other) {
        return Some(CROSS_SITE);
    }
    // A page under a name of its own is of the same origin there, wherever the name leads.
    if (local || origin.is_some()) && !host.is_empty() && !is_own(host) {
        return Some(FOREIGN_NAME);
    }
    None
}

const CROSS_SITE: &str = "a page of another site may not ask for this: it acts on the process or costs it time; ask from a \
                          terminal (curl), or open the address itself";
const FOREIGN_NAME: &str = "this is not asked for under that name: it acts on the process or costs it time, and any page could \
                            have the name lead here; ask by address, or as localhost";

/// The host is an address, or a name that leads to this machine alone (RFC 6761, section 6.3).
fn is_own(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map_or("", |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use tokenlag_channel::http::RequestHead;

    use super::*;

    fn head(fields: &[&str]) -> Headers {
        let text = format!("POST /shutdown HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n"));
        let head = RequestHead::take(&mut text.as_bytes().into()).unwrap();
        head.unwrap().headers
    }

    #[test]
    fn programs_and_the_endpoints_own_address_are_answered() {
        for fields in [
            &["Host: 127.0.0.1:9901"][..],
            &["Host: [::1]:9901"],
            &["Host: LOCALHOST:9901"],
            &["Host: localhost"],
            &["Host: proxy.localhost:9901"],
            &["Host: 10.0.0.7:9901", "Sec-Fetch-Site: none"],
            &[
                "Host: 127.0.0.1:9901",
                "Origin: http://127.0.0.1:9901",
                "Sec-Fetch-Site: same-origin",
            ],
        ] {
            assert_eq!(refusal(&head(fields), true), None, "{fields:?}");
            assert_eq!(refusal(&head(fields), false), None, "{fields:?}");
        }
        // Where others can reach it, it may have a name.
        let named = head(&["Host: sidecar.cluster.local:9901"]);
        assert_eq!(refusal(&named, false), None);
    }

    #[test]
    fn pages_of_other_places_are_refused() {
        for fields in [
            &["Host: 127.0.0.1:9901", "Sec-Fetch-Site: cross-site"][..],
            // A page of this machine's, from another port.
            &["Host: 127.0.0.1:9901", "Sec-Fetch-Site: same-site"],
            &["Host: 127.0.0.1:9901", "Origin: http://127.0.0.1:3000"],
            &["Host: 127.0.0.1:9901", "Origin: https://example.com"],
            &["Host: 127.0.0.1:9901", "Origin: null"],
            &["Host: example.com:9901", "Origin: http://example.com:9901"],
            &[
                "Host: 127.0.0.1.example.com:9901",
                "Origin: http://127.0.0.1.example.com:9901",
            ],
            &["Host: [::1", "Origin: http://[::1"],
        ] {
            assert!(refusal(&head(fields), true).is_some(), "{fields:?}");
            assert!(refusal(&head(fields), false).is_some(), "{fields:?}");
        }
        for name in ["example.com", "localhost.example.com:9901", "127.1.example"] {
            let host = format!("Host: {name}");
            assert!(refusal(&head(&[&host]), true).is_some(), "{name}");
        }
    }
}
