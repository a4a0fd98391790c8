//! The requests in a stream of bytes: each head is held back until it is complete, and goes on with the lines that are added
//! and without those that only this plugin may write. Bodies go on as they come.

use crate::fields::{Field, normal, token};

/// The largest head of a request, and the largest trailer after a body. What common servers take, twice.
pub const MAX_HEAD: usize = 64 * 1024;
/// The longest line before a chunk: its size, and extensions that nobody uses.
const MAX_CHUNK_LINE: usize = 256;

/// Some servers take it for a line end, and some do not.
const ALONE: &str = "a line ends with a line feed or a carriage return alone";

/// What comes next in the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    /// A request line and headers.
    Head,
    /// So many bytes of a body, and then the next head.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, with its line end; then the next chunk.
    Chunk(u64),
    /// Headers after the last chunk.
    Trailer,
}

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// The direction from a client to a service.
#[derive(Debug)]
pub struct Requests {
    /// Normalised.
    reserved: String,
    /// The lines that each head gets.
    added: Vec<u8>,
    expect: Expect,
    /// The beginning of a head, a trailer or a line; bounded by what is expected.
    held: Vec<u8>,
    /// Something was refused. What comes after it must not be taken for a new request.
    refused: bool,
}

impl Requests {
    /// Adds `added` (complete lines) to each request, and removes a client's own headers whose names begin with `prefix`.
    pub fn new(prefix: &str, added: Vec<u8>) -> Self {
        Self {
            reserved: normal(prefix),
            added,
            expect: Expect::Head,
            held: Vec::new(),
            refused: false,
        }
    }

    /// Whether so many bytes are all part of a body, and can go on as they are.
    pub fn skip(&mut self, length: usize) -> bool {
        let length = length as u64;
        match &mut self.expect {
            Expect::Body(left) | Expect::Chunk(left) if length < *left && !self.refused => {
                *left -= length;
                true
            }
            _ => false,
        }
    }

    /// What goes on to the service for these bytes; or why they are no requests that can be passed on.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        if self.refused {
            return Err("the request before was refused".to_owned());
        }
        let outcome = self.advance(bytes);
        self.refused = outcome.is_err();
        outcome
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(bytes.len() + self.added.len());
        while !bytes.is_empty() {
            match self.expect {
                Expect::Body(left) => {
                    let rest = pass(&mut bytes, left, &mut out);
                    self.expect = if rest == 0 {
                        Expect::Head
                    } else {
                        Expect::Body(rest)
                    };
                }
                Expect::Chunk(left) => {
                    let rest = self.pass_chunk(&mut bytes, left, &mut out)?;
                    self.expect = if rest == 0 {
                        Expect::ChunkSize
                    } else {
                        Expect::Chunk(rest)
                    };
                }
                Expect::ChunkSize => {
                    if let Some(line) =
                        self.hold(&mut bytes, b"\r\n", MAX_CHUNK_LINE, "the size of a chunk")?
                    {
                        let size = chunk_size(&line)?;
                        out.extend_from_slice(&line);
                        // The line end after a chunk belongs to it.
                        self.expect = if size == 0 {
                            Expect::Trailer
                        } else {
                            Expect::Chunk(size + 2)
                        };
                    }
                }
                Expect::Trailer => {
                    // An empty trailer is its line end alone.
                    let end: &[u8] = if self.held_with(bytes).starts_with(b"\r\n") {
                        b"\r\n"
                    } else {
                        b"\r\n\r\n"
                    };
                    if self.held.len() + bytes.len() < 2 {
                        self.held.extend_from_slice(bytes);
                        break;
                    }
                    if let Some(trailer) = self.hold(&mut bytes, end, MAX_HEAD, "the trailer of a request")? {
                        self.trailer(&trailer, &mut out)?;
                        self.expect = Expect::Head;
                    }
                }
                Expect::Head => {
                    // Some clients send an empty line after a body; servers skip it, and so do we.
                    if self.held.is_empty() && bytes[0] == b'\r' || self.held == b"\r" {
                        self.held.push(bytes[0]);
                        bytes = &bytes[1..];
                        match self.held.as_slice() {
                            b"\r" => {}
                            b"\r\n" => self.held.clear(),
                            _ => return Err("a line ends with a carriage return alone".to_owned()),
                        }
                        continue;
                    }
                    if let Some(head) =
                        self.hold(&mut bytes, b"\r\n\r\n", MAX_HEAD, "the head of a request")?
                    {
                        self.expect = match self.head(&head, &mut out)? {
                            Framing::Length(0) => Expect::Head,
                            Framing::Length(length) => Expect::Body(length),
                            Framing::Chunked => Expect::ChunkSize,
                        };
                    }
                }
            }
        }
        Ok(out)
    }

    /// The first two bytes of what is held and what comes after it: all that a decision needs.
    fn held_with(&self, bytes: &[u8]) -> Vec<u8> {
        self.held.iter().chain(bytes).take(2).copied().collect()
    }

    /// Holds bytes back until `end` is among them; then all up to and with it.
    fn hold(
        &mut self,
        bytes: &mut &[u8],
        end: &[u8],
        limit: usize,
        what: &str,
    ) -> Result<Option<Vec<u8>>, String> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.held.push(*byte);
            if *byte == b'\n' && !self.held.ends_with(b"\r\n") {
                // At once: whoever sends no carriage returns would wait for an answer for ever.
                return Err(ALONE.to_owned());
            }
            if self.held.ends_with(end) {
                return Ok(Some(std::mem::take(&mut self.held)));
            }
            if self.held.len() >= limit {
                return Err(format!("{what} is longer than {limit} bytes"));
            }
        }
        Ok(None)
    }

    /// Passes bytes of a chunk on; its last two have to be a line end, where servers expect one.
    fn pass_chunk(&mut self, bytes: &mut &[u8], left: u64, out: &mut Vec<u8>) -> Result<u64, String> {
        let end = &b"\r\n"[..];
        let mut left = left;
        if left > 2 {
            left = pass(bytes, left - 2, out) + 2;
        }
        while left <= 2 && left > 0 && !bytes.is_empty() {
            if bytes[0] != end[2 - left as usize] {
                return Err("a chunk is longer than its size says".to_owned());
            }
            left = pass(bytes, 1, out) + left - 1;
        }
        Ok(left)
    }

    /// Writes a head as it goes on; how the body after it is framed.
    fn head(&self, head: &[u8], out: &mut Vec<u8>) -> Result<Framing, String> {
        let mut lines = lines(head)?;
        let request = lines.next().unwrap_or_default();
        let old = request_line(request)?;
        out.extend_from_slice(request);
        out.extend_from_slice(b"\r\n");
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let field = Field::parse(line)?;
            let name = normal(field.name);
            match name.as_str() {
                // Spelt with `_` they are nothing to most servers, and the framing to some.
                "content-length" | "transfer-encoding" if field.name.contains('_') => {
                    return Err(format!(
                        "the header {} is spelt in a way that servers disagree on",
                        field.name
                    ));
                }
                "content-length" => {
                    if length.replace(number(field.value)?).is_some() {
                        return Err("a request has two lengths".to_owned());
                    }
                }
                "transfer-encoding" => {
                    if chunked || old || !field.value.eq_ignore_ascii_case("chunked") {
                        return Err("a request has a transfer encoding other than `chunked`, or twice, or in HTTP/1.0".to_owned());
                    }
                    chunked = true;
                }
                // After an upgrade the stream would be no HTTP any more, and whether the server agrees is in its answer only.
                // Servers answer a request without it as any other.
                "upgrade" => continue,
                // What a client names here is removed by the next server on the way, such as the lines that are added.
                "connection" => {
                    self.connection(&field, out);
                    continue;
                }
                _ if name.starts_with(&self.reserved) => continue,
                _ => {}
            }
            write(&field, field.value, out);
        }
        out.extend_from_slice(&self.added);
        out.extend_from_slice(b"\r\n");
        match (length, chunked) {
            (Some(_), true) => Err("a request has both a length and a transfer encoding".to_owned()),
            (_, true) => Ok(Framing::Chunked),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }

    fn connection(&self, field: &Field<'_>, out: &mut Vec<u8>) {
        let options: Vec<&str> = field
            .value
            .split(',')
            .map(str::trim)
            .filter(|option| {
                let option = normal(option);
                !option.is_empty() && option != "upgrade" && !option.starts_with(&self.reserved)
            })
            .collect();
        if !options.is_empty() {
            write(field, &options.join(", "), out);
        }
    }

    fn trailer(&self, trailer: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        for line in lines(trailer)? {
            let field = Field::parse(line)?;
            let name = normal(field.name);
            // Some servers put trailers among the headers; framing has no place here (RFC 9110, section 6.5.1).
            if !name.starts_with(&self.reserved)
                && !["content-length", "transfer-encoding"].contains(&name.as_str())
            {
                write(&field, field.value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn write(field: &Field<'_>, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Passes at most `left` bytes on; how many are left.
fn pass(bytes: &mut &[u8], left: u64, out: &mut Vec<u8>) -> u64 {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let (now, later) = bytes.split_at(length);
    out.extend_from_slice(now);
    *bytes = later;
    left - length as u64
}

/// The lines of a head or trailer that ends with an empty line. A line feed without a carriage return is refused: some servers
/// take it for a line end.
fn lines(block: &[u8]) -> Result<impl Iterator<Item = &[u8]>, String> {
    let bare = block.iter().enumerate().any(|(at, byte)| match byte {
        b'\n' => at == 0 || block[at - 1] != b'\r',
        b'\r' => block.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    if bare {
        return Err(ALONE.to_owned());
    }
    let block = block.strip_suffix(b"\r\n").unwrap_or(block);
    Ok(block
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r\n").unwrap_or(line)))
}

/// Checks a request line; whether it is of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, String> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("this is no HTTP/1.1: a request line has three words".to_owned());
    };
    if method.is_empty() || !method.iter().copied().all(token) {
        return Err("this is no HTTP/1.1: a request begins with a method".to_owned());
    }
    if path.is_empty() || !path.iter().all(u8::is_ascii_graphic) {
        return Err("a request has no path, or one with something in it that no path may have".to_owned());
    }
    if method == b"CONNECT" {
        return Err("CONNECT asks for a tunnel, in which requests cannot be seen".to_owned());
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        b"HTTP/2.0" => Err("this is HTTP/2; only HTTP/1.1 and HTTP/1.0 are understood".to_owned()),
        _ => Err("this is no HTTP/1.1: a request line ends with the version".to_owned()),
    }
}

fn number(digits: &str) -> Result<u64, String> {
    // `parse` alone takes a `+`.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())
        .flatten()
        .ok_or_else(|| "the length of a request is no number".to_owned())
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("the size of a chunk has a control character in it".to_owned());
    }
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    // 15 digits are more bytes than there are, and leave room for the line end.
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("the size of a chunk is no number".to_owned());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| "the size of a chunk is no number".to_owned())?;
    u64::from_str_radix(digits, 16).map_err(|_| "the size of a chunk is no number".to_owned())
}
