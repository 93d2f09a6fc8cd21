//! How far the upstream is, as the admin endpoint tells it.

mod stack;

use serde_json::Value;
use stack::{Stack, get, run};
use tokenlag_scripted::{Script, ScriptedBackend};

#[test]
fn an_upstream_on_this_host_is_near() {
    run(async {
        let backend = ScriptedBackend::start(Script::default()).unwrap();
        let url = backend.url();
        let stack = Stack::in_front_of(backend, url.parse().unwrap(), |options| options);
        let (status, body) = get(stack.addresses.admin, "/distance").await;
        assert_eq!(status, 200, "{body}");
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told["upstream"], url);
        let nanos = told["round_trip_ns"].as_u64().unwrap();
        assert!((1..1_000_000_000).contains(&nanos), "{body}");
        assert_eq!(stack.backend.requests().len(), 0, "nothing is asked");
    });
}

#[test]
fn an_upstream_that_is_not_there_is_said_to_be() {
    run(async {
        let nobody = ScriptedBackend::start(Script::default()).unwrap();
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let upstream = format!("http://{gone}").parse().unwrap();
        let stack = Stack::in_front_of(nobody, upstream, |options| options);
        let (status, body) = get(stack.addresses.admin, "/distance").await;
        assert_eq!(status, 502, "{body}");
        assert!(body.contains(&gone.to_string()), "{body}");
    });
}
