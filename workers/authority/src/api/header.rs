//! Request and response headers: CBOR maps with small unsigned keys (specification 03 §1.2, §1.3).

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::{MAX_PATH_LEN, MalformedHeader};

/// What a request asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Do, create.
    Post,
    /// Replace. No service of the authority uses it.
    Put,
    /// Remove.
    Delete,
    /// Change in part. No service of the authority uses it.
    Patch,
}

impl Method {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Get => 0,
            Self::Post => 1,
            Self::Put => 2,
            Self::Delete => 3,
            Self::Patch => 4,
        }
    }

    /// The method with this number.
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Get,
            1 => Self::Post,
            2 => Self::Put,
            3 => Self::Delete,
            4 => Self::Patch,
            _ => return None,
        })
    }
}

/// How a request ended. There are no other values: a stock client cannot decode a header with an unlisted
/// one, so this type has no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 200.
    Ok,
    /// 400: the request cannot be understood or is against a limit.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403: understood and refused.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    Timeout,
    /// 409.
    Conflict,
    /// 500: the service failed.
    InternalServerError,
    /// 501.
    NotImplemented,
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::InternalServerError => 500,
            Self::NotImplemented => 501,
        }
    }

    /// The status with this number.
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            200 => Self::Ok,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::Timeout,
            409 => Self::Conflict,
            500 => Self::InternalServerError,
            501 => Self::NotImplemented,
            _ => return None,
        })
    }
}

/// Header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Number that the response repeats. The sender draws it at random, never 0.
    pub id: u32,
    /// Path, with or without leading `/`, at most [`MAX_PATH_LEN`] bytes.
    pub path: String,
    /// Method; a request without one is answered 400.
    pub method: Option<Method>,
    /// Whether bytes of a body follow.
    pub has_body: bool,
}

impl RequestHeader {
    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        let fields = 3 + u64::from(self.method.is_some());
        infallible(e.map(fields));
        infallible(e.u8(1).and_then(|e| e.u32(self.id)));
        infallible(e.u8(2).and_then(|e| e.str(&self.path)));
        if let Some(method) = self.method {
            infallible(e.u8(3).and_then(|e| e.u8(method.code())));
        }
        infallible(e.u8(4).and_then(|e| e.bool(self.has_body)));
    }

    /// Reads a header from the start of `data`; returns it and the rest.
    ///
    /// Accepted as stock servers do: unknown keys, key 0, an indefinite-length map, id 0, a missing or `null`
    /// method. Beyond them, a method that is not known is read as no method, so that the request can still be
    /// answered.
    ///
    /// # Errors
    /// [`MalformedHeader`], with the fields that were readable before the fault: they go into the answer.
    pub fn decode(data: &[u8]) -> Result<(Self, &[u8]), MalformedHeader> {
        let mut found = MalformedHeader::default();
        match Self::read(data, &mut found) {
            Ok(done) => Ok(done),
            Err(reason) => {
                found.reason = reason;
                Err(found)
            }
        }
    }

    fn read<'a>(data: &'a [u8], found: &mut MalformedHeader) -> Result<(Self, &'a [u8]), &'static str> {
        let mut has_body = None;
        let mut method = None;
        let rest = read_map(data, |key, d| {
            match key {
                1 => found.id = d.u32().map_err(|_| "the request id is not a number of 32 bits")?,
                2 => {
                    let path = d.str().map_err(|_| "the path is not text")?;
                    if path.len() > MAX_PATH_LEN {
                        return Err("the path is too long");
                    }
                    found.path = Some(path.to_owned());
                }
                3 => method = read_optional_code(d)?.and_then(Method::from_code),
                4 => has_body = Some(d.bool().map_err(|_| "the body flag is not a boolean")?),
                _ => d.skip().map_err(|_| "an unknown field is not complete CBOR")?,
            }
            found.has_id |= key == 1;
            found.method = method;
            Ok(())
        })?;
        if !found.has_id {
            return Err("the request id is missing");
        }
        let path = found.path.clone().ok_or("the path is missing")?;
        let has_body = has_body.ok_or("the body flag is missing")?;
        Ok((
            Self {
                id: found.id,
                path,
                method,
                has_body,
            },
            rest,
        ))
    }
}

/// Header of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// Number of the response itself.
    pub id: u32,
    /// Number of the request; 0 where the request's own could not be read.
    pub re: u32,
    /// Status. `None` on decoding stands for an absent or unlisted one, which counts as a failure.
    pub status: Option<Status>,
    /// Whether a body follows.
    pub has_body: bool,
}

impl ResponseHeader {
    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        let fields = 3 + u64::from(self.status.is_some());
        infallible(e.map(fields));
        infallible(e.u8(1).and_then(|e| e.u32(self.id)));
        infallible(e.u8(2).and_then(|e| e.u32(self.re)));
        if let Some(status) = self.status {
            infallible(e.u8(3).and_then(|e| e.u16(status.code())));
        }
        infallible(e.u8(4).and_then(|e| e.bool(self.has_body)));
    }

    /// Reads a header from the start of `data`; returns it and the rest.
    ///
    /// # Errors
    /// A sentence that says which field is wrong.
    pub fn decode(data: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let (mut id, mut re, mut status, mut has_body) = (None, None, None, None);
        let rest = read_map(data, |key, d| {
            match key {
                1 => {
                    id = Some(
                        d.u32()
                            .map_err(|_| "the response id is not a number of 32 bits")?,
                    )
                }
                2 => re = Some(d.u32().map_err(|_| "the request id is not a number of 32 bits")?),
                3 => status = read_optional_code(d)?.and_then(Status::from_code),
                4 => has_body = Some(d.bool().map_err(|_| "the body flag is not a boolean")?),
                _ => d.skip().map_err(|_| "an unknown field is not complete CBOR")?,
            }
            Ok(())
        })?;
        let header = Self {
            id: id.ok_or("the response id is missing")?,
            re: re.ok_or("the request id is missing")?,
            status,
            has_body: has_body.ok_or("the body flag is missing")?,
        };
        Ok((header, rest))
    }
}

/// Walks a definite or indefinite map with unsigned keys; returns what follows it.
fn read_map<'a>(
    data: &'a [u8],
    mut field: impl FnMut(u64, &mut Decoder<'a>) -> Result<(), &'static str>,
) -> Result<&'a [u8], &'static str> {
    let mut d = Decoder::new(data);
    let mut left = d.map().map_err(|_| "the header is not a CBOR map")?;
    loop {
        match &mut left {
            Some(0) => break,
            Some(n) => *n -= 1,
            None => match d.datatype() {
                Ok(Type::Break) => {
                    d.skip().map_err(|_| "the header is not complete CBOR")?;
                    break;
                }
                Ok(_) => {}
                Err(_) => return Err("the header is cut off"),
            },
        }
        let key = d
            .u64()
            .map_err(|_| "a key of the header is missing or not a number")?;
        field(key, &mut d)?;
    }
    Ok(&data[d.position().min(data.len())..])
}

fn read_optional_code(d: &mut Decoder<'_>) -> Result<Option<u64>, &'static str> {
    match d.datatype() {
        Ok(Type::Null | Type::Undefined) => {
            d.skip().map_err(|_| "the header is not complete CBOR")?;
            Ok(None)
        }
        _ => d
            .u64()
            .map(Some)
            .map_err(|_| "a method or status is not a number"),
    }
}

/// Writing CBOR into a `Vec` cannot fail: the writer's error type has no values.
pub(crate) fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    debug_assert!(result.is_ok());
}
