//! Which combinations a table makes, how their folders are named, and what makes no sense.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction};

use super::*;

fn command() -> Command {
    Command::new("compare")
        .arg(Arg::new("tls").long("tls").action(ArgAction::SetTrue))
        .arg(Arg::new("link").long("link"))
        .arg(Arg::new("out").long("out"))
        .arg(Arg::new("output").long("output"))
        .arg(Arg::new("api-key").long("api-key"))
        .arg(Arg::new("header").long("header"))
        .arg(Arg::new("channels").long("channels"))
}

fn read(text: &str, set: &[&str]) -> Result<Sweep, String> {
    let mut plan: Table = text.parse().unwrap();
    let sweep = plan.remove("sweep").unwrap();
    let set = |key: &str| set.contains(&key);
    Sweep::read(Path::new("p.toml"), &sweep, &plan, &command(), set).map_err(|error| error.0)
}

const BOTH: &str = "[sweep]\ntls = [false, true]\nlink = [\"loopback\", \"rtt=5ms,loss=1%\"]\n";

#[test]
fn every_combination_once_and_the_last_key_fastest() {
    let cases = read(BOTH, &[]).unwrap().cases();
    let words: Vec<String> = cases
        .iter()
        .map(|case| format!("{:?}", case.words))
        .collect();
    assert_eq!(
        words,
        [
            r#"["--link=loopback"]"#,
            r#"["--link=loopback", "--tls"]"#,
            r#"["--link=rtt=5ms,loss=1%"]"#,
            r#"["--link=rtt=5ms,loss=1%", "--tls"]"#,
        ]
    );
    assert_eq!(cases[3].folder(), "04-link-rtt-5ms-loss-1--tls-on");
    assert_eq!(cases[1].told(), "link loopback, tls on");
}

#[test]
fn what_the_command_line_says_is_no_part_of_it() {
    let cases = read(BOTH, &["link"]).unwrap().cases();
    assert_eq!(cases.len(), 2);
    assert!(cases.iter().all(|case| !case.values.contains_key("link")));
    assert!(read(BOTH, &["link", "tls"]).unwrap().is_empty());
}

#[test]
fn a_list_may_be_a_value() {
    let text = "[sweep]\nchannels = [[\"http\", \"ws\"], \"quic\"]\n";
    let cases = read(text, &[]).unwrap().cases();
    assert_eq!(cases[0].words, ["--channels=http", "--channels=ws"]);
    assert_eq!(cases[0].folder(), "01-channels-http+ws");
}

#[test]
fn folders_of_many_long_values_have_short_names_that_differ() {
    let values = ["a", "b"].map(|end| format!("{}{end}", "\u{e9}".repeat(31)));
    let keys = ["link", "channels", "proxy", "model", "url", "workload"];
    let mut command = Command::new("compare");
    let mut text = "[sweep]\n".to_owned();
    for key in keys {
        command = command.arg(Arg::new(key).long(key));
        text.push_str(&format!("{key} = {values:?}\n"));
    }
    let plan: Table = text.parse().unwrap();
    let none = |_: &str| false;
    let path = Path::new("p.toml");
    let sweep = Sweep::read(path, &plan["sweep"], &Table::new(), &command, none).unwrap();
    let cases = sweep.cases();
    let names: BTreeSet<String> = cases.iter().map(Case::folder).collect();
    assert_eq!(names.len(), 64);
    assert!(names.iter().all(|name| name.len() < 200), "{names:?}");
    assert_eq!(cases[63].folder().len(), LONGEST_FOLDER);
}

#[test]
fn secrets_do_not_vary() {
    for key in SECRETS {
        let told = read(&format!("[sweep]\n{key} = [\"X: sk-1\"]\n"), &[]).unwrap_err();
        assert!(told.contains(&format!("sweep.{key}: ")), "{told}");
        assert!(!told.contains("sk-1"), "{told}");
    }
}

#[test]
fn what_makes_no_sense_is_told_in_one_line() {
    let many = format!(
        "[sweep]\nlink = {:?}\ntls = [true, false]\n",
        vec!["x"; 600]
    );
    for (text, says) in [
        ("sweep = 3\n", "must be a table"),
        ("[sweep]\nlink = \"lan\"\n", "sweep.link must be a list"),
        ("[sweep]\nlink = []\n", "sweep.link must be a list"),
        ("[sweep]\nlinks = [1]\n", "does not know: links"),
        ("[sweep]\nout = [\"a\"]\n", "sweep.out: each comparison"),
        (
            "[sweep]\noutput = [\"csv\", \"json\"]\n",
            "sweep.output: all comparisons",
        ),
        ("link = \"lan\"\n[sweep]\nlink = [\"lan\"]\n", "and outside"),
        ("[sweep]\nlink = [{ a = 1 }]\n", "sweep.link: must be text"),
        (&*many, "more than 1000 combinations"),
    ] {
        let told = read(text, &[]).unwrap_err();
        assert!(
            told.contains(says) && !told.contains('\n'),
            "{text}: {told}"
        );
    }
}
