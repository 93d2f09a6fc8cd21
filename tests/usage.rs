//! Wrong usage is one clear error that names what is known, and exit code 2.

mod support;

use std::fs;

use support::{assert_code, run, stderr, stdout, tokenlag};

#[track_caller]
fn check_usage(args: &[&str], says: &[&str]) {
    let output = run(args);
    assert_code(&output, 2);
    assert_eq!(stdout(&output), "", "standard output carries results alone");
    for part in says {
        assert!(
            stderr(&output).contains(part),
            "'{part}' is not in: {}",
            stderr(&output)
        );
    }
}

#[test]
fn help_and_version_are_there() {
    for args in [&["--help"][..], &["compare", "--help"], &["--version"]] {
        let output = run(args);
        assert_code(&output, 0);
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn an_unknown_value_names_the_known_ones() {
    let channels = "known: direct, http-cold, http, http2, http3, ws, quic, pair-http";
    check_usage(
        &["compare", "--channels", "htttp"],
        &["unknown channel 'htttp'", channels],
    );
    check_usage(
        &["compare", "--state", "none"],
        &["known: full, incremental"],
    );
    check_usage(
        &["compare", "--workload", "agents"],
        &["known: edit, agent, chat"],
    );
    check_usage(
        &["compare", "--baseline", "http/ful"],
        &["unknown state 'ful'"],
    );
    check_usage(
        &["load", "--url", "http://127.0.0.1:1", "--api", "soap"],
        &["responses, chat or completions"],
    );
    check_usage(
        &["compare", "--url", "ftp://127.0.0.1:1"],
        &["its scheme is neither http nor https"],
    );
    for no_way in ["pair-ws", "direct", "h2"] {
        let output = run(&["proxy", "--upstream-channel", no_way]);
        assert_code(&output, 2);
        let told = stderr(&output);
        let known = "an upstream is reached over http, http-cold, http2, http3, ws or quic";
        assert!(told.contains(known), "{told}");
        assert!(!told.contains("known:"), "{told}");
    }
    check_usage(
        &["compare", "--state-at", "backend"],
        &["known: proxy, upstream"],
    );
    check_usage(
        &["compare", "--fail-if", "ttfb.p99 > 1s"],
        &["unknown metric 'ttfb'"],
    );
}

#[test]
fn flags_that_make_no_sense_together_say_so() {
    check_usage(&["load"], &["--url"]);
    check_usage(
        &["load", "--url", "http://127.0.0.1:1", "--channel", "ws"],
        &["--api responses"],
    );
    check_usage(&["compare", "--proxy", "127.0.0.1:1"], &["--proxy-admin"]);
    check_usage(
        &["compare", "--channels", "direct", "--state", "incremental"],
        &[
            "direct/incremental: there is no proxy",
            "--state-at upstream",
        ],
    );
    check_usage(
        &["compare", "--channels", "http,ws", "--encoding", "compact"],
        &["only quic and pair-quic have the compact encoding"],
    );
    check_usage(
        &["compare", "--zero-rtt"],
        &["--zero-rtt needs --resumption on"],
    );
    check_usage(
        &[
            "compare",
            "--channels",
            "http,ws",
            "--tls",
            "--resumption",
            "on",
            "--zero-rtt",
        ],
        &["no row can send before its handshake is over; http3 and quic can"],
    );
    check_usage(
        &["compare", "--channels", "http", "--resumption", "on"],
        &["every row is in clear", "--tls"],
    );
    check_usage(&["compare", "--cert", "cert.pem"], &["--key"]);
    check_usage(
        &["compare", "--trust", "cert.pem"],
        &["--trust is for a proxy that is already running"],
    );
    check_usage(
        &["compare", "--upstream-trust", "cert.pem"],
        &["--upstream-trust is for a backend with an https address"],
    );
    let load = ["load", "--url", "http://127.0.0.1:1", "--api", "responses"];
    check_usage(
        &[&load[..], &["--channel", "pair-ws"]].concat(),
        &[
            "tokenlag proxy --upstream-channel ws",
            "--channel http-cold",
        ],
    );
    check_usage(
        &[&load[..], &["--channel", "http2", "--encoding", "compact"]].concat(),
        &["only quic has --encoding compact"],
    );
    check_usage(
        &[&load[..], &["--trust", "cert.pem"]].concat(),
        &["--trust: every row is in clear", "an https address"],
    );
    check_usage(
        &["proxy", "--zero-rtt", "--no-resumption"],
        &["cannot be used with"],
    );
}

#[test]
fn a_server_with_room_for_nothing_is_refused() {
    for args in [
        ["backend", "--context", "0"],
        ["backend", "--slots", "0"],
        ["proxy", "--exchanges", "0"],
        ["proxy", "--threads", "0"],
    ] {
        check_usage(&args, &[args[1], "0 is not in 1.."]);
    }
}

#[test]
fn headers_that_would_break_a_request_are_refused_and_not_shown() {
    for (flag, value) in [
        ("--api-key", "sk-secret\n"),
        ("--header", "X-Team: sk-secret\r\nY: b"),
        ("--header", "X-Team: sk-secret\u{1}"),
    ] {
        let args = ["load", "--url", "http://127.0.0.1:1", flag, value];
        check_usage(&args, &[flag, "control characters"]);
        assert!(!stderr(&run(&args)).contains("sk-secret"), "{value:?}");
    }
}

#[test]
fn a_plan_with_unknown_keys_names_them_and_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    fs::write(&plan, "turns = 2\nturn = 3\nosls = 4\n").unwrap();
    let plan = plan.to_str().unwrap();
    check_usage(
        &["compare", "--plan", plan],
        &["osls, turn; known: allow-untrusted, api-key"],
    );
    fs::write(plan, "turns = [").unwrap();
    check_usage(&["compare", "--plan", plan], &["is no TOML"]);
    check_usage(
        &["compare", "--plan", "/nowhere/plan.toml"],
        &["cannot read the plan /nowhere/plan.toml"],
    );
    fs::write(plan, "turns = \"many\"\n").unwrap();
    check_usage(
        &["compare", "--plan", plan],
        &["invalid value 'many' for '--turns"],
    );
}

#[test]
fn the_environment_sets_flags() {
    let output = tokenlag(&["compare"])
        .env("TOKENLAG_CHANNELS", "smtp")
        .output()
        .unwrap();
    assert_code(&output, 2);
    assert!(stderr(&output).contains("unknown channel 'smtp'"));
}
