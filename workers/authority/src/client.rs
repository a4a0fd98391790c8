//! Asking an authority, as the node behind a secure channel to it.
//!
//! The caller has opened a channel to the authority and knows that the right identity answered; it gives a
//! [`Context`] and the route into the channel, which is the channel's encryptor. One channel can carry any
//! number of requests. (A stock client opens one for each.)

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::Decoder;
use portolan_identity::{CredentialAndPurposeKey, CredentialError, Identifier, Identity};
use portolan_runtime::{Address, Context, Error, Route, Routed};

use crate::api::{Failure, MalformedResponse, Method, Request, Response};
use crate::attributes::MemberAttributes;
use crate::code::OneTimeCode;
use crate::protocol::{
    AddMember, AttributesEntry, BodyError, CREDENTIAL_ISSUER, CreateToken, DIRECT_AUTHENTICATOR,
    MEMBER_SERVICE, Removals, RemovalsQuestion, TOKEN_ACCEPTOR, TOKEN_ISSUER, decode_code, decode_member_ids,
    decode_members, decode_names, encode_code, encode_names,
};
use crate::refusal::{CodeRefusal, is_already_member};

/// How long one request waits for its answer unless told otherwise. (A stock client: 120 s, since a stock
/// authority may never answer.)
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to an authority failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be sent, or nobody answered.
    #[error("the authority does not answer: {0}")]
    Unreachable(#[from] Error),
    /// The authority said no. `Display` is its own sentence.
    #[error("{0}")]
    Refused(Failure),
    /// The code of the ticket was refused.
    #[error("{failure}")]
    Code {
        /// Why, as far as our own authority says.
        reason: CodeRefusal,
        /// The authority's answer.
        failure: Failure,
    },
    /// The answer cannot be read.
    #[error("the authority sent {0}")]
    Malformed(String),
    /// The credential in the answer is not good.
    #[error("the authority sent a credential that cannot be used: {0}")]
    Credential(#[from] CredentialError),
}

impl From<MalformedResponse> for ClientError {
    fn from(error: MalformedResponse) -> Self {
        Self::Malformed(format!("a {error}"))
    }
}

impl From<BodyError> for ClientError {
    fn from(error: BodyError) -> Self {
        Self::Malformed(format!("something unexpected: {error}"))
    }
}

/// How an enrollment ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrollment {
    /// The code was redeemed.
    Enrolled,
    /// The identity was a member before; the code was not consumed.
    AlreadyMember,
}

/// A client of one authority.
#[derive(Debug)]
pub struct AuthorityClient<'a> {
    ctx: &'a Context,
    channel: Route,
    timeout: Duration,
}

impl<'a> AuthorityClient<'a> {
    /// A client that sends into `channel`: the address of the encryptor of a secure channel whose other end
    /// is known to be the authority, or a longer route that starts with it.
    pub fn new(ctx: &'a Context, channel: impl Into<Route>) -> Self {
        Self {
            ctx,
            channel: channel.into(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// The same client with another limit for each request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks for a one-time code. The caller must be an enroller.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_token(&self, token: &CreateToken) -> Result<OneTimeCode, ClientError> {
        let body = self
            .ask(TOKEN_ISSUER, Method::Post, "/", Some(token.encode()))
            .await?;
        Ok(decode_code(&expect_body(body)?)?)
    }

    /// Redeems a one-time code. Asking again with the same identity is a success.
    ///
    /// # Errors
    /// [`ClientError::Code`] says what is wrong with the code.
    pub async fn redeem(&self, code: &OneTimeCode) -> Result<Enrollment, ClientError> {
        match self
            .ask(TOKEN_ACCEPTOR, Method::Post, "/", Some(encode_code(code)))
            .await
        {
            Ok(_) => Ok(Enrollment::Enrolled),
            Err(ClientError::Refused(failure)) if is_already_member(&failure) => {
                Ok(Enrollment::AlreadyMember)
            }
            Err(ClientError::Refused(failure)) => Err(match CodeRefusal::of_failure(&failure) {
                Some(reason) => ClientError::Code { reason, failure },
                None => ClientError::Refused(failure),
            }),
            Err(error) => Err(error),
        }
    }

    /// Fetches the caller's credential and verifies it: that `authority` issued it about `subject` and that
    /// it holds at `now`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn credential(
        &self,
        subject: &Identifier,
        authority: &Identity,
        now: u64,
    ) -> Result<CredentialAndPurposeKey, ClientError> {
        let body = expect_body(self.ask(CREDENTIAL_ISSUER, Method::Post, "/", None).await?)?;
        let credential = CredentialAndPurposeKey::decode(&body)
            .map_err(|e| ClientError::Malformed(format!("no credential: {e}")))?;
        credential.verify(Some(subject), std::slice::from_ref(authority), now)?;
        Ok(credential)
    }

    /// All members. The caller must be an enroller, as for everything below.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn members(&self) -> Result<BTreeMap<Identifier, AttributesEntry>, ClientError> {
        let body = self
            .ask(DIRECT_AUTHENTICATOR, Method::Get, "/members", None)
            .await?;
        Ok(decode_members(&expect_body(body)?)?)
    }

    /// The identifiers of all members.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn member_ids(&self) -> Result<Vec<Identifier>, ClientError> {
        let body = self
            .ask(DIRECT_AUTHENTICATOR, Method::Get, "/member_ids", None)
            .await?;
        Ok(decode_member_ids(&expect_body(body)?)?)
    }

    /// One member.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn member(&self, member: &Identifier) -> Result<AttributesEntry, ClientError> {
        let body = self
            .ask(
                DIRECT_AUTHENTICATOR,
                Method::Get,
                &format!("/members/{member}"),
                None,
            )
            .await?;
        Ok(AttributesEntry::decode(&mut Decoder::new(&expect_body(body)?))?)
    }

    /// Adds a member, or replaces its attributes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_member(
        &self,
        member: &Identifier,
        attributes: MemberAttributes,
    ) -> Result<(), ClientError> {
        let body = AddMember {
            member: *member,
            attributes,
        }
        .encode();
        self.ask(DIRECT_AUTHENTICATOR, Method::Post, "/members", Some(body))
            .await
            .map(drop)
    }

    /// Removes a member. One that is not there is a success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_member(&self, member: &Identifier) -> Result<(), ClientError> {
        self.ask(
            DIRECT_AUTHENTICATOR,
            Method::Delete,
            &format!("/members/{member}"),
            None,
        )
        .await
        .map(drop)
    }

    /// Removes all members that the caller may remove, except itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_all_members(&self) -> Result<(), ClientError> {
        self.ask(DIRECT_AUTHENTICATOR, Method::Delete, "/members", None)
            .await
            .map(drop)
    }

    /// Which members were removed after the one that the caller knows of; waits for one as long as the question says. Any member
    /// may ask. A stock authority does not answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn removals(&self, question: &RemovalsQuestion) -> Result<Removals, ClientError> {
        let client = AuthorityClient {
            ctx: self.ctx,
            channel: self.channel.clone(),
            timeout: self.timeout + Duration::from_secs(question.wait),
        };
        let body = client
            .ask(MEMBER_SERVICE, Method::Get, "/removals", Some(question.encode()))
            .await?;
        Ok(Removals::decode(&expect_body(body)?)?)
    }

    /// Those of the names that nobody in the project has as an attribute. Any member may ask. A stock authority does not
    /// answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unknown_attributes(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        let body = encode_names(names.iter().copied());
        let answer = self
            .ask(MEMBER_SERVICE, Method::Get, "/unknown_attributes", Some(body))
            .await?;
        Ok(decode_names(&expect_body(answer)?)?)
    }

    async fn ask(
        &self,
        service: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let id = getrandom::u32().unwrap_or(1).max(1);
        let mut request = Request::new(id, method, path);
        if let Some(body) = body {
            request = request.with_body(body);
        }
        let mut route = self.channel.clone();
        route.push(Address::local(service));
        let answer: Routed<Vec<u8>> = self
            .ctx
            .send_and_receive_within(self.timeout, route, request.encode())
            .await?;
        let response = Response::decode(answer.payload())?;
        let re = response.re;
        let result = response.into_success();
        // An error may be about a request whose id could not be read.
        if re != id && !(re == 0 && result.is_err()) {
            return Err(ClientError::Malformed("an answer to another request".to_owned()));
        }
        result.map_err(ClientError::Refused)
    }
}

fn expect_body(body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
    body.ok_or_else(|| ClientError::Malformed("an answer without content".to_owned()))
}
