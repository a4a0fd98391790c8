//! `direct_authenticator`: list, show, add and delete members (specification 03 §4.6).

use portolan_identity::Identifier;

use super::Services;
use super::endpoint::{Service, unknown_path};
use crate::api::{Method, Request, Response, segments};
use crate::protocol::{AddMember, encode_member_ids, encode_members};
use crate::refusal::Refusal;
use crate::rules::Caller;

pub(super) struct DirectAuthenticator;

impl Service for DirectAuthenticator {
    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal> {
        let authority = &services.authority;
        let Some(method) = request.header.method else {
            return Err(unknown_path());
        };
        match (method, &segments(&request.header.path)[..]) {
            (Method::Post, [""] | ["members"]) => {
                let add = AddMember::decode(&request.body)?;
                authority.add_member(caller, &add.member, add.attributes, now)?;
                Ok(request.ok())
            }
            (Method::Get, ["member_ids"]) => {
                Ok(request.ok_with(encode_member_ids(authority.member_ids(caller)?.iter())))
            }
            (Method::Get, [""] | ["members"]) => {
                let members: Vec<_> = authority
                    .members(caller)?
                    .into_iter()
                    .map(|member| (member.identifier, member.to_entry()))
                    .collect();
                Ok(request.ok_with(encode_members(members.iter().map(|(id, entry)| (id, entry)))))
            }
            (Method::Get, [id] | ["members", id]) => {
                let mut body = Vec::new();
                authority
                    .show_member(caller, &identifier(id)?)?
                    .to_entry()
                    .encode(&mut body);
                Ok(request.ok_with(body))
            }
            (Method::Delete, ["members"]) => {
                authority.delete_all_members(caller, now)?;
                Ok(request.ok())
            }
            (Method::Delete, [id] | ["members", id]) => {
                authority.delete_member(caller, &identifier(id)?, now)?;
                Ok(request.ok())
            }
            _ => Err(unknown_path()),
        }
    }
}

fn identifier(text: &str) -> Result<Identifier, Refusal> {
    text.parse()
        .map_err(|_| Refusal::BadRequest("the path does not end in an identifier".to_owned()))
}
