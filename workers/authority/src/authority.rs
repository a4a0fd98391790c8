//! The authority itself: every operation with its rules, as plain functions of caller, request and time.
//!
//! Each operation is one transaction, so the right that allows it and the records that it changes are read in
//! the state that it writes. Nothing here knows of messages or workers; [`crate::services`] does.

use parking_lot::Mutex;
use portolan_identity::Identifier;
use tokio::sync::watch;

use crate::attributes::MemberAttributes;
use crate::code::{CodeHash, OneTimeCode};
use crate::guesses::Guesses;
use crate::protocol::{AttributesEntry, CreateToken, MAX_REMOVALS, Removal, Removals, RemovalsQuestion};
use crate::refusal::Refusal;
use crate::rules::{Caller, Rights, RoleSettings};
use crate::store::{
    MAX_MEMBERS, MAX_OPEN_TOKENS, Member, Revocation, Store, StoreError, Token, TokenState, Tx,
};

/// Seconds that a code lives unless its issuer says otherwise.
pub const DEFAULT_TOKEN_TTL: u64 = 600;

/// Longest life of a code, in seconds: 90 days. The reference has no maximum.
pub const MAX_TOKEN_TTL: u64 = 90 * 24 * 3600;

/// Most identities that one code can admit. The reference has no maximum.
pub const MAX_TOKEN_USES: u64 = 100_000;

/// Bytes of the answer that lists all members. Beyond it the list of identifiers has to do.
const MAX_LIST_LEN: usize = 8 * 1024 * 1024;

/// Tokens between two rounds of forgetting old ones.
const FORGET_EVERY: u64 = 256;

/// An authority over a store.
#[derive(Debug)]
pub struct Authority {
    store: Store,
    roles: RoleSettings,
    guesses: Mutex<Guesses>,
    /// The number of the newest removal, for those who wait for one. A hint: the store knows.
    removed: watch::Sender<i64>,
}

/// What a new member got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The attributes that will be in its credential.
    pub attributes: MemberAttributes,
    /// Who issued the code.
    pub issued_by: Identifier,
}

impl Authority {
    /// An authority that keeps its records in `store`.
    pub fn new(store: Store, roles: RoleSettings) -> Self {
        Self {
            store,
            roles,
            guesses: Mutex::default(),
            removed: watch::channel(0).0,
        }
    }

    /// The authority's identifier.
    pub fn identifier(&self) -> &Identifier {
        self.store.authority()
    }

    /// How strict it is about administrators.
    pub fn roles(&self) -> RoleSettings {
        self.roles
    }

    /// Replaces the members that come from the authority's configuration (§4.9): those no longer listed are
    /// removed, all others are as listed. Call it at every start.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_pre_trusted(
        &self,
        members: impl IntoIterator<Item = (Identifier, MemberAttributes)>,
        now: u64,
    ) -> Result<(), StoreError> {
        let authority = *self.identifier();
        self.store.write(|tx| {
            let mut unlisted = Vec::new();
            tx.each_member::<StoreError>(|member| {
                if member.pre_trusted {
                    unlisted.push(member.identifier);
                }
                Ok(())
            })?;
            for (identifier, attributes) in members {
                unlisted.retain(|id| *id != identifier);
                let known = tx
                    .member(&identifier)?
                    .filter(|m| m.pre_trusted && m.attributes == attributes);
                if known.is_none() {
                    if !attributes.is_enroller() {
                        tx.cancel_tokens_of(&identifier)?;
                    }
                    tx.put_member(&Member {
                        identifier,
                        attributes,
                        added_by: authority,
                        added_at: now,
                        pre_trusted: true,
                    })?;
                }
            }
            for identifier in unlisted {
                remove(tx, &identifier, &authority, now)?;
            }
            Ok::<_, StoreError>(())
        })?;
        self.look_for_removals()
    }

    /// What `caller` is allowed.
    ///
    /// # Errors
    /// [`Refusal::Store`].
    pub fn rights(&self, caller: &Caller) -> Result<Rights, Refusal> {
        self.store.read(|tx| self.rights_in(tx, caller))
    }

    fn rights_in(&self, tx: &Tx<'_>, caller: &Caller) -> Result<Rights, Refusal> {
        Ok(Rights::of(
            caller,
            tx.member(&caller.identifier)?.as_ref(),
            self.roles,
        ))
    }

    /// Creates a one-time code (§4.3).
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller; grants a role without being administrator; life or count out of range;
    /// too many codes.
    pub fn create_token(
        &self,
        caller: &Caller,
        request: CreateToken,
        now: u64,
    ) -> Result<OneTimeCode, Refusal> {
        const WHAT: &str = "create enrollment tickets";
        let ttl = request.ttl.unwrap_or(DEFAULT_TOKEN_TTL);
        let uses = request.uses.unwrap_or(1).max(1);
        if !(1..=MAX_TOKEN_TTL).contains(&ttl) {
            return Err(Refusal::BadRequest(format!(
                "a ticket lives 1 to {MAX_TOKEN_TTL} s, not {ttl}"
            )));
        }
        if uses > MAX_TOKEN_USES {
            return Err(Refusal::BadRequest(format!(
                "a ticket admits at most {MAX_TOKEN_USES} identities, not {uses}"
            )));
        }
        let code = OneTimeCode::random().map_err(|error| {
            tracing::error!(%error, "no randomness for a one-time code");
            Refusal::Internal("draw a one-time code")
        })?;
        let token = Token {
            hash: code.hash(),
            serial: 0,
            issued_by: caller.identifier,
            created_at: now,
            expires_at: now.saturating_add(ttl),
            uses,
            uses_left: uses,
            state: TokenState::Open,
            attributes: request.attributes,
        };
        self.store.write(|tx| {
            let rights = self.rights_in(tx, caller)?;
            rights.need_enroller(WHAT)?;
            rights.may_grant(&token.attributes)?;
            if tx.count_open_tokens(now)? >= MAX_OPEN_TOKENS {
                return Err(Refusal::Full(
                    "too many tickets can still be redeemed; wait until some have expired or cancel them",
                ));
            }
            if tx.insert_token(&token)?.is_multiple_of(FORGET_EVERY) {
                tx.forget_old_tokens(now)?;
            }
            Ok(())
        })?;
        tracing::info!(
            caller = %caller.identifier, reference = token.hash.reference(), expires_at = token.expires_at, uses,
            "enrollment ticket created"
        );
        Ok(code)
    }

    /// Codes that can be redeemed at `now`, oldest first.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller.
    pub fn open_tokens(&self, caller: &Caller, now: u64) -> Result<Vec<Token>, Refusal> {
        self.store.read(|tx| {
            self.rights_in(tx, caller)?
                .need_enroller("list enrollment tickets")?;
            Ok(tx.open_tokens(now)?)
        })
    }

    /// Ends a code before its time. Says whether it could still be redeemed.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller.
    pub fn cancel_token(&self, caller: &Caller, hash: &CodeHash) -> Result<bool, Refusal> {
        self.store.write(|tx| {
            self.rights_in(tx, caller)?
                .need_enroller("cancel enrollment tickets")?;
            Ok(tx.cancel_token(hash)?)
        })
    }

    /// Redeems a one-time code: the caller becomes a member (§4.4).
    ///
    /// # Errors
    /// [`Refusal`]: already a member (the code is not consumed); unknown, expired, used-up or cancelled code;
    /// removed after the code was made; too many wrong codes; too many members.
    pub fn redeem(&self, caller: &Caller, code: &OneTimeCode, now: u64) -> Result<Admission, Refusal> {
        let peer = &caller.identifier;
        let hash = code.hash();
        let result = self.redeem_hash(peer, &hash, now);
        match &result {
            Ok(admission) => {
                self.guesses.lock().forget(peer);
                let (reference, issued_by) = (hash.reference(), admission.issued_by);
                tracing::info!(caller = %peer, reference, %issued_by, "enrolled");
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::UnknownCode) {
                    self.guesses.lock().count(peer, now);
                }
                tracing::info!(caller = %peer, reference = hash.reference(), %refusal, "not enrolled");
            }
        }
        result
    }

    fn redeem_hash(&self, peer: &Identifier, hash: &CodeHash, now: u64) -> Result<Admission, Refusal> {
        // Who guesses does not even get the writer's lock.
        if let Some(wait) = self.guesses.lock().wait(peer, now) {
            return Err(Refusal::TooManyAttempts { wait });
        }
        self.store.write(|tx| {
            if tx.member(peer)?.is_some() {
                return Err(Refusal::AlreadyMember);
            }
            let token = tx.token(hash)?.ok_or(Refusal::UnknownCode)?;
            match token.state {
                TokenState::UsedUp => return Err(Refusal::UsedCode),
                TokenState::Cancelled => return Err(Refusal::CancelledCode),
                TokenState::Open if now >= token.expires_at => return Err(Refusal::ExpiredCode),
                TokenState::Open => {}
            }
            if tx
                .revocation(peer)?
                .is_some_and(|removed| removed.serial > token.serial)
            {
                return Err(Refusal::RemovedMember);
            }
            if tx.count_members()? >= MAX_MEMBERS {
                return Err(Refusal::Full("the project has as many members as it can have"));
            }
            if !tx.use_token(hash, now)? {
                return Err(Refusal::UsedCode);
            }
            tx.put_member(&Member {
                identifier: *peer,
                attributes: token.attributes.clone(),
                added_by: token.issued_by,
                added_at: now,
                pre_trusted: false,
            })?;
            Ok(Admission {
                attributes: token.attributes,
                issued_by: token.issued_by,
            })
        })
    }

    /// Adds a member, or replaces its attributes (§4.6).
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller; makes or changes an enroller without being administrator; the record is
    /// pre-trusted; too many members.
    pub fn add_member(
        &self,
        caller: &Caller,
        member: &Identifier,
        attributes: MemberAttributes,
        now: u64,
    ) -> Result<(), Refusal> {
        self.store.write(|tx| {
            let rights = self.rights_in(tx, caller)?;
            rights.need_enroller("add members")?;
            rights.may_grant(&attributes)?;
            match tx.member(member)? {
                Some(known) => {
                    rights.may_change(&known)?;
                    if known.attributes.is_enroller() && !attributes.is_enroller() {
                        tx.cancel_tokens_of(member)?;
                    }
                }
                None if tx.count_members()? >= MAX_MEMBERS => {
                    return Err(Refusal::Full("the project has as many members as it can have"));
                }
                None => {}
            }
            tx.put_member(&Member {
                identifier: *member,
                attributes,
                added_by: caller.identifier,
                added_at: now,
                pre_trusted: false,
            })?;
            Ok(())
        })?;
        tracing::info!(caller = %caller.identifier, %member, "member added");
        Ok(())
    }

    /// Removes a member, ends the codes that it issued and records the removal. An unknown member is a
    /// success, as in the reference. Says whether there was one.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller; the member is pre-trusted, or an enroller and the caller not an
    /// administrator.
    pub fn delete_member(&self, caller: &Caller, member: &Identifier, now: u64) -> Result<bool, Refusal> {
        let removed = self.store.write(|tx| {
            let rights = self.rights_in(tx, caller)?;
            rights.need_enroller("remove members")?;
            let Some(known) = tx.member(member)? else {
                return Ok(false);
            };
            rights.may_change(&known)?;
            remove(tx, member, &caller.identifier, now)?;
            Ok::<_, Refusal>(true)
        })?;
        if removed {
            tracing::info!(caller = %caller.identifier, %member, "member removed");
            self.tell_of_removals();
        }
        Ok(removed)
    }

    /// Removes every member that the caller may remove, except the caller. Returns how many were removed.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller.
    pub fn delete_all_members(&self, caller: &Caller, now: u64) -> Result<usize, Refusal> {
        let removed = self.store.write(|tx| {
            let rights = self.rights_in(tx, caller)?;
            rights.need_enroller("remove members")?;
            let mut removable = Vec::new();
            tx.each_member::<Refusal>(|member| {
                if member.identifier != caller.identifier && rights.may_change(&member).is_ok() {
                    removable.push(member.identifier);
                }
                Ok(())
            })?;
            for member in &removable {
                remove(tx, member, &caller.identifier, now)?;
            }
            Ok::<_, Refusal>(removable.len())
        })?;
        tracing::info!(caller = %caller.identifier, removed, "members removed");
        self.tell_of_removals();
        Ok(removed)
    }

    /// One member, for an enroller (§4.6).
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller; [`Refusal::MemberNotFound`].
    pub fn show_member(&self, caller: &Caller, member: &Identifier) -> Result<Member, Refusal> {
        self.store.read(|tx| {
            self.rights_in(tx, caller)?.need_enroller("look at members")?;
            tx.member(member)?.ok_or(Refusal::MemberNotFound(*member))
        })
    }

    /// Identifiers of all members, for an enroller.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller.
    pub fn member_ids(&self, caller: &Caller) -> Result<Vec<Identifier>, Refusal> {
        self.store.read(|tx| {
            self.rights_in(tx, caller)?.need_enroller("list members")?;
            Ok(tx.member_ids()?)
        })
    }

    /// All members, for an enroller.
    ///
    /// # Errors
    /// [`Refusal`]: not an enroller; the list does not fit an answer.
    pub fn members(&self, caller: &Caller) -> Result<Vec<Member>, Refusal> {
        self.store.read(|tx| {
            self.rights_in(tx, caller)?.need_enroller("list members")?;
            let (mut members, mut size) = (Vec::new(), 0);
            tx.each_member(|member| {
                // Names and values are written as arrays of integers, of up to two bytes each.
                let bytes = member
                    .attributes
                    .iter()
                    .map(|(name, value)| 2 * (name.len() + value.len()) + 10);
                size += 96 + bytes.sum::<usize>();
                if size > MAX_LIST_LEN {
                    return Err(Refusal::Full(
                        "the members do not fit one answer; list their identifiers instead",
                    ));
                }
                members.push(member);
                Ok(())
            })?;
            Ok(members)
        })
    }

    /// The record of a member that is about to get a credential, and how that is dated: `now`, or a second after its last removal.
    /// The date is kept first, so that a removal voids the credential even if the clock is set back in between.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prepare_credential(
        &self,
        member: &Identifier,
        now: u64,
    ) -> Result<Option<(Member, u64)>, StoreError> {
        self.store.write(|tx| {
            let Some(record) = tx.member(member)? else {
                return Ok(None);
            };
            let created_at = issue_time(tx.revocation(member)?.as_ref(), now);
            tx.note_issued(member, created_at)?;
            Ok(Some((record, created_at)))
        })
    }

    /// Removals after the one numbered `serial`, oldest first, at most `limit`: for telling them to nodes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revocations_after(&self, serial: i64, limit: u32) -> Result<Vec<Revocation>, StoreError> {
        self.store.read(|tx| tx.revocations_after(serial, limit))
    }

    /// Looks whether there are removals of which those who wait have not been told. Removals by this value are noticed at once;
    /// this is for those that another process has written to the same database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn look_for_removals(&self) -> Result<(), StoreError> {
        let last = self.store.read(|tx| tx.last_revocation())?;
        self.removed.send_if_modified(|known| {
            let newer = last > *known;
            *known = last.max(*known);
            newer
        });
        Ok(())
    }

    /// The removal is in the store, whatever happens here.
    fn tell_of_removals(&self) {
        if let Err(error) = self.look_for_removals() {
            tracing::error!(%error, "members cannot be told of a removal yet");
        }
    }

    /// Which members were removed, for a member.
    ///
    /// Somebody whose last number is larger than any that there is has known another database, such as one that was
    /// restored since; it is told from the beginning.
    ///
    /// # Errors
    /// [`Refusal::UnauthorizedMember`].
    pub fn removals(&self, caller: &Caller, question: &RemovalsQuestion) -> Result<Removals, Refusal> {
        self.store.read(|tx| {
            self.need_member(tx, caller)?;
            let newest = tx.last_revocation()?;
            let after = i64::try_from(question.after)
                .ok()
                .filter(|after| *after <= newest);
            let mut found = tx.revocations_after(after.unwrap_or(0), MAX_REMOVALS as u32 + 1)?;
            let more = found.len() > MAX_REMOVALS;
            found.truncate(MAX_REMOVALS);
            let last = found.last().map_or(newest, |last| last.serial);
            Ok(Removals {
                last: u64::try_from(last).unwrap_or(0),
                removals: found
                    .iter()
                    .map(|removed| Removal {
                        member: removed.member,
                        removed_at: removed.revoked_at,
                    })
                    .collect(),
                more,
            })
        })
    }

    /// What to wait for before [`removals`](Self::removals) is asked again; `None` if there is something to tell already.
    ///
    /// # Errors
    /// [`Refusal::UnauthorizedMember`]: nobody else may wait here.
    pub fn wait_for_removals(
        &self,
        caller: &Caller,
        question: &RemovalsQuestion,
    ) -> Result<Option<watch::Receiver<i64>>, Refusal> {
        // Before the store is read: a removal in between wakes whoever waits.
        let mut removed = self.removed.subscribe();
        removed.mark_unchanged();
        self.store.read(|tx| {
            self.need_member(tx, caller)?;
            let newest = u64::try_from(tx.last_revocation()?).unwrap_or(0);
            Ok((newest == question.after).then_some(removed))
        })
    }

    /// Those of the names that no member and no open code has as an attribute, for a member: whoever writes a policy wants to
    /// know that nobody can fulfil it.
    ///
    /// # Errors
    /// [`Refusal::UnauthorizedMember`].
    pub fn unknown_attributes(
        &self,
        caller: &Caller,
        mut names: Vec<String>,
        now: u64,
    ) -> Result<Vec<String>, Refusal> {
        self.store.read(|tx| {
            self.need_member(tx, caller)?;
            for token in tx.open_tokens(now)? {
                names.retain(|name| token.attributes.iter().all(|(known, _)| known != name));
            }
            tx.each_member::<Refusal>(|member| {
                names.retain(|name| member.attributes.iter().all(|(known, _)| known != name));
                Ok(())
            })?;
            Ok(names)
        })
    }

    fn need_member(&self, tx: &Tx<'_>, caller: &Caller) -> Result<(), Refusal> {
        match tx.member(&caller.identifier)? {
            Some(_) => Ok(()),
            None => Err(Refusal::UnauthorizedMember),
        }
    }
}

/// Credentials of the second in which a member was removed, and earlier ones, are void. One that joined again
/// within that second gets a credential of the next; verifiers accept a minute of the future.
fn issue_time(removed: Option<&Revocation>, now: u64) -> u64 {
    match removed {
        Some(removed) if now <= removed.revoked_at => removed.revoked_at.saturating_add(1),
        _ => now,
    }
}

fn remove(tx: &Tx<'_>, member: &Identifier, by: &Identifier, now: u64) -> Result<(), StoreError> {
    if tx.remove_member(member)? {
        tx.cancel_tokens_of(member)?;
        tx.put_revocation(member, by, now)?;
    }
    Ok(())
}

impl Member {
    /// The record as the wire has it.
    pub fn to_entry(&self) -> AttributesEntry {
        AttributesEntry {
            attributes: self
                .attributes
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            added_at: self.added_at,
            expires_at: None,
            attested_by: Some(self.added_by),
        }
    }
}
