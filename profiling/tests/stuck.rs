//! A sampling that cannot be brought to its end, for want of a temporary file. Alone in its process: no other can be made in it.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Sampling, SamplingError};

#[test]
fn a_sampling_that_found_no_room_at_its_end_is_not_taken_for_one_that_goes_on() {
    let (files, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let files_are_had = |there_are: bool| {
        let files = if there_are { files } else { 0 };
        setrlimit(Resource::RLIMIT_NOFILE, files, most).unwrap();
    };
    files_are_had(false);
    let refused = Sampling::start(HERTZ).err().unwrap();
    files_are_had(true);
    assert!(matches!(refused, SamplingError::Folder { .. }), "{refused}");
    assert!(refused.to_string().contains("TMPDIR"), "{refused}");

    // Once there is room it is as if nothing had been.
    let sampling = Sampling::start(HERTZ).unwrap();
    let again = Sampling::start(HERTZ).err().unwrap();
    assert!(matches!(again, SamplingError::Running), "{again}");
    let mut sampled = sampling.stop().unwrap();
    files_are_had(false);
    sampled.end();
    files_are_had(true);
    for _ in 0..2 {
        let stuck = Sampling::start(HERTZ).err().unwrap();
        assert!(matches!(stuck, SamplingError::Stuck(_)), "{stuck}");
        assert!(stuck.to_string().contains("restart the process"), "{stuck}");
    }
}
