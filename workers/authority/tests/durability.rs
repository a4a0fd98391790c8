//! One-time means one time: under concurrency, over a restart, and after kill -9.

use std::path::{Path, PathBuf};
use std::sync::Barrier;

use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::Authority;
use portolan_authority::code::OneTimeCode;
use portolan_authority::protocol::CreateToken;
use portolan_authority::refusal::Refusal;
use portolan_authority::rules::{Caller, RoleSettings};
use portolan_authority::store::Store;
use portolan_identity::Identifier;

const NOW: u64 = 1_700_000_000;

fn id(byte: u8) -> Identifier {
    Identifier::from([byte; 32])
}

fn open(path: &Path) -> Authority {
    let authority = Authority::new(
        Store::open(path, id(0xa0)).expect("a database"),
        RoleSettings::default(),
    );
    let enroller = MemberAttributes::new([("ockam-role", "enroller")]).expect("inside all limits");
    authority
        .set_pre_trusted([(id(0xff), enroller)], NOW)
        .expect("a database");
    authority
}

fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("authority.db");
    (folder, path)
}

fn new_code(authority: &Authority, uses: u64) -> OneTimeCode {
    let request = CreateToken {
        uses: Some(uses),
        ..CreateToken::default()
    };
    authority
        .create_token(&Caller::new(id(0xff)), request, NOW)
        .expect("an administrator")
}

/// Redeems from 20 identities at once and returns how many were admitted; all others must hear that the code
/// is used.
fn redeem_at_once(
    authority_of: impl Fn(u8) -> Authority + Sync,
    shared: Option<&Authority>,
    code: &OneTimeCode,
) -> usize {
    let barrier = Barrier::new(20);
    let admitted = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20u8)
            .map(|n| {
                let (barrier, authority_of) = (&barrier, &authority_of);
                scope.spawn(move || {
                    let own = shared.is_none().then(|| authority_of(n));
                    let authority = own.as_ref().or(shared).expect("one of them");
                    barrier.wait();
                    authority.redeem(&Caller::new(id(n)), code, NOW)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    for refused in admitted.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(refused, Refusal::UsedCode), "{refused}");
    }
    admitted.iter().filter(|result| result.is_ok()).count()
}

#[test]
fn of_twenty_simultaneous_redemptions_exactly_one_succeeds() {
    let (_folder, path) = database();
    let authority = open(&path);
    for _ in 0..5 {
        let code = new_code(&authority, 1);
        assert_eq!(redeem_at_once(|_| open(&path), Some(&authority), &code), 1);
        authority
            .delete_all_members(&Caller::new(id(0xff)), NOW)
            .expect("an administrator");
    }
}

#[test]
fn twenty_connections_to_one_database_do_not_admit_more_than_allowed() {
    let (_folder, path) = database();
    let authority = open(&path);
    for uses in [1, 5] {
        let code = new_code(&authority, uses);
        assert_eq!(redeem_at_once(|_| open(&path), None, &code), uses as usize);
        authority
            .delete_all_members(&Caller::new(id(0xff)), NOW)
            .expect("an administrator");
    }
}

#[test]
fn codes_and_members_survive_a_restart() {
    let (_folder, path) = database();
    let authority = open(&path);
    let (used, open_code) = (new_code(&authority, 1), new_code(&authority, 2));
    authority
        .redeem(&Caller::new(id(1)), &used, NOW)
        .expect("a fresh code");
    authority
        .redeem(&Caller::new(id(2)), &open_code, NOW)
        .expect("a fresh code");
    drop(authority);

    let authority = open(&path);
    assert!(matches!(
        authority.redeem(&Caller::new(id(1)), &used, NOW),
        Err(Refusal::AlreadyMember)
    ));
    assert!(matches!(
        authority.redeem(&Caller::new(id(3)), &used, NOW),
        Err(Refusal::UsedCode)
    ));
    assert!(authority.redeem(&Caller::new(id(3)), &open_code, NOW).is_ok());
    assert!(matches!(
        authority.redeem(&Caller::new(id(4)), &open_code, NOW),
        Err(Refusal::UsedCode)
    ));
    assert!(matches!(
        authority.redeem(&Caller::new(id(4)), &open_code, NOW + 600),
        Err(Refusal::UsedCode)
    ));
}

/// The test binary starts itself as a child that redeems codes until it is killed in the middle of it.
#[test]
fn what_was_answered_before_kill_9_is_still_so_after_it() {
    const CHILD: &str = "PORTOLAN_AUTHORITY_TEST_CHILD";
    if let Some(path) = std::env::var_os(CHILD) {
        let authority = open(Path::new(&path));
        for n in 0..=u32::MAX {
            let code = new_code(&authority, 1);
            let mut member = [0; 32];
            member[..4].copy_from_slice(&n.to_be_bytes());
            if authority
                .redeem(&Caller::new(Identifier::from(member)), &code, NOW)
                .is_ok()
            {
                use std::io::Write;
                writeln!(std::io::stderr(), "redeemed {n} {}", &*code.to_hex()).expect("stderr");
            }
        }
        return;
    }
    let (_folder, path) = database();
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "what_was_answered_before_kill_9_is_still_so_after_it",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("this test starts itself");
    let stderr = child.stderr.take().expect("piped");
    let mut redeemed = Vec::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)) {
        let line = line.expect("text");
        if let Some((_, code)) = line
            .strip_prefix("redeemed ")
            .and_then(|rest| rest.split_once(' '))
        {
            redeemed.push(OneTimeCode::from_hex(code).expect("a code"));
            if redeemed.len() == 40 {
                // SIGKILL; the child is at work on the next codes.
                child.kill().expect("our child");
            }
        }
    }
    child.wait().expect("our child");
    assert!(redeemed.len() >= 40);
    let authority = open(&path);
    for code in &redeemed {
        assert!(matches!(
            authority.redeem(&Caller::new(id(0xee)), code, NOW),
            Err(Refusal::UsedCode)
        ));
    }
    assert!(
        authority
            .member_ids(&Caller::new(id(0xff)))
            .expect("an administrator")
            .len()
            > redeemed.len()
    );
}

#[test]
fn no_code_is_in_the_database_file() {
    let (folder, path) = database();
    let authority = open(&path);
    let code = new_code(&authority, 1);
    drop(authority);
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("a file").path();
        let bytes = std::fs::read(&path).expect("a file");
        assert!(
            !bytes.windows(32).any(|w| w == code.expose()),
            "{}",
            path.display()
        );
        assert!(
            !bytes.windows(64).any(|w| w == code.to_hex().as_bytes()),
            "{}",
            path.display()
        );
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777,
            0o600
        );
    }
}
