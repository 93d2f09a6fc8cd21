//! Links as people write them, and as they are shown.

use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    LinkSpec::parse(text).expect_err(text).to_string()
}

#[test]
fn a_link_is_read_as_people_write_it() {
    let link = LinkSpec::parse("rtt=40ms, jitter=2ms, rate=100mbit, loss=0.1%").unwrap();
    assert_eq!(link.rtt(), Duration::from_millis(40));
    assert_eq!(link.up, link.down);
    assert_eq!(link.up.rate, Some(100_000_000));
    // A round trip at the rate: 40 ms of 100 Mbit/s.
    assert_eq!(link.queue_of(&link.up), 500_000);
    let odd = LinkSpec::parse("down-rate=50mbit,rate=10mbit,up-delay=30ms,delay=5ms").unwrap();
    assert_eq!(
        (odd.up.rate, odd.down.rate),
        (Some(10_000_000), Some(50_000_000))
    );
    assert_eq!(odd.rtt(), Duration::from_millis(35));
    assert_eq!(odd.queue_of(&odd.up), SMALLEST_QUEUE);
    let changed = LinkSpec::parse("cross-country,loss=1%,cc=reno").unwrap();
    assert_eq!(changed.up.loss.mean(), 0.01);
    assert_eq!(changed.cc.as_deref(), Some("reno"));
    let opened = LinkSpec::parse("lan,initcwnd=250,idle-restart=off").unwrap();
    assert_eq!(
        (opened.initcwnd, opened.idle_restart),
        (Some(250), Some(false))
    );
    assert_eq!(
        changed.rtt(),
        LinkSpec::parse("cross-country").unwrap().rtt()
    );
}

#[test]
fn what_makes_no_sense_is_told_in_one_line() {
    for (text, says) in [
        ("", "empty"),
        ("moon", "known: "),
        ("rtt", "known: "),
        ("rtt=40", "rtt: write a span"),
        ("rtt=40ms,rtt=50ms", "twice"),
        ("rtt=40ms,delay=20ms", "give one of them"),
        ("speed=1", "no link has 'speed'"),
        ("up-rtt=1ms", "no link has 'up-rtt'"),
        ("rtt=1ms,lan", "'lan' is no key=value"),
        ("rate=fast", "rate: write bits"),
        ("loss=2", "loss: write a share"),
        ("queue=100b", "must fit"),
        ("queue=1025mib", "queue: at most 1024mib"),
        ("loss=0.00000001%", "loss: at least 0.0000001%, or 0%"),
        ("rate=101gbit", "rate: from 1kbit to 100gbit"),
        ("delay=61s", "delay: at most 60s"),
        ("mtu=500", "mtu: write 1280"),
        ("cc=../x", "cc: write a name"),
        ("initcwnd=0", "initcwnd: write 1"),
        ("idle-restart=maybe", "idle-restart: write on or off"),
        ("nowhere.toml", "No such file"),
    ] {
        let told = refusal(text);
        assert!(
            told.contains(says) && !told.contains('\n'),
            "{text}: {told}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "\\PC{0,80}") {
        let _ = LinkSpec::parse(&text);
        let _ = LinkSpec::of_toml(&text);
    }

    #[test]
    fn nearly_right_text_is_read_or_told(
        text in "((up-|down-)?(rtt|delay|jitter|rate|loss|queue|mtu|seed|cc|initcwnd|idle-restart)=[0-9.]{0,4}(ms|mbit|%|kb|ge:|/|on)?,?){0,4}"
    ) {
        let _ = LinkSpec::parse(&text);
    }

    #[test]
    fn what_is_shown_reads_back_as_it_was(link in links()) {
        let read = LinkSpec::parse(&link.to_string()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read.to_string(), link.to_string());
        // A queue that nobody sized is shown with the size that it has.
        prop_assert_eq!(read, sized(&link));
    }
}

fn sized(link: &LinkSpec) -> LinkSpec {
    let sized = |way: &Way| Way {
        queue: way.rate.map(|_| link.queue_of(way)),
        ..way.clone()
    };
    LinkSpec {
        up: sized(&link.up),
        down: sized(&link.down),
        ..link.clone()
    }
}

/// Every link that can be asked for.
fn links() -> impl Strategy<Value = LinkSpec> {
    let whole = (
        any::<bool>(),
        any::<u64>(),
        SMALLEST_MTU..,
        prop::option::of("[a-z][a-z0-9_-]{0,14}"),
        prop::option::of(1u16..),
        any::<Option<bool>>(),
    );
    (ways(), prop::option::of(ways()), whole).prop_map(|(up, down, whole)| {
        let (reorder, seed, mtu, cc, initcwnd, idle_restart) = whole;
        LinkSpec {
            down: down.unwrap_or_else(|| up.clone()),
            up,
            reorder,
            seed,
            mtu,
            cc,
            initcwnd,
            idle_restart,
        }
    })
}

fn ways() -> impl Strategy<Value = Way> {
    let span = || (0..=60_000_000_000u64).prop_map(Duration::from_nanos);
    let share = || prop_oneof![Just(1.0), 1e-9..1e-6, 1e-6..=1.0];
    let loss = prop_oneof![
        Just(Loss::NONE),
        share().prop_map(|share| Loss::Bernoulli { share }),
        [share(), share(), share(), share()]
            .prop_map(|[p, r, bad, good]| { Loss::GilbertElliott { p, r, bad, good } }),
    ];
    let rate = prop::option::of(1_000..=100_000_000_000u64);
    let queue = prop::option::of(65_535..=units::LARGEST);
    (span(), span(), rate, loss, queue).prop_map(|(delay, jitter, rate, loss, queue)| Way {
        delay,
        jitter,
        rate,
        loss,
        queue: rate.and(queue),
    })
}
