//! `enrollment_token_acceptor`: redeems one-time codes (specification 03 §4.4).

use super::Services;
use super::endpoint::{Service, unknown_path};
use crate::api::{Method, Request, Response};
use crate::protocol::decode_code;
use crate::refusal::Refusal;
use crate::rules::Caller;

pub(super) struct TokenAcceptor;

impl Service for TokenAcceptor {
    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal> {
        match (request.header.method, request.header.path.as_str()) {
            (Some(Method::Post), "/" | "/credential") => {
                let code = decode_code(&request.body)?;
                services.authority.redeem(caller, &code, now)?;
                Ok(request.ok())
            }
            _ => Err(unknown_path()),
        }
    }
}
