//! The transports, both ends side by side: HTTP/1.1, WebSocket, raw QUIC.
