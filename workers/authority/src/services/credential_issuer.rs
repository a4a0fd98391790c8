//! `credential_issuer`: the credential of the member that asks (specification 03 §4.5).

use super::Services;
use super::endpoint::{Service, unknown_path};
use crate::api::{Method, Request, Response};
use crate::refusal::Refusal;
use crate::rules::Caller;

pub(super) struct CredentialIssuer;

impl Service for CredentialIssuer {
    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal> {
        match (request.header.method, request.header.path.as_str()) {
            // A body is ignored.
            (Some(Method::Post), "/" | "/credential") => {
                let credential = services.issuer.issue_to(&services.authority, caller, now)?;
                Ok(request.ok_with(credential.encode()))
            }
            _ => Err(unknown_path()),
        }
    }
}
