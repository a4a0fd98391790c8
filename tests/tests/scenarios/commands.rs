//! The command line as scripts meet it.

use portolan_tests::Home;
use serde_json::Value;

#[test]
fn help_and_version_are_printed_without_a_home_or_a_terminal() {
    let home = Home::new();
    for command in [
        &["--version"][..],
        &["--help"],
        &["node", "--help"],
        &["tcp-inlet", "create", "--help"],
    ] {
        let outcome = home.run(command);
        assert!(outcome.succeeded() && !outcome.stdout.is_empty(), "{outcome}");
    }
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "asking for help has made state"
    );
}

#[test]
fn completion_scripts_exist_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            home.ok(["completion", "--shell", shell]).contains("portolan"),
            "{shell}"
        );
    }
}

#[test]
fn every_list_is_valid_json_and_empty_in_a_new_home() {
    let home = Home::new();
    for noun in ["node", "identity", "project", "credential"] {
        assert_eq!(home.json([noun, "list"]), Value::Array(Vec::new()), "{noun} list");
    }
    home.ok(["node", "create", "n1"]);
    for noun in [
        "relay",
        "tcp-inlet",
        "tcp-outlet",
        "secure-channel",
        "tcp-connection",
    ] {
        assert_eq!(home.json([noun, "list"]), Value::Array(Vec::new()), "{noun} list");
    }
    for noun in ["policy", "service", "node", "identity"] {
        assert!(home.json([noun, "list"]).is_array(), "{noun} list");
    }
    assert!(home.json(["worker", "list"])["list"].is_array());
    assert!(home.json(["status"]).is_object());
}

#[test]
fn piped_output_has_the_machine_form_alone() {
    let home = Home::new();
    assert_eq!(home.ok(["node", "create", "n1"]), "n1");
    assert_eq!(
        home.ok(["tcp-outlet", "create", "--to", "127.0.0.1:9"]),
        "/service/outlet"
    );
    let identifier = home.ok(["identity", "create", "alice"]);
    assert!(
        identifier.starts_with('I') && identifier.len() == 65,
        "{identifier}"
    );
    assert_eq!(home.ok(["identity", "show", "alice"]), identifier);
}

#[test]
fn a_port_alone_is_a_port_of_this_machine() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["tcp-outlet", "create", "--from", "o1", "--to", "5432"]);
    assert_eq!(home.json(["tcp-outlet", "show", "o1"])["to"], "127.0.0.1:5432");
}

#[test]
fn booleans_in_the_environment_are_read_leniently() {
    let home = Home::new();
    for (name, value) in [
        ("NO_COLOR", "1"),
        ("QUIET", "1"),
        ("NO_INPUT", "yes"),
        ("QUIET", ""),
    ] {
        let mut command = home.command(["node", "list"]);
        command.env(name, value);
        let outcome = portolan_tests::home::run(command, portolan_tests::home::COMMAND_LIMIT);
        assert!(outcome.succeeded(), "{name}={value}: {outcome}");
    }
}

#[test]
fn deleting_without_yes_and_without_a_terminal_deletes_nothing_and_says_so() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.fails(["node", "delete", "n1"]).says(&["--yes"]);
    assert_eq!(home.processes().len(), 1);
}

#[test]
fn a_credential_is_issued_verified_and_refused_when_it_was_changed() {
    let home = Home::new();
    home.ok(["identity", "create", "issuer"]);
    home.ok(["identity", "create", "subject"]);
    let issuer = home.ok(["identity", "show", "issuer"]);
    let subject = home.ok(["identity", "show", "subject"]);
    let issue = [
        "credential",
        "issue",
        "--as",
        "issuer",
        "--for",
        &subject,
        "--attribute",
        "role=a b",
        "--encoding",
        "hex",
    ];
    let credential = home.ok(issue);
    home.ok([
        "credential",
        "verify",
        "--issuer",
        &issuer,
        "--credential",
        &credential,
    ]);
    let mut changed = credential.into_bytes();
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'0' { b'1' } else { b'0' };
    let changed = String::from_utf8(changed).unwrap();
    home.fails([
        "credential",
        "verify",
        "--issuer",
        &issuer,
        "--credential",
        &changed,
    ]);
    home.fails(["credential", "verify", "--issuer", &subject, "--credential", "00"]);
}
