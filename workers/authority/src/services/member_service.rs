//! `member_service`: what every member may know (an extension of ours; `docs/protocol/authority.md` §8).

use tokio::sync::watch;

use super::Services;
use super::endpoint::{Patience, Service, unknown_path};
use crate::api::{Method, Request, Response, segments};
use crate::protocol::{RemovalsQuestion, decode_names, encode_names};
use crate::refusal::Refusal;
use crate::rules::Caller;

/// Members that wait for removals at a time. A node that finds no place asks again a little later, so that beyond it removals
/// are still told, in seconds.
const MAX_WAITING: usize = 8192;

pub(super) struct MemberService;

impl Service for MemberService {
    fn max_pending(&self) -> usize {
        MAX_WAITING
    }

    fn may_wait(&self, request: &Request) -> bool {
        request.header.method == Some(Method::Get) && segments(&request.header.path)[..] == ["removals"]
    }

    fn patience(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<Patience>, Refusal> {
        let question = RemovalsQuestion::decode(&request.body)?;
        if question.wait == 0 {
            return Ok(None);
        }
        let changed: Option<watch::Receiver<i64>> =
            services.authority.wait_for_removals(caller, &question)?;
        Ok(changed.map(|changed| Patience {
            changed,
            seconds: question.wait,
        }))
    }

    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal> {
        match (request.header.method, &segments(&request.header.path)[..]) {
            (Some(Method::Get), ["removals"]) => {
                let question = RemovalsQuestion::decode(&request.body)?;
                Ok(request.ok_with(services.authority.removals(caller, &question)?.encode()))
            }
            (Some(Method::Get), ["unknown_attributes"]) => {
                let names = decode_names(&request.body)?;
                let unknown = services.authority.unknown_attributes(caller, names, now)?;
                Ok(request.ok_with(encode_names(unknown.iter().map(String::as_str))))
            }
            _ => Err(unknown_path()),
        }
    }
}
