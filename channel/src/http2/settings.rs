//! What both ends announce, so that neither makes the other wait, and neither can be made to hoard.

use h2::{client, server};

/// A stream's window: a 128k-token history is half a megabyte, and must never stall on flow control.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// All streams' together: what one connection may make its reader hold.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Exchanges that may run side by side on one connection. More are refused with REFUSED_STREAM, which says that they can
/// be asked again.
pub const MAX_STREAMS: u32 = 256;

/// The longest head, names and values and 32 bytes a field (RFC 9113, section 6.5.2). Beyond it a request gets 431.
pub const MAX_HEAD: u32 = 64 * 1024;

/// What the library allows a server in frames that carry little, before it calls them an attack. A client asked for its
/// tokens, and reads them when it can.
const FRAME_BUDGET: usize = 256 * CONNECTION_WINDOW as usize;

pub(crate) fn client() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .data_frame_budget(FRAME_BUDGET)
        .enable_push(false);
    builder
}

/// The library's own limits stay as they are: on streams that are reset before they are served (20, CVE-2023-44487), on
/// those that it resets for their faults (1024), on CONTINUATION frames, and on frames that carry nothing.
pub(crate) fn server() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}
