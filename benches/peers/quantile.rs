//! Quantiles of values that fit in memory.

/// The smallest value that `share` of them do not exceed; not a number without values.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    match values {
        [] => f64::NAN,
        values => values[rank.clamp(1, values.len()) - 1],
    }
}
