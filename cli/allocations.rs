//! How many allocations this process made, where the feature `count-allocations` is built in.

#[cfg(feature = "count-allocations")]
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[cfg(feature = "count-allocations")]
#[global_allocator]
static COUNTING: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Allocations since the process began, growing an allocation among them; `None` where they are not counted.
pub fn so_far() -> Option<u64> {
    counter().map(|count| count())
}

/// What counts them.
pub fn counter() -> Option<fn() -> u64> {
    #[cfg(feature = "count-allocations")]
    return Some(|| {
        let stats = COUNTING.stats();
        (stats.allocations + stats.reallocations) as u64
    });
    #[cfg(not(feature = "count-allocations"))]
    None
}

#[cfg(all(test, feature = "count-allocations"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted() {
        let before = so_far().unwrap();
        let held = std::hint::black_box(vec![1_u8; 100]);
        assert!(so_far().unwrap() > before);
        drop(held);
    }
}
