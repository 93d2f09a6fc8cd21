//! Datagrams that belong to no connection: told apart by what the first bytes of every QUIC packet must be.

use quinn::{ConnectionId, ConnectionIdGenerator};

/// The shortest datagram that may begin a connection (RFC 9000, section 14.1).
const SHORTEST_INITIAL: usize = 1200;

/// The version that is spoken here.
const VERSION_1: u32 = 1;

/// Whether a datagram that a server received cannot be for it. `known` made the connection ids that the server gave out.
pub(crate) fn is_stray(datagram: &[u8], known: &dyn ConnectionIdGenerator) -> bool {
    let Some((&first, rest)) = datagram.split_first() else {
        return true;
    };
    let ours = |id: Option<&[u8]>| {
        id.filter(|id| id.len() == known.cid_len())
            .is_some_and(|id| known.validate(&ConnectionId::new(id)).is_ok())
    };
    // A short header has the id that the server gave (RFC 9000, section 17.3).
    if first & 0x80 == 0 {
        return !ours(rest.get(..known.cid_len()));
    }
    // A long header: version, length of the id, id (section 17.2).
    let Some((version, rest)) = rest.split_first_chunk() else {
        return true;
    };
    let Some((&length, rest)) = rest.split_first() else {
        return true;
    };
    let id = rest.get(..usize::from(length));
    let begins = match (first >> 4) & 0x03 {
        // Initial and 0-RTT: the client chose the id.
        0 => datagram.len() >= SHORTEST_INITIAL && id.is_some(),
        1 => id.is_some(),
        _ => false,
    };
    u32::from_be_bytes(*version) != VERSION_1 || !(begins || ours(id))
}

#[cfg(test)]
mod tests {
    use quinn_proto::HashedConnectionIdGenerator;

    use super::*;

    fn long(first: u8, version: u32, id: &[u8], length: usize) -> Vec<u8> {
        let mut datagram = vec![first];
        datagram.extend_from_slice(&version.to_be_bytes());
        datagram.push(id.len() as u8);
        datagram.extend_from_slice(id);
        datagram.resize(length, 0);
        datagram
    }

    #[test]
    fn what_is_quic_for_this_server_and_what_is_not() {
        let mut known = HashedConnectionIdGenerator::from_key(7);
        let id = known.generate_cid();
        let mut short = vec![0x40];
        short.extend_from_slice(&id);
        short.resize(60, 0);
        let initial = long(0xc0, 1, b"chosen by the", 1200);

        assert!(!is_stray(&short, &known));
        assert!(!is_stray(&initial, &known));
        assert!(!is_stray(&long(0xd0, 1, b"as above", 300), &known));
        assert!(!is_stray(&long(0xe0, 1, &id, 80), &known));

        assert!(is_stray(b"", &known));
        assert!(is_stray(b"GET / HTTP/1.1\r\n\r\n", &known));
        assert!(is_stray(&[0x40; 60], &known));
        assert!(is_stray(&[0xff; 1200], &known));
        assert!(is_stray(&initial[..1199], &known));
        assert!(is_stray(&long(0xe0, 1, b"unknown!", 80), &known));
        assert!(is_stray(&long(0xc0, 0x1a2a_3a4a, b"version", 1200), &known));
        assert!(is_stray(&[0xc0, 0, 0], &known));
    }
}
