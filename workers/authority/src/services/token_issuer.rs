//! `enrollment_token_issuer`: creates one-time codes (specification 03 §4.3).

use super::Services;
use super::endpoint::{Service, unknown_path};
use crate::api::{Method, Request, Response};
use crate::protocol::{CreateToken, encode_code};
use crate::refusal::Refusal;
use crate::rules::Caller;

pub(super) struct TokenIssuer;

impl Service for TokenIssuer {
    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal> {
        // The raw path, not its segments: `""` and `"tokens"` are unknown (§1.5).
        match (request.header.method, request.header.path.as_str()) {
            (Some(Method::Post), "/" | "/tokens") => {
                let token = CreateToken::decode(&request.body)?;
                let code = services.authority.create_token(caller, token, now)?;
                Ok(request.ok_with(encode_code(&code)))
            }
            _ => Err(unknown_path()),
        }
    }
}
