//! Who may do what (specification 03 §4.2).

use portolan_identity::Identifier;

use crate::attributes::MemberAttributes;
use crate::refusal::Refusal;
use crate::store::Member;

/// Whoever sent a request: the authenticated peer of the channel, and nothing that the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The peer's identifier.
    pub identifier: Identifier,
    /// The peer holds an unexpired credential of the account authority that makes it an administrator of this
    /// project. Always `false` where no account authority is configured.
    pub account_admin: bool,
}

impl Caller {
    /// A caller without a credential of an account authority.
    pub fn new(identifier: Identifier) -> Self {
        Self {
            identifier,
            account_admin: false,
        }
    }
}

/// How strict an authority is about administrators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSettings {
    /// Administrators by credential exist.
    pub account_authority: bool,
    /// Being an enroller is not enough to be an administrator. With an account authority this is the
    /// reference's rule; without one, where the reference ignores the setting, the enrollers of the
    /// authority's own configuration are the administrators.
    pub enforce_admin_checks: bool,
}

/// What a caller is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// May get a credential.
    pub is_member: bool,
    /// May manage members and tickets.
    pub is_enroller: bool,
    /// May make and unmake enrollers.
    pub is_admin: bool,
}

impl Rights {
    /// Rights of a caller whose record is `member`.
    pub fn of(caller: &Caller, member: Option<&Member>, settings: RoleSettings) -> Self {
        if settings.account_authority && caller.account_admin {
            return Self {
                is_member: true,
                is_enroller: true,
                is_admin: true,
            };
        }
        let is_enroller = member.is_some_and(|m| m.attributes.is_enroller());
        let pre_trusted = member.is_some_and(|m| m.pre_trusted);
        let is_admin = match (settings.enforce_admin_checks, settings.account_authority) {
            (false, _) => is_enroller,
            (true, true) => false,
            (true, false) => is_enroller && pre_trusted,
        };
        Self {
            is_member: member.is_some(),
            is_enroller,
            is_admin,
        }
    }

    /// Passes for enrollers. `what` completes "may …".
    pub fn need_enroller(self, what: &'static str) -> Result<(), Refusal> {
        if self.is_enroller {
            Ok(())
        } else {
            Err(Refusal::NotEnroller(what))
        }
    }

    /// Passes for administrators. `what` completes "may …".
    pub fn need_admin(self, what: &'static str) -> Result<(), Refusal> {
        if self.is_admin {
            Ok(())
        } else {
            Err(Refusal::NotAdmin(what))
        }
    }

    /// Passes if these rights let their owner hand `attributes` out.
    pub fn may_grant(self, attributes: &MemberAttributes) -> Result<(), Refusal> {
        if attributes.is_enroller() {
            self.need_admin("make an enroller")
        } else {
            Ok(())
        }
    }

    /// Passes if these rights let their owner change or remove the record `target`. In the reference only
    /// removing is guarded, so that any enroller can overwrite an administrator's record.
    pub fn may_change(self, target: &Member) -> Result<(), Refusal> {
        if target.pre_trusted {
            return Err(Refusal::PreTrusted(target.identifier));
        }
        if target.attributes.is_enroller() {
            return self.need_admin("change or remove an enroller");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: &str, pre_trusted: bool) -> Member {
        let id = Identifier::from([1; 32]);
        let attributes = MemberAttributes::new([("ockam-role", role)]).expect("inside all limits");
        Member {
            identifier: id,
            attributes,
            added_by: id,
            added_at: 0,
            pre_trusted,
        }
    }

    fn rights(
        account_admin: bool,
        member: Option<&Member>,
        account_authority: bool,
        enforce: bool,
    ) -> [bool; 3] {
        let caller = Caller {
            identifier: Identifier::from([1; 32]),
            account_admin,
        };
        let settings = RoleSettings {
            account_authority,
            enforce_admin_checks: enforce,
        };
        let rights = Rights::of(&caller, member, settings);
        [rights.is_member, rights.is_enroller, rights.is_admin]
    }

    #[test]
    fn rights_are_those_of_the_table() {
        let (plain, enroller, trusted) = (
            member("x", false),
            member("enroller", false),
            member("enroller", true),
        );
        // without account authority
        assert_eq!(rights(false, None, false, false), [false, false, false]);
        assert_eq!(
            rights(true, None, false, false),
            [false, false, false],
            "a claim without an account authority"
        );
        assert_eq!(rights(false, Some(&plain), false, false), [true, false, false]);
        assert_eq!(
            rights(false, Some(&member("x", true)), false, false),
            [true, false, false],
            "pre-trusted gives no right"
        );
        assert_eq!(rights(false, Some(&enroller), false, false), [true, true, true]);
        assert_eq!(rights(false, Some(&enroller), false, true), [true, true, false]);
        assert_eq!(rights(false, Some(&trusted), false, true), [true, true, true]);
        // with account authority
        assert_eq!(rights(true, None, true, true), [true, true, true]);
        assert_eq!(rights(false, Some(&enroller), true, false), [true, true, true]);
        assert_eq!(rights(false, Some(&enroller), true, true), [true, true, false]);
        assert_eq!(rights(false, Some(&trusted), true, true), [true, true, false]);
    }

    #[test]
    fn only_the_configuration_changes_pre_trusted_records_and_only_admins_change_enrollers() {
        let all = Rights {
            is_member: true,
            is_enroller: true,
            is_admin: true,
        };
        let enroller = Rights {
            is_admin: false,
            ..all
        };
        assert!(all.may_change(&member("enroller", false)).is_ok());
        assert!(matches!(
            all.may_change(&member("x", true)),
            Err(Refusal::PreTrusted(_))
        ));
        assert!(matches!(
            enroller.may_change(&member("enroller", false)),
            Err(Refusal::NotAdmin(_))
        ));
        assert!(enroller.may_change(&member("x", false)).is_ok());
        assert!(matches!(
            enroller.may_grant(&member("enroller", false).attributes),
            Err(Refusal::NotAdmin(_))
        ));
    }
}
