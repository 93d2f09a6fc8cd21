//! HTTP/1.1 on a blocking socket, as much as an instrument needs: read a request, frame a reply.

use std::io::{self, Read, Write};

use tokenlag_probes::{Clock, MonoClock, Stamp};

/// Most bytes of a request's head.
const HEAD_LIMIT: usize = 64 << 10;
/// Most bytes of a request's body.
const BODY_LIMIT: usize = 64 << 20;
const MOST_HEADERS: usize = 100;

/// A request as it came, with the stamp of the read that carried its last byte.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) read_at: Stamp,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn has_token(&self, header: &str, token: &str) -> bool {
        let value = self.header(header).unwrap_or_default();
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    pub(crate) fn wants_close(&self) -> bool {
        self.has_token("connection", "close")
    }
}

/// Reads requests off one connection; bytes of the next one are kept.
#[derive(Debug, Default)]
pub(crate) struct RequestReader {
    buffer: Vec<u8>,
}

impl RequestReader {
    /// The next request; `None` where the client closed between requests.
    pub(crate) fn next(&mut self, socket: &mut (impl Read + Write)) -> io::Result<Option<Request>> {
        let mut read_at = MonoClock.now();
        let (mut request, head_length) = loop {
            if let Some(parsed) = parse_head(&self.buffer, read_at)? {
                break parsed;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(invalid("the request's head is too long"));
            }
            match self.fill(socket)? {
                Some(at) => read_at = at,
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        self.buffer.drain(..head_length);
        if request.has_token("expect", "100-continue") {
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = match request.has_token("transfer-encoding", "chunked") {
            true => self.chunked(socket, &mut request.read_at)?,
            false => {
                let length = match request.header("content-length") {
                    Some(text) => text
                        .trim()
                        .parse()
                        .map_err(|_| invalid("content-length is no number"))?,
                    None => 0,
                };
                self.exactly(length, socket, &mut request.read_at)?
            }
        };
        Ok(Some(request))
    }

    /// One read; `None` at the end of the stream.
    fn fill(&mut self, socket: &mut impl Read) -> io::Result<Option<Stamp>> {
        let mut piece = [0; 16 << 10];
        let count = socket.read(&mut piece)?;
        let at = MonoClock.now();
        self.buffer.extend_from_slice(&piece[..count]);
        Ok((count > 0).then_some(at))
    }

    fn exactly(
        &mut self,
        length: usize,
        socket: &mut impl Read,
        read_at: &mut Stamp,
    ) -> io::Result<Vec<u8>> {
        if length > BODY_LIMIT {
            return Err(invalid("the request's body is too long"));
        }
        while self.buffer.len() < length {
            *read_at = self.fill(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn chunked(&mut self, socket: &mut impl Read, read_at: &mut Stamp) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(socket, read_at)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| invalid("a chunk's size is no hexadecimal number"))?;
            if size == 0 {
                // Trailers, up to an empty line.
                while !self.line(socket, read_at)?.is_empty() {}
                return Ok(body);
            }
            if size > BODY_LIMIT - body.len() {
                return Err(invalid("the request's body is too long"));
            }
            body.extend(self.exactly(size, socket, read_at)?);
            self.line(socket, read_at)?;
        }
    }

    fn line(&mut self, socket: &mut impl Read, read_at: &mut Stamp) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(invalid("a line of the body's framing is too long"));
            }
            *read_at = self.fill(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
    }
}

/// The request without its body, and the length of its head; `None` while the head is not whole.
fn parse_head(bytes: &[u8], read_at: Stamp) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head
        .parse(bytes)
        .map_err(|error| invalid(&error.to_string()))?
    {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        headers: head
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_ascii_lowercase(), value)
            })
            .collect(),
        body: Vec::new(),
        read_at,
    };
    Ok(Some((request, length)))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// A whole reply with a length.
pub(crate) fn whole(status: u16, body: &[u8], close: bool) -> Vec<u8> {
    let mut reply = head(status, "application/json", close);
    reply.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    reply.extend_from_slice(body);
    reply
}

/// The head of a streamed reply.
pub(crate) fn stream_head(close: bool) -> Vec<u8> {
    let mut reply = head(200, "text/event-stream", close);
    reply.extend_from_slice(b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    reply
}

fn head(status: u16, content_type: &str, close: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Scripted",
    };
    let connection = if close { "connection: close\r\n" } else { "" };
    format!("HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{connection}")
        .into_bytes()
}

/// Appends one chunk of a chunked body. Nothing is no chunk: an empty one would end the body.
pub(crate) fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    write!(out, "{:x}\r\n", data.len()).expect("a Vec takes every byte");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that gives its bytes piece by piece.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Reads all requests of a connection whose bytes come in pieces of `size`.
    fn read_all(bytes: &str, size: usize) -> io::Result<Vec<(String, String)>> {
        let pieces = bytes.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let mut socket = Pieces(pieces);
        let mut reader = RequestReader::default();
        let mut requests = Vec::new();
        while let Some(request) = reader.next(&mut socket)? {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            requests.push((request.path, body));
        }
        Ok(requests)
    }

    #[test]
    fn requests_read_alike_however_they_are_cut() {
        let bytes = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\n\r\n\
                     POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        for size in [1, 2, 7, 1_000] {
            let requests = read_all(bytes, size).unwrap();
            let expected = [("/a", "hello"), ("/b", ""), ("/c", "abcde")]
                .map(|(path, body)| (path.to_owned(), body.to_owned()));
            assert_eq!(requests, expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for bytes in [
            "nonsense\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nshort",
        ] {
            assert!(read_all(bytes, 64).is_err(), "{bytes}");
        }
    }

    #[test]
    fn an_empty_chunk_is_never_written() {
        let mut out = Vec::new();
        chunk(&mut out, b"");
        assert!(out.is_empty());
        chunk(&mut out, b"0123456789abcdef");
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n");
    }
}
