//! What an authority allows and refuses, operation by operation (specification 03 §4.2–§4.6).

use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::{Authority, MAX_TOKEN_TTL, MAX_TOKEN_USES};
use portolan_authority::code::OneTimeCode;
use portolan_authority::protocol::CreateToken;
use portolan_authority::refusal::Refusal;
use portolan_authority::rules::{Caller, RoleSettings};
use portolan_authority::store::{Store, StoreError};
use portolan_identity::Identifier;

const NOW: u64 = 1_700_000_000;

fn id(byte: u8) -> Identifier {
    Identifier::from([byte; 32])
}

fn caller(byte: u8) -> Caller {
    Caller::new(id(byte))
}

fn attributes(pairs: &[(&str, &str)]) -> MemberAttributes {
    MemberAttributes::new(pairs.iter().copied()).expect("inside all limits")
}

fn enroller() -> MemberAttributes {
    attributes(&[("ockam-role", "enroller")])
}

/// Identity 1 is the administrator from the configuration.
fn authority_with(roles: RoleSettings) -> Authority {
    let authority = Authority::new(Store::open_in_memory(id(0xa0)).expect("a store in memory"), roles);
    authority
        .set_pre_trusted([(id(1), enroller())], NOW)
        .expect("a store in memory");
    authority
}

fn authority() -> Authority {
    authority_with(RoleSettings::default())
}

fn token(pairs: &[(&str, &str)], ttl: Option<u64>, uses: Option<u64>) -> CreateToken {
    CreateToken {
        attributes: attributes(pairs),
        ttl,
        uses,
    }
}

fn new_code(authority: &Authority, ttl: Option<u64>, uses: Option<u64>) -> OneTimeCode {
    authority
        .create_token(&caller(1), token(&[("role", "client")], ttl, uses), NOW)
        .expect("an administrator")
}

#[test]
fn a_ticket_is_redeemed_only_once_and_gives_its_attributes() {
    let authority = authority();
    let code = new_code(&authority, None, None);
    let admission = authority
        .redeem(&caller(2), &code, NOW + 5)
        .expect("a fresh code");
    assert_eq!(admission.attributes.get("role"), Some("client"));
    assert!(matches!(
        authority.redeem(&caller(3), &code, NOW + 5),
        Err(Refusal::UsedCode)
    ));
    let member = authority.show_member(&caller(1), &id(2)).expect("a member");
    assert_eq!(
        (member.added_by, member.added_at, member.pre_trusted),
        (id(1), NOW + 5, false)
    );
}

#[test]
fn a_ticket_admits_as_many_as_it_says_and_zero_counts_as_one() {
    let authority = authority();
    let two = new_code(&authority, None, Some(2));
    assert!(authority.redeem(&caller(2), &two, NOW).is_ok());
    assert!(authority.redeem(&caller(3), &two, NOW).is_ok());
    assert!(matches!(
        authority.redeem(&caller(4), &two, NOW),
        Err(Refusal::UsedCode)
    ));
    let zero = new_code(&authority, None, Some(0));
    assert!(authority.redeem(&caller(5), &zero, NOW).is_ok());
    assert!(matches!(
        authority.redeem(&caller(6), &zero, NOW),
        Err(Refusal::UsedCode)
    ));
}

#[test]
fn expiry_is_exact_to_the_second_and_has_its_own_answer() {
    let authority = authority();
    let code = new_code(&authority, Some(30), Some(5));
    assert!(authority.redeem(&caller(2), &code, NOW + 29).is_ok());
    assert!(matches!(
        authority.redeem(&caller(3), &code, NOW + 30),
        Err(Refusal::ExpiredCode)
    ));
    let default = new_code(&authority, None, None);
    assert!(matches!(
        authority.redeem(&caller(3), &default, NOW + 600),
        Err(Refusal::ExpiredCode)
    ));
    assert!(authority.redeem(&caller(3), &default, NOW + 599).is_ok());
}

#[test]
fn a_member_does_not_consume_a_code() {
    let authority = authority();
    let code = new_code(&authority, None, None);
    assert!(
        matches!(
            authority.redeem(&caller(1), &code, NOW),
            Err(Refusal::AlreadyMember)
        ),
        "pre-trusted ones too"
    );
    assert!(authority.redeem(&caller(2), &code, NOW).is_ok());
    let again = authority
        .redeem(&caller(2), &code, NOW)
        .expect_err("the same identity again");
    assert_eq!(again.to_string(), "Already a member");
    assert!(matches!(again, Refusal::AlreadyMember));
    let other = new_code(&authority, None, None);
    assert!(matches!(
        authority.redeem(&caller(2), &other, NOW),
        Err(Refusal::AlreadyMember)
    ));
    assert!(authority.redeem(&caller(3), &other, NOW).is_ok());
}

#[test]
fn an_unknown_code_is_refused_and_guessing_is_slowed_down() {
    let authority = authority();
    let code = new_code(&authority, None, None);
    for n in 0..10 {
        let guess = OneTimeCode::from([n; 32]);
        assert!(matches!(
            authority.redeem(&caller(2), &guess, NOW),
            Err(Refusal::UnknownCode)
        ));
    }
    assert!(matches!(
        authority.redeem(&caller(2), &code, NOW),
        Err(Refusal::TooManyAttempts { wait: 60 })
    ));
    assert!(authority.redeem(&caller(2), &code, NOW + 60).is_ok());
}

#[test]
fn only_enrollers_create_tickets() {
    let authority = authority();
    for stranger in [7, 0xa0] {
        let refused = authority.create_token(&caller(stranger), CreateToken::default(), NOW);
        assert!(matches!(refused, Err(Refusal::NotEnroller(_))));
    }
    let code = new_code(&authority, None, None);
    authority.redeem(&caller(2), &code, NOW).expect("a fresh code");
    assert!(matches!(
        authority.create_token(&caller(2), CreateToken::default(), NOW),
        Err(Refusal::NotEnroller(_))
    ));
}

#[test]
fn an_enroller_ticket_makes_an_enroller() {
    let authority = authority();
    let code = authority
        .create_token(&caller(1), token(&[("ockam-role", "enroller")], None, None), NOW)
        .expect("admin");
    authority.redeem(&caller(2), &code, NOW).expect("a fresh code");
    assert!(
        authority
            .create_token(&caller(2), CreateToken::default(), NOW)
            .is_ok()
    );
    assert!(
        authority
            .create_token(&caller(2), token(&[("ockam-role", "enroller")], None, None), NOW)
            .is_ok()
    );
}

#[test]
fn with_admin_checks_an_enroller_makes_members_but_no_enrollers() {
    let authority = authority_with(RoleSettings {
        enforce_admin_checks: true,
        account_authority: false,
    });
    authority
        .add_member(&caller(1), &id(2), enroller(), NOW)
        .expect("the configured administrator");
    assert!(
        authority
            .create_token(&caller(2), CreateToken::default(), NOW)
            .is_ok()
    );
    let enroller_token = token(&[("ockam-role", "enroller")], None, None);
    assert!(matches!(
        authority.create_token(&caller(2), enroller_token, NOW),
        Err(Refusal::NotAdmin(_))
    ));
    assert!(matches!(
        authority.add_member(&caller(2), &id(3), enroller(), NOW),
        Err(Refusal::NotAdmin(_))
    ));
    authority
        .add_member(&caller(1), &id(3), enroller(), NOW)
        .expect("the configured administrator");
    let strip = authority.add_member(&caller(2), &id(3), attributes(&[]), NOW);
    assert!(
        matches!(strip, Err(Refusal::NotAdmin(_))),
        "an enroller strips another one's role"
    );
    assert!(matches!(
        authority.delete_member(&caller(2), &id(3), NOW),
        Err(Refusal::NotAdmin(_))
    ));
}

#[test]
fn an_administrator_by_credential_may_do_everything_and_redeem_a_code() {
    let authority = authority_with(RoleSettings {
        enforce_admin_checks: true,
        account_authority: true,
    });
    let admin = Caller {
        identifier: id(9),
        account_admin: true,
    };
    let code = authority
        .create_token(&admin, token(&[("ockam-role", "enroller")], None, None), NOW)
        .expect("an admin");
    assert!(authority.redeem(&admin, &code, NOW).is_ok());
    assert!(matches!(
        authority.create_token(&caller(9), token(&[("ockam-role", "enroller")], None, None), NOW),
        Err(Refusal::NotAdmin(_))
    ));
}

#[test]
fn life_and_count_have_limits() {
    let authority = authority();
    let create = |ttl, uses| authority.create_token(&caller(1), token(&[], ttl, uses), NOW);
    assert!(create(Some(MAX_TOKEN_TTL), Some(MAX_TOKEN_USES)).is_ok());
    for (ttl, uses) in [
        (Some(0), None),
        (Some(MAX_TOKEN_TTL + 1), None),
        (Some(u64::MAX), None),
        (None, Some(MAX_TOKEN_USES + 1)),
    ] {
        assert!(
            matches!(create(ttl, uses), Err(Refusal::BadRequest(_))),
            "{ttl:?} {uses:?}"
        );
    }
}

#[test]
fn pre_trusted_records_cannot_be_overwritten_or_deleted() {
    let authority = authority();
    authority
        .add_member(&caller(1), &id(2), enroller(), NOW)
        .expect("an administrator");
    for by in [1, 2] {
        assert!(matches!(
            authority.add_member(&caller(by), &id(1), attributes(&[]), NOW),
            Err(Refusal::PreTrusted(_))
        ));
        assert!(matches!(
            authority.delete_member(&caller(by), &id(1), NOW),
            Err(Refusal::PreTrusted(_))
        ));
    }
    assert!(
        authority
            .show_member(&caller(1), &id(1))
            .expect("still there")
            .pre_trusted
    );
}

#[test]
fn adding_is_an_upsert_and_needs_no_earlier_contact() {
    let authority = authority();
    authority
        .add_member(&caller(1), &id(2), attributes(&[("a", "1")]), NOW)
        .expect("an administrator");
    authority
        .add_member(&caller(1), &id(2), attributes(&[("b", "2")]), NOW + 1)
        .expect("an administrator");
    let member = authority.show_member(&caller(1), &id(2)).expect("a member");
    assert_eq!(
        (member.attributes, member.added_at, member.added_by),
        (attributes(&[("b", "2")]), NOW + 1, id(1))
    );
    assert!(matches!(
        authority.add_member(&caller(2), &id(3), attributes(&[]), NOW),
        Err(Refusal::NotEnroller(_))
    ));
}

#[test]
fn only_enrollers_see_members() {
    let authority = authority();
    authority
        .add_member(&caller(1), &id(2), attributes(&[]), NOW)
        .expect("an administrator");
    assert_eq!(
        authority.member_ids(&caller(1)).expect("an administrator"),
        [id(1), id(2)]
    );
    assert_eq!(authority.members(&caller(1)).expect("an administrator").len(), 2);
    for stranger in [2, 3] {
        assert!(matches!(
            authority.member_ids(&caller(stranger)),
            Err(Refusal::NotEnroller(_))
        ));
        assert!(matches!(
            authority.members(&caller(stranger)),
            Err(Refusal::NotEnroller(_))
        ));
        assert!(matches!(
            authority.show_member(&caller(stranger), &id(1)),
            Err(Refusal::NotEnroller(_))
        ));
        assert!(matches!(
            authority.open_tokens(&caller(stranger), NOW),
            Err(Refusal::NotEnroller(_))
        ));
    }
    let missing = authority
        .show_member(&caller(1), &id(8))
        .expect_err("not a member");
    assert_eq!(missing.to_string(), format!("Member {} not found", id(8)));
}

#[test]
fn deleting_an_unknown_member_is_a_success() {
    let authority = authority();
    assert!(
        !authority
            .delete_member(&caller(1), &id(8), NOW)
            .expect("an administrator")
    );
    assert!(matches!(
        authority.delete_member(&caller(8), &id(8), NOW),
        Err(Refusal::NotEnroller(_))
    ));
}

#[test]
fn deleting_all_leaves_the_caller_and_those_it_may_not_delete() {
    let authority = authority_with(RoleSettings {
        enforce_admin_checks: true,
        account_authority: false,
    });
    for n in 2..6 {
        authority
            .add_member(
                &caller(1),
                &id(n),
                if n < 4 { enroller() } else { attributes(&[]) },
                NOW,
            )
            .expect("admin");
    }
    assert_eq!(
        authority
            .delete_all_members(&caller(2), NOW)
            .expect("an enroller"),
        2
    );
    assert_eq!(
        authority.member_ids(&caller(1)).expect("admin"),
        [id(1), id(2), id(3)]
    );
    assert_eq!(authority.delete_all_members(&caller(1), NOW).expect("admin"), 2);
    assert_eq!(authority.member_ids(&caller(1)).expect("admin"), [id(1)]);
}

#[test]
fn a_removed_member_comes_back_only_with_a_newer_ticket() {
    let authority = authority();
    let old = new_code(&authority, None, Some(10));
    authority.redeem(&caller(2), &old, NOW).expect("a fresh code");
    assert!(
        authority
            .delete_member(&caller(1), &id(2), NOW)
            .expect("an administrator")
    );
    assert!(matches!(
        authority.redeem(&caller(2), &old, NOW),
        Err(Refusal::RemovedMember)
    ));
    assert!(
        authority.redeem(&caller(3), &old, NOW).is_ok(),
        "others still can"
    );
    // Within the same second: the order counts, not the clock.
    let new = new_code(&authority, None, None);
    assert!(authority.redeem(&caller(2), &new, NOW).is_ok());
}

#[test]
fn removing_an_enroller_withdraws_its_tickets() {
    let authority = authority();
    authority
        .add_member(&caller(1), &id(2), enroller(), NOW)
        .expect("an administrator");
    let first = authority
        .create_token(&caller(2), CreateToken::default(), NOW)
        .expect("an enroller");
    authority
        .add_member(&caller(1), &id(2), attributes(&[]), NOW)
        .expect("an administrator");
    assert!(matches!(
        authority.redeem(&caller(3), &first, NOW),
        Err(Refusal::CancelledCode)
    ));
    authority
        .add_member(&caller(1), &id(2), enroller(), NOW)
        .expect("an administrator");
    let second = authority
        .create_token(&caller(2), CreateToken::default(), NOW)
        .expect("an enroller");
    authority
        .delete_member(&caller(1), &id(2), NOW)
        .expect("an administrator");
    assert!(matches!(
        authority.redeem(&caller(3), &second, NOW),
        Err(Refusal::CancelledCode)
    ));
}

#[test]
fn open_tickets_are_listed_and_cancelled() {
    let authority = authority();
    let (code, other) = (
        new_code(&authority, Some(10), Some(3)),
        new_code(&authority, Some(20), None),
    );
    authority.redeem(&caller(2), &code, NOW).expect("a fresh code");
    let open = authority.open_tokens(&caller(1), NOW).expect("an administrator");
    assert_eq!(
        open.iter()
            .map(|t| (t.hash, t.uses, t.uses_left))
            .collect::<Vec<_>>(),
        [(code.hash(), 3, 2), (other.hash(), 1, 1)]
    );
    assert_eq!(
        authority
            .open_tokens(&caller(1), NOW + 10)
            .expect("an administrator")
            .len(),
        1
    );
    assert!(
        authority
            .cancel_token(&caller(1), &other.hash())
            .expect("an administrator")
    );
    assert!(
        !authority
            .cancel_token(&caller(1), &other.hash())
            .expect("an administrator")
    );
    assert!(matches!(
        authority.redeem(&caller(3), &other, NOW),
        Err(Refusal::CancelledCode)
    ));
    assert!(matches!(
        authority.cancel_token(&caller(2), &code.hash()),
        Err(Refusal::NotEnroller(_))
    ));
}

#[test]
fn removals_are_recorded_in_order() {
    let authority = authority();
    for n in [2, 3] {
        authority
            .add_member(&caller(1), &id(n), attributes(&[]), NOW)
            .expect("an administrator");
        authority
            .delete_member(&caller(1), &id(n), NOW + u64::from(n))
            .expect("an administrator");
    }
    let removals = authority.revocations_after(0, 10).expect("a store in memory");
    assert_eq!(
        removals
            .iter()
            .map(|r| (r.member, r.revoked_at, r.revoked_by))
            .collect::<Vec<_>>(),
        [(id(2), NOW + 2, id(1)), (id(3), NOW + 3, id(1)),]
    );
    assert_eq!(
        authority
            .revocations_after(removals[0].serial, 10)
            .expect("a store in memory"),
        removals[1..]
    );
}

#[test]
fn pre_trusted_members_follow_the_configuration() {
    let authority = authority();
    let code = new_code(&authority, None, None);
    authority.redeem(&caller(2), &code, NOW).expect("a fresh code");
    authority
        .set_pre_trusted([(id(3), enroller())], NOW + 1)
        .expect("a store in memory");
    assert_eq!(
        authority.member_ids(&caller(3)).expect("the new administrator"),
        [id(2), id(3)]
    );
    assert!(matches!(
        authority.member_ids(&caller(1)),
        Err(Refusal::NotEnroller(_))
    ));
    assert_eq!(
        authority
            .revocations_after(0, 10)
            .expect("a store in memory")
            .len(),
        1,
        "the one no longer listed"
    );
    // Unchanged at the next start.
    authority
        .set_pre_trusted([(id(3), enroller())], NOW + 9)
        .expect("a store in memory");
    assert_eq!(
        authority
            .show_member(&caller(3), &id(3))
            .expect("a member")
            .added_at,
        NOW + 1
    );
}

#[test]
fn two_authorities_in_one_file_do_not_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("authority.db");
    let open = |byte| {
        Authority::new(
            Store::open(&path, id(byte)).expect("a file"),
            RoleSettings::default(),
        )
    };
    let (a, b) = (open(0xa0), open(0xb0));
    a.set_pre_trusted([(id(1), enroller())], NOW).expect("a file");
    b.set_pre_trusted([(id(5), enroller())], NOW).expect("a file");
    let code = a
        .create_token(&caller(1), CreateToken::default(), NOW)
        .expect("an administrator");
    assert!(matches!(
        b.redeem(&caller(2), &code, NOW),
        Err(Refusal::UnknownCode)
    ));
    assert!(a.redeem(&caller(2), &code, NOW).is_ok());
    assert_eq!(b.member_ids(&caller(5)).expect("an administrator"), [id(5)]);
}

#[test]
fn a_newer_database_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("authority.db");
    drop(Store::open(&path, id(1)).expect("a file"));
    let sql = rusqlite::Connection::open(&path).expect("a file");
    sql.execute("UPDATE authority_schema SET version = 99", [])
        .expect("a table");
    assert!(matches!(
        Store::open(&path, id(1)),
        Err(StoreError::Version { found: 99, .. })
    ));
}

#[test]
fn a_broken_database_is_the_authoritys_fault_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("authority.db");
    let authority = Authority::new(
        Store::open(&path, id(0xa0)).expect("a file"),
        RoleSettings::default(),
    );
    authority
        .set_pre_trusted([(id(1), enroller())], NOW)
        .expect("a file");
    let code = new_code(&authority, None, None);
    let sql = rusqlite::Connection::open(&path).expect("a file");
    // Stands for a full disk: the last write of the redemption fails.
    sql.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON authority_member BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    .expect("a table");
    let refused = authority
        .redeem(&caller(2), &code, NOW)
        .expect_err("the database refuses");
    assert!(matches!(refused, Refusal::Store(_)), "{refused}");
    assert_eq!(
        refused.status(),
        portolan_authority::api::Status::InternalServerError
    );
    assert!(
        !refused.to_string().contains("disk full"),
        "causes are for the log"
    );
    sql.execute_batch("DROP TRIGGER full").expect("a table");
    assert!(
        authority.redeem(&caller(2), &code, NOW).is_ok(),
        "the use was not lost"
    );
}
