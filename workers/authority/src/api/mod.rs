//! The request/response protocol that every service of an authority speaks (specification 03 §1).
//!
//! A request is one message to the service, a response one message along the request's return route. The
//! payload of both is `BARE data( header ‖ body )`: a CBOR header, then the body with nothing in between.
//!
//! ```text
//!   client                                        service
//!   Request::encode ──── payload ───────────────▶ Request::decode
//!                                                   │ Err(MalformedRequest) ── .answer() ──┐
//!                                                   ▼                                      │
//!                                                 the rules ── Response::ok / refuse ──────┤
//!   Response::decode ◀── payload ───────────────────────────────── Response::encode ───────┘
//! ```
//!
//! **Every request gets an answer.** The reference leaves a client alone with its time-out when a body or an
//! identifier does not decode; here [`Request::decode`] fails with a [`MalformedRequest`] that knows as much
//! as was readable and makes the 400 out of it.
//!
//! Nothing here does input or output, and nothing trusts a length.

mod error_body;
mod header;

use portolan_runtime::bare;

pub use error_body::ErrorBody;
pub(crate) use header::infallible;
pub use header::{Method, RequestHeader, ResponseHeader, Status};

/// Largest request payload that a service looks at, in bytes. The largest legitimate one, a full set of
/// attributes ([`crate::attributes`]), takes a quarter of it.
pub const MAX_REQUEST_LEN: usize = 64 * 1024;

/// Largest response payload that a client looks at, in bytes: that of a transport frame, since the list of
/// members is one message.
pub const MAX_RESPONSE_LEN: usize = 16 * 1024 * 1024;

/// Longest path, in bytes. The longest one in use is `/members/` and an identifier.
pub const MAX_PATH_LEN: usize = 256;

/// Longest error message that a client keeps, in bytes.
pub const MAX_MESSAGE_LEN: usize = 1024;

/// Segments of a path; the remainder stays in the last one (specification 03 §1.5).
pub const MAX_PATH_SEGMENTS: usize = 5;

/// Message of the 400 that answers a path or method that the service does not have.
pub const UNKNOWN_PATH: &str = "unknown path";

/// Message of the 400 that answers a request which did not come through a secure channel.
pub const SECURE_CHANNEL_REQUIRED: &str = "secure channel required";

/// Splits a path as most services do: all leading `/` away, then at most [`MAX_PATH_SEGMENTS`] pieces.
pub fn segments(path: &str) -> Vec<&str> {
    path.trim_start_matches('/')
        .splitn(MAX_PATH_SEGMENTS, '/')
        .collect()
}

/// The bytes inside the outer length. Whatever follows them is ignored, as every peer does.
fn unwrap_data(payload: &[u8]) -> Result<&[u8], String> {
    bare::Reader::new(payload).data().map_err(|e| e.to_string())
}

fn wrap_data(header: &[u8], body: &[u8]) -> Vec<u8> {
    let len = header.len() + body.len();
    let mut payload = Vec::with_capacity(bare::MAX_VARINT + len);
    bare::put_uint(&mut payload, len as u64);
    payload.extend_from_slice(header);
    payload.extend_from_slice(body);
    payload
}

/// A request header that cannot be used, with what was readable of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MalformedHeader {
    id: u32,
    has_id: bool,
    path: Option<String>,
    method: Option<Method>,
    reason: &'static str,
}

/// A request that cannot be used. It can still be answered: see [`MalformedRequest::answer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: {reason}")]
pub struct MalformedRequest {
    header: MalformedHeader,
    reason: String,
}

impl MalformedRequest {
    /// The 400 for this request. Its `re` is the request's id if that was readable, else 0.
    pub fn answer(&self) -> Response {
        Response::failure(
            self.header.id,
            Status::BadRequest,
            ErrorBody {
                path: self.header.path.clone(),
                method: self.header.method,
                message: Some(self.to_string()),
            },
        )
    }
}

/// A request: header and body.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The header.
    pub header: RequestHeader,
    /// The body, empty if there is none. Secret where a one-time code is in it: not shown by `Debug`.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("header", &self.header)
            .field("body_len", &self.body.len())
            .finish()
    }
}

impl Request {
    /// A request without body. `id` should be random and not 0.
    pub fn new(id: u32, method: Method, path: impl Into<String>) -> Self {
        Self {
            header: RequestHeader {
                id,
                path: path.into(),
                method: Some(method),
                has_body: false,
            },
            body: Vec::new(),
        }
    }

    /// The same request with a body.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Self {
        self.header.has_body = true;
        self.body = body;
        self
    }

    /// The payload to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(16 + self.header.path.len());
        self.header.encode(&mut header);
        wrap_data(&header, if self.header.has_body { &self.body } else { &[] })
    }

    /// Reads a payload. A body flagged as absent is ignored; one flagged as present may be empty.
    ///
    /// # Errors
    /// [`MalformedRequest`], which carries the answer to give.
    pub fn decode(payload: &[u8]) -> Result<Self, MalformedRequest> {
        let malformed = |reason: String| MalformedRequest {
            header: MalformedHeader::default(),
            reason,
        };
        if payload.len() > MAX_REQUEST_LEN {
            return Err(malformed(format!("more than {MAX_REQUEST_LEN} bytes")));
        }
        let data = unwrap_data(payload).map_err(malformed)?;
        let (header, rest) = RequestHeader::decode(data).map_err(|header| MalformedRequest {
            reason: header.reason.to_owned(),
            header,
        })?;
        let body = if header.has_body {
            rest.to_vec()
        } else {
            Vec::new()
        };
        Ok(Self { header, body })
    }

    /// A success without body.
    pub fn ok(&self) -> Response {
        Response {
            re: self.header.id,
            status: Some(Status::Ok),
            body: None,
        }
    }

    /// A success with a body.
    pub fn ok_with(&self, body: Vec<u8>) -> Response {
        Response {
            re: self.header.id,
            status: Some(Status::Ok),
            body: Some(body),
        }
    }

    /// A failure that repeats the request's path and method, as stock servers do.
    pub fn refuse(&self, status: Status, message: impl Into<String>) -> Response {
        Response::failure(
            self.header.id,
            status,
            ErrorBody {
                path: Some(self.header.path.clone()),
                method: self.header.method,
                message: Some(message.into()),
            },
        )
    }
}

/// A response: what the service answers.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Id of the request.
    pub re: u32,
    /// Status; `None` on decoding counts as a failure.
    pub status: Option<Status>,
    /// Body. Secret where a one-time code is in it: not shown by `Debug`.
    pub body: Option<Vec<u8>>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("re", &self.re)
            .field("status", &self.status)
            .field("body_len", &self.body.as_ref().map(Vec::len))
            .finish()
    }
}

impl Response {
    /// A failure.
    pub fn failure(re: u32, status: Status, error: ErrorBody) -> Self {
        let mut body = Vec::new();
        error.encode(&mut body);
        Self {
            re,
            status: Some(status),
            body: Some(body),
        }
    }

    /// The 400 for a request that came over something else than a secure channel. Its `re` is 0: such a
    /// request is not read.
    pub fn secure_channel_required() -> Self {
        let message = Some(SECURE_CHANNEL_REQUIRED.to_owned());
        Self::failure(
            0,
            Status::BadRequest,
            ErrorBody {
                message,
                ..ErrorBody::default()
            },
        )
    }

    /// The payload to send. `id` should be random.
    pub fn encode(&self, id: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(24);
        ResponseHeader {
            id,
            re: self.re,
            status: self.status,
            has_body: self.body.is_some(),
        }
        .encode(&mut header);
        wrap_data(&header, self.body.as_deref().unwrap_or(&[]))
    }

    /// Reads a payload. For a success the body flag decides whether there is a body; for a failure the flag
    /// is ignored and whatever follows is the body, as stock clients do.
    ///
    /// # Errors
    /// A sentence that says what cannot be read.
    pub fn decode(payload: &[u8]) -> Result<Self, MalformedResponse> {
        if payload.len() > MAX_RESPONSE_LEN {
            return Err(MalformedResponse(format!("more than {MAX_RESPONSE_LEN} bytes")));
        }
        let data = unwrap_data(payload).map_err(MalformedResponse)?;
        let (header, rest) =
            ResponseHeader::decode(data).map_err(|reason| MalformedResponse(reason.to_owned()))?;
        let body = (header.has_body || header.status != Some(Status::Ok)).then(|| rest.to_vec());
        Ok(Self {
            re: header.re,
            status: header.status,
            body,
        })
    }

    /// The body of a success.
    ///
    /// # Errors
    /// [`Failure`] for every other response.
    pub fn into_success(self) -> Result<Option<Vec<u8>>, Failure> {
        if self.status == Some(Status::Ok) {
            return Ok(self.body);
        }
        let body = ErrorBody::decode_lenient(self.body.as_deref().unwrap_or(&[]));
        Err(Failure {
            status: self.status,
            message: body.message,
        })
    }
}

/// A response that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed response: {0}")]
pub struct MalformedResponse(String);

/// A service did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Status, if it is one of the listed ones.
    pub status: Option<Status>,
    /// The service's own words, if it had any.
    pub message: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.message, self.status) {
            (Some(message), _) if !message.is_empty() => f.write_str(message),
            (_, Some(status)) => write!(f, "the service answered {}", status.code()),
            (_, None) => f.write_str("the service answered without a known status"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text.replace([' ', '\n'], "")).expect("the vectors are hex")
    }

    fn counting_code() -> Vec<u8> {
        (0..32).collect()
    }

    /// Specification 03 §1.7, payload by payload.
    #[test]
    fn requests_and_responses_have_the_published_bytes() {
        let code = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let mut code_body = vec![0xa1, 0x01, 0x58, 0x20];
        code_body.extend(counting_code());
        let post = Request::new(1, Method::Post, "/");
        let vectors = [
            (post.encode(), "0a a4 01 01 02 61 2f 03 01 04 f4".to_owned()),
            (
                Response {
                    re: 1,
                    status: Some(Status::Ok),
                    body: None,
                }
                .encode(2),
                "0a a4 01 02 02 01 03 18c8 04 f4".to_owned(),
            ),
            (
                post.clone().with_body(code_body.clone()).encode(),
                format!("2e a4 01 01 02 61 2f 03 01 04 f5 a1 01 5820 {code}"),
            ),
            (
                post.clone().with_body(vec![0xa1, 0x01, 0xa0]).encode(),
                "0d a4 01 01 02 61 2f 03 01 04 f5  a1 01 a0".to_owned(),
            ),
            (
                post.ok_with(code_body).encode(2),
                format!("2e a4 01 02 02 01 03 18c8 04 f5 a1 01 5820 {code}"),
            ),
            (
                post.refuse(Status::Forbidden, "Already a member").encode(2),
                "23 a4 01 02 02 01 03 190193 04 f5 a3 01 61 2f 02 01 03 70 416c72656164792061206d656d626572"
                    .to_owned(),
            ),
        ];
        for (encoded, vector) in vectors {
            assert_eq!(hex::encode(&encoded), hex::encode(unhex(&vector)), "{vector}");
        }
    }

    #[test]
    fn the_published_bytes_are_read_back() {
        let request =
            Request::decode(&unhex("0a a4 01 01 02 61 2f 03 01 04 f4")).expect("a published vector");
        assert_eq!(request, Request::new(1, Method::Post, "/"));
        let refused = Response::decode(&unhex(
            "23 a4 01 02 02 01 03 190193 04 f5 a3 01 61 2f 02 01 03 70 416c72656164792061206d656d626572",
        ))
        .expect("a published vector");
        let failure = refused.into_success().expect_err("status 403");
        assert_eq!(
            failure,
            Failure {
                status: Some(Status::Forbidden),
                message: Some("Already a member".into())
            }
        );
        let done = Response::decode(&unhex("0a a4 01 02 02 01 03 18c8 04 f4")).expect("a published vector");
        assert_eq!(done.into_success(), Ok(None));
    }

    #[test]
    fn what_stock_servers_tolerate_is_tolerated() {
        let cases = [
            "0c a5 00 07 01 01 02 61 2f 03 01 04 f4",      // key 0
            "0b bf 01 01 02 61 2f 03 01 04 f4 ff",         // indefinite length
            "0a a4 01 00 02 61 2f 03 01 04 f4",            // id 0
            "0a a4 01 01 02 61 2f 03 f6 04 f4",            // null method
            "08 a3 01 01 02 61 2f 04 f4",                  // no method
            "0a a4 01 01 02 61 2f 03 09 04 f4",            // a method that nobody knows
            "0d a5 01 01 02 61 2f 03 01 04 f4 18 63 80",   // an unknown field
            "10 a3 01 1b 0000000000000001 02 61 2f 04 f4", // a wide integer
        ];
        for case in cases {
            let request = Request::decode(&unhex(case)).expect(case);
            assert_eq!(request.header.path, "/", "{case}");
        }
    }

    #[test]
    fn a_malformed_request_has_an_answer_that_names_it() {
        let cases = [
            ("", 0),
            ("05 a4", 0),
            ("01 80", 0),                              // an array
            ("0e a4 01 1b 0000000100000000 02 61", 0), // an id of more than 32 bits
            ("08 a3 01 07 02 61 2f 03 01", 7),         // no body flag
            ("04 a2 01 07 02", 7),                     // cut off
        ];
        for (case, re) in cases {
            let answer = Request::decode(&unhex(case)).expect_err(case).answer();
            assert_eq!(
                (answer.re, answer.status),
                (re, Some(Status::BadRequest)),
                "{case}"
            );
            let failure = answer.into_success().expect_err("400");
            assert!(
                failure.to_string().starts_with("malformed request: "),
                "{failure}"
            );
        }
    }

    #[test]
    fn the_body_flag_decides_for_a_success_and_is_ignored_for_a_failure() {
        let silent = Response::decode(&unhex("0c a4 01 02 02 01 03 18c8 04 f4 61 61")).expect("a header");
        assert_eq!(silent.into_success(), Ok(None));
        let refused = Response::decode(&unhex("0d a4 01 02 02 01 03 190193 04 f4 61 61")).expect("a header");
        assert_eq!(
            refused.into_success().expect_err("403").message.as_deref(),
            Some("a")
        );
        let unlisted = Response::decode(&unhex("0a a4 01 02 02 01 03 18c9 04 f4")).expect("a header");
        assert_eq!(unlisted.status, None);
        assert!(unlisted.into_success().is_err());
    }

    #[test]
    fn an_oversized_request_is_refused_unread() {
        let big = Request::new(9, Method::Post, "/")
            .with_body(vec![0; MAX_REQUEST_LEN])
            .encode();
        let answer = Request::decode(&big).expect_err("too large").answer();
        assert_eq!((answer.re, answer.status), (0, Some(Status::BadRequest)));
        let path = Request::new(9, Method::Get, "/".repeat(MAX_PATH_LEN + 1)).encode();
        assert_eq!(Request::decode(&path).expect_err("too long").answer().re, 9);
    }

    #[test]
    fn paths_are_split_as_stock_services_split_them() {
        assert_eq!(segments(""), [""]);
        assert_eq!(segments("//"), [""]);
        assert_eq!(segments("/members/"), ["members", ""]);
        assert_eq!(segments("members/I1"), ["members", "I1"]);
        assert_eq!(segments("/a/b/c/d/e/f"), ["a", "b", "c", "d", "e/f"]);
    }

    #[test]
    fn bodies_are_not_shown() {
        let request = Request::new(1, Method::Post, "/").with_body(vec![0x41; 32]);
        assert!(!format!("{request:?}").contains("65, 65"));
        assert!(!format!("{:?}", request.ok_with(vec![0x41; 32])).contains("65, 65"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_either_a_request_or_get_an_answer(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            if let Err(malformed) = Request::decode(&bytes) {
                assert_eq!(malformed.answer().status, Some(Status::BadRequest));
            }
            let _ = Response::decode(&bytes).map(Response::into_success);
        }

        #[test]
        fn a_request_survives_the_wire(id in 1u32.., path in "[a-z/]{0,40}", body in proptest::option::of(proptest::collection::vec(0u8.., 0..300))) {
            let mut request = Request::new(id, Method::Post, path);
            if let Some(body) = body {
                request = request.with_body(body);
            }
            assert_eq!(Request::decode(&request.encode()).expect("well-formed"), request);
        }
    }
}
