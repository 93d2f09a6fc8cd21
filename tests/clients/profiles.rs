//! A reader of pprof's files that is not ours: the npm package `pprof-format`, by Datadog, reads what this program writes.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::process::Command;

use serde_json::Value;
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Sampling, Stacks, folded, protobuf, tidy};

use crate::client::{run, said};
use crate::install::{pprof_format, source};
use crate::support::stdout;

/// This process, while it uses some CPU time.
fn sampled() -> Stacks {
    let sampling = Sampling::start(HERTZ).expect("this process can be sampled");
    let mut sum = 0u64;
    for round in 0..300_000_000u64 {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(round));
    }
    sampling.finish().expect("the samples are there")
}

#[test]
fn pprofs_files_are_read_by_a_package_of_others() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let raw = sampled();
    assert!(raw.total() > 0);
    for stacks in [tidy(&raw), raw] {
        let file = folder.path().join("profile.pb.gz");
        fs::write(&file, protobuf::encode(&stacks, 125.0)).expect("it is written");
        let mut node = Command::new("node");
        node.arg(source("js/read_profile.js"))
            .arg(pprof_format())
            .arg(&file);
        let output = run(&mut node, "install Node.js and npm, as .ci/run does");
        assert!(output.status.success(), "{}", said(&output));
        let read: Value = serde_json::from_str(&stdout(&output)).expect("the script prints JSON");
        assert_eq!(
            read["types"],
            serde_json::json!(["samples/count", "cpu/nanoseconds"])
        );
        // At 125 a second each stands for 8 ms.
        let total = stacks.total();
        assert_eq!(read["sums"], serde_json::json!([total, total * 8_000_000]));
        assert_eq!(
            read["period"],
            serde_json::json!(["cpu/nanoseconds", 8_000_000])
        );
        let text = folded::text(&stacks);
        let ours: BTreeMap<&str, u64> = (text.lines())
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(stack, count)| (stack, count.parse().expect("a count")))
            .collect();
        let theirs: BTreeMap<String, u64> =
            serde_json::from_value(read["stacks"].clone()).expect("counts");
        let theirs: BTreeMap<&str, u64> = theirs.iter().map(|(k, v)| (&**k, *v)).collect();
        assert_eq!(theirs, ours);
        let lines = read["lines"].as_array().expect("lines");
        let here = |line: &Value| {
            line.as_str()
                .is_some_and(|line| line.contains("profiles.rs:"))
        };
        assert!(lines.iter().any(here), "{lines:?}");
    }
}
