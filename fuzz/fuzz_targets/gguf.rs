//! Model files: loaded, or refused with a reason; never a panic, never memory without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenlag_backend::Model;

fuzz_target!(|bytes: &[u8]| {
    let _ = Model::from_bytes(bytes);
});
