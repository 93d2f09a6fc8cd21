//! Variable-length integers as QUIC writes them (RFC 9000, section 16).

/// The largest value: 62 bits.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Appends `value`, which must not be above [`MAX`].
pub(crate) fn push(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The value at the front of `bytes` and its length; `None` while it is not whole.
pub(crate) fn peek(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let value = bytes
        .get(1..length)?
        .iter()
        .fold(u64::from(first & 0x3f), |value, &byte| {
            value << 8 | u64::from(byte)
        });
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a() {
        for (bytes, value) in [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(peek(bytes), Some((value, bytes.len())));
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX) {
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            prop_assert_eq!(peek(&bytes), Some((value, bytes.len())));
            prop_assert_eq!(peek(&bytes[..bytes.len() - 1]), None);
        }
    }
}
