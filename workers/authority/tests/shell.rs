//! The text of a ticket goes unharmed through what the walkthroughs' scripts do to it (specification 05, W3).

use std::process::Command;

use portolan_authority::code::OneTimeCode;
use portolan_authority::project::Project;
use portolan_authority::ticket::Ticket;
use portolan_identity::{Identity, KeyType, MemorySecretStore, SoftwareVault};

const NOW: u64 = 1_700_000_000;

fn identity() -> Identity {
    let vault = SoftwareVault::new(std::sync::Arc::new(MemorySecretStore::default()));
    Identity::create(&vault, NOW, KeyType::Ed25519).expect("a vault in memory")
}

/// 10 000 random tickets, a hundred for each run of `sed`: one expression and one line of the template each, in double quotes as the
/// scripts have it.
#[test]
fn ten_thousand_tickets_survive_sed_in_a_shell() {
    const BATCH: usize = 100;
    let identities: Vec<_> = (0..20).map(|_| identity()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let template = folder.path().join("run.sh");
    std::fs::write(
        &template,
        "ockam project enroll \"$ENROLLMENT_TICKET\"\n".repeat(BATCH),
    )
    .expect("a file");
    let mut seen = 0;
    for batch in 0..100usize {
        let tickets: Vec<Ticket> = (0..BATCH).map(|n| ticket(&identities, batch, n)).collect();
        let mut script = "sed".to_owned();
        for (n, ticket) in (1..).zip(&tickets) {
            script += &format!(" -e \"{n}s/\\$ENROLLMENT_TICKET/{}/g\"", *ticket.to_text());
        }
        script += &format!(" {}\n", template.display());
        let script_path = folder.path().join("batch.sh");
        std::fs::write(&script_path, script).expect("a file");
        let output = Command::new("sh").arg(&script_path).output().expect("a shell");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let output = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines.len(), tickets.len());
        for (line, ticket) in lines.into_iter().zip(&tickets) {
            let text = line
                .strip_prefix("ockam project enroll \"")
                .and_then(|l| l.strip_suffix('"'))
                .expect("the template");
            assert_eq!(text, &*ticket.to_text());
            let read: Ticket = text.parse().expect("a ticket");
            assert_eq!(read.code(), ticket.code());
            assert_eq!(read.expires_at(), ticket.expires_at());
            let (read, written) = (read.project(), ticket.project());
            assert_eq!(
                (read.id(), read.name(), read.route()),
                (written.id(), written.name(), written.route())
            );
            assert_eq!(read.identity().identifier(), written.identity().identifier());
            assert_eq!(read.authority().identifier(), written.authority().identifier());
            seen += 1;
        }
    }
    assert_eq!(seen, 10_000);
}

fn ticket(identities: &[Identity], batch: usize, n: usize) -> Ticket {
    let (a, b) = (
        &identities[(batch + n) % identities.len()],
        &identities[(batch * 7 + n * 3) % identities.len()],
    );
    let id = format!("p{batch}-{n}");
    let route = format!(
        "/dnsaddr/hub-{n}.example/tcp/{}/service/{id}/service/api",
        1024 + n
    );
    let name = [
        "bank",
        "Analysis Corp & Sons",
        "it's \"quoted\" $HOME `x` \\1",
        "größe",
    ][n % 4];
    let project = Project::new(
        id,
        name,
        route,
        a.clone(),
        b.clone(),
        "/ip6/::1/tcp/4001/service/api",
    )
    .expect("well-formed");
    Ticket::new(
        project,
        OneTimeCode::random().expect("randomness"),
        n.is_multiple_of(2).then_some(NOW + n as u64),
    )
}

#[test]
fn a_ticket_needs_no_quotes_in_a_shell() {
    let project = Project::new(
        "p1",
        "bank",
        "/ip4/127.0.0.1/tcp/4000/service/p1/service/api",
        identity(),
        identity(),
        "/ip4/127.0.0.1/tcp/4001/service/api",
    )
    .expect("well-formed");
    let text = Ticket::new(project, OneTimeCode::random().expect("randomness"), None).to_text();
    let echo = Command::new("sh")
        .arg("-c")
        .arg(format!("t={0}; echo $t; eval echo {0}", *text))
        .output()
        .expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&echo.stdout),
        format!("{0}\n{0}\n", *text)
    );
}
