//! What the machine does without a link: how late it wakes a thread, and how long an echo takes it. No link can be better.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::echo;
use crate::wait::{self, Spinning, be_punctual};
use crate::{Clock, Link, LinkStats, namespace::on_a_thread};

/// Moments that are waited for, and how far they lie apart in nanoseconds: full packets of 100 Mbit/s.
const MOMENTS: u64 = 8_000;
const APART: u64 = 120_000;

/// The shortest and the longest sleep before an echo.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// How late a thread is that waits as the relay does, in nanoseconds, where no packet is there.
#[derive(Debug)]
pub(super) struct Lateness {
    /// When it was woken, after the moment that it asked for.
    pub(super) woken: Histogram<u64>,
    /// When it saw that the moment was there, which it waited for on the processor.
    pub(super) there: Histogram<u64>,
}

impl Lateness {
    /// Measures it for a second.
    pub(super) fn measure(clock: Clock) -> io::Result<Self> {
        on_a_thread(|| {
            be_punctual();
            let mut late = Self {
                woken: LinkStats::default().release_error,
                there: LinkStats::default().release_error,
            };
            let begun = clock();
            let mut spinning = Spinning::default();
            for number in 1..=MOMENTS {
                let moment = begun + number * APART;
                loop {
                    let now = clock();
                    if now >= moment {
                        spinning.rests(now);
                        late.there.saturating_record(now - moment);
                        break;
                    }
                    let left = moment - now;
                    if spinning.waits(now, left) {
                        std::hint::spin_loop();
                        continue;
                    }
                    let asked = spinning.sleep(left);
                    wait::sleep([], Some(asked))?;
                    late.woken
                        .saturating_record((clock() - now).saturating_sub(asked));
                }
            }
            Ok(late)
        })
    }

    /// Both measurements as one.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (own, more) in [
            (&mut self.woken, &other.woken),
            (&mut self.there, &other.there),
        ] {
            own.add(more)
                .expect("both have the same bounds, which are those of a link's");
        }
        self
    }
}

/// How long a byte and a datagram take there and back within the client's side of `link`, in nanoseconds, for a client that
/// slept for a round trip before: threads that slept wait longer for a core than such as did not.
pub(super) struct Echoes {
    pub(super) tcp: io::Result<Vec<u64>>,
    pub(super) udp: io::Result<Vec<u64>>,
}

impl Echoes {
    pub(super) fn measure(link: &Link, clock: Clock) -> Self {
        let ends = echo::Ends {
            client: &link.client,
            server: &link.client,
            at: Ipv4Addr::LOCALHOST.into(),
            longest: Duration::ZERO,
            sleep: link.spec().rtt().clamp(SHORTEST, LONGEST),
        };
        Self {
            tcp: ends.tcp(clock),
            udp: ends.udp(clock),
        }
    }
}
