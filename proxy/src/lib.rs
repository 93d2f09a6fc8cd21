//! The sidecar: accept on any channel, tap, bridge, relay to the upstream, admin endpoint, drain.
