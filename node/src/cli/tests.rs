use clap::{CommandFactory, Parser};

use super::Cli;

fn parses(line: &str) {
    let arguments = split(line);
    if let Err(error) = Cli::try_parse_from(&arguments) {
        panic!("{line}\n{error}");
    }
}

fn fails(line: &str) -> String {
    Cli::try_parse_from(split(line)).expect_err(line).to_string()
}

/// Splits a line as a shell would, as far as quotes go.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                open = true;
            }
            (None, c) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (None, c) => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn the_tree_of_commands_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_line_of_the_walkthroughs_is_understood() {
    for line in [
        // The administrator (05 §6.3 W1–W7).
        "portolan enroll",
        "portolan project ticket --usage-count 1 --expires-in 60m --attribute monitoring-api-outlet=true --relay monitoring-api",
        "portolan project ticket --usage-count 1 --expires-in 60m --attribute monitoring-api-inlet=true",
        "portolan project ticket --usage-count 1 --expires-in 10m --attribute mongodb-outlet=true --relay mongodb",
        "portolan project ticket --usage-count 1 --expires-in 10m --attribute \"postgres-outlet=true\" --relay postgres",
        "portolan project ticket --usage-count 1 --expires-in 60m --attribute influxdb-inlet=true",
        // The service side.
        "portolan project enroll 3a2f69702f",
        "portolan project enroll /etc/ockam/enrollment/ticket",
        "portolan node create",
        "portolan relay create monitoring-api",
        "portolan policy create --resource-type tcp-outlet --expression '(= subject.monitoring-api-inlet \"true\")'",
        "portolan policy create --resource-type tcp-outlet --allow '(= subject.postgres-inlet \"true\")'",
        "portolan tcp-outlet create --to 5432",
        "portolan tcp-outlet create --to localhost:5000",
        "portolan tcp-outlet create --to \"127.0.0.1:27017\"",
        // The client side.
        "portolan policy create --resource-type tcp-inlet --expression '(= subject.mongodb-outlet \"true\")'",
        "portolan tcp-inlet create --from 0.0.0.0:15432 --via postgres",
        "portolan tcp-inlet create --from 0.0.0.0:5000 --via monitoring-api",
        "portolan node create --foreground --enrollment-ticket 3a2f",
        "portolan reset -y",
    ] {
        parses(line);
    }
}

#[test]
fn the_forms_of_the_manual_are_understood() {
    for line in [
        "portolan demo",
        "portolan -q status",
        "portolan status --output json",
        "portolan --no-color --no-input -vv node list --compact-output",
        "portolan project create",
        "portolan project create default --tcp-listener-address 0.0.0.0:4000 --address hub.example:4000 --credential-ttl 1h30m",
        "portolan project create p --public-address 10.0.0.1:4000 --foreground",
        "portolan project show --output json",
        "portolan project list",
        "portolan project import --project-file project.json",
        "portolan project delete p --yes",
        "portolan project enroll",
        "portolan project enroll - --identity bank --timeout 1m",
        "portolan project ticket --enroller --relay * -a k -a k2=v=w",
        "portolan project-member list --enrollers",
        "portolan project-member list-ids -p default --identity admin",
        "portolan node create n1 --tcp-listener-address 127.0.0.1:0 --identity bank --project default",
        "portolan node create n1 -f -e",
        "portolan node show n1",
        "portolan node show /node/n1",
        "portolan node stop n1",
        "portolan node stop --all",
        "portolan node start n1",
        "portolan node delete n1 --yes",
        "portolan node delete --all -y",
        "portolan node logs n1 --follow -n 10",
        "portolan node logs --path",
        "portolan node default n1",
        "portolan relay create blue --at /node/relay --to /node/n1",
        "portolan relay create --at /ip4/127.0.0.1/tcp/4000 --no-connection-wait",
        "portolan relay list --to n1",
        "portolan relay show blue --at n1",
        "portolan relay delete blue --at n1 --yes",
        "portolan policy create --at n1 --resource outlet --allow 'a and b'",
        "portolan policy show tcp-outlet --at n1",
        "portolan policy list",
        "portolan policy explain tcp-outlet -a role=x --at n1",
        "portolan policy explain --allow 'a or b' -a b",
        "portolan policy delete tcp-outlet -y",
        "portolan tcp-outlet create db --to db.internal:5432 --tls --allow role=reader --at n1",
        "portolan tcp-outlet create --from /service/db --to [::1]:5432",
        "portolan tcp-outlet show db",
        "portolan tcp-outlet delete db --at n1 -y",
        "portolan tcp-inlet create web --from 7000 --to db --via blue --allow x --connection-wait 1s --retry-wait 2s",
        "portolan tcp-inlet create --from 7000 --to /project/p/service/forward_to_b/secure/api/service/outlet --timeout 5s",
        "portolan tcp-inlet create --from 7000 --to -/service/outlet --no-connection-wait",
        "portolan tcp-inlet show web",
        "portolan tcp-inlet delete --all -y",
        "portolan identity create bank --vault v1",
        "portolan identity show bank --full --encoding hex",
        "portolan identity default bank",
        "portolan identity delete bank -y",
        "portolan vault create v1",
        "portolan vault show v1",
        "portolan vault delete v1 -y",
        "portolan credential issue --as bank --for I0000000000000000000000000000000000000000000000000000000000000000 -a 'city=New York' --ttl 30m --encoding hex",
        "portolan credential verify --issuer I00 --credential 00",
        "portolan credential store --issuer I00 --scope s --credential-path file --at n1",
        "portolan credential list --at n1",
        "portolan credential show bank",
        "portolan secure-channel create --from n1 --to /node/n2/service/api -a I0000000000000000000000000000000000000000000000000000000000000000",
        "portolan secure-channel list --at n1",
        "portolan secure-channel delete /service/abc --at n1 -y",
        "portolan secure-channel-listener create l2 --at n1",
        "portolan tcp-connection create --from n1 --to 127.0.0.1:4000",
        "portolan tcp-connection delete 127.0.0.1:4000 --at n1 -y",
        "portolan tcp-listener create 127.0.0.1:0 --at n1",
        "portolan tcp-listener list --at n1",
        "portolan message send hello --from n1 --to /node/n2/service/uppercase --timeout 5s",
        "portolan message send 68656c6c6f --hex --to /project/default/service/echo --identity bank",
        "portolan worker list --at n1",
        "portolan service list --at n1",
        "portolan service start hop --addr h1 --at n1",
        "portolan completion --shell bash",
        "portolan environment",
        "portolan exit-codes",
    ] {
        parses(line);
    }
}

#[test]
fn wrong_values_are_told_with_what_is_right() {
    for (line, said) in [
        ("portolan node create n!", "letters, digits"),
        ("portolan node create ./config.yaml", "letters, digits"),
        ("portolan relay create a#b", "#"),
        ("portolan tcp-outlet create --to localhost", "port is missing"),
        ("portolan tcp-outlet create", "--to"),
        ("portolan tcp-inlet create --from 1.2.3:80", "not a host"),
        ("portolan project ticket --expires-in 1.5h", "1h30m"),
        ("portolan project ticket --usage-count 0", "from 1 up"),
        ("portolan project ticket --attribute identifier=I1", "reserved"),
        ("portolan project-member add I00 -a k=v", "64 hexadecimal"),
        (
            "portolan policy create --resource-type tcp-outlt --allow a",
            "tcp-outlet",
        ),
        ("portolan policy create --allow a", "--resource-type"),
        (
            "portolan policy create --resource-type tcp-outlet --allow 'a.b or'",
            "^",
        ),
        (
            "portolan policy create --resource-type tcp-outlet --allow 'has_credential'",
            "subject.has_credential",
        ),
        ("portolan nod list", "node"),
        ("portolan node creat", "create"),
        ("portolan tcp-inlet create --frm 80", "--from"),
    ] {
        let text = fails(line);
        assert!(text.contains(said), "{line}\n{text}");
    }
}
