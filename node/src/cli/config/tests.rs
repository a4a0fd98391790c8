use super::resources::{Kind, Resource};
use super::*;

fn read(text: &str) -> Result<Configuration> {
    read_with(text, &[])
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Configuration> {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Configuration::read(text, Some("node.yaml"), &variables, &|_| None)
}

/// What it makes, in order: `relay blue`, `tcp-outlet - db:5432 if …`.
fn made(text: &str) -> Vec<String> {
    let configuration = read(text).unwrap_or_else(|error| panic!("{text}\n{error} {:?}", error.hint));
    configuration
        .items
        .iter()
        .map(|item| shown(&item.resource))
        .collect()
}

fn shown(resource: &Resource) -> String {
    let (kind, name) = resource.identity();
    let name = name.unwrap_or("-");
    let allow = |policy: Option<&str>| policy.map(|policy| format!(" if {policy}")).unwrap_or_default();
    match resource {
        Resource::Policy(create) => format!("policy {name} if {}", create.rule()),
        Resource::Relay(_) => format!("relay {name}"),
        Resource::Outlet(create) => {
            format!(
                "{} {name} {}{}",
                kind.name(),
                create.target(),
                allow(create.policy())
            )
        }
        Resource::Plugin(_) => format!("plugin {name}"),
        Resource::Worker(start) => format!(
            "worker {} {name} {}{}",
            start.kind(),
            start.config().unwrap(),
            allow(start.policy())
        ),
        Resource::Inlet(create) => {
            let route = create.check(|| Ok("p".to_owned())).unwrap();
            format!(
                "{} {name} {} {route}{}",
                kind.name(),
                create.listener(),
                allow(create.policy())
            )
        }
    }
}

fn wrong(text: &str) -> String {
    let error = read(text).expect_err(text);
    assert_eq!(error.code, crate::ErrorCode::InvalidArgument);
    format!("{} | {}", error.message, error.hint.unwrap_or_default())
}

const ROUTE: &str = "/project/p/service/forward_to_postgres/secure/api/service/outlet";

#[test]
fn the_files_of_the_aurora_walkthrough_are_understood() {
    let outlet = "tcp-outlet:\n  to: db.internal:5432\n  allow: '(= subject.postgres-inlet \"true\")'\n  relay: postgres\n";
    assert_eq!(
        made(outlet),
        [
            "relay postgres",
            "tcp-outlet - db.internal:5432 if (= subject.postgres-inlet \"true\")"
        ]
    );
    let inlet = "tcp-inlet:\n  from: 0.0.0.0:15432\n  via: postgres\n  allow: '(= subject.postgres-outlet \"true\")'\n";
    assert_eq!(
        made(inlet),
        [format!(
            "tcp-inlet - 0.0.0.0:15432 {ROUTE} if (= subject.postgres-outlet \"true\")"
        )]
    );
}

#[test]
fn the_files_of_the_influxdb_walkthrough_are_understood() {
    let outlet = "relay: influxdb\ntcp-outlet:\n  to: influx.internal:8086\n  allow: '(= subject.influxdb-inlet \"true\")'\n";
    assert_eq!(
        made(outlet),
        [
            "relay influxdb",
            "tcp-outlet - influx.internal:8086 if (= subject.influxdb-inlet \"true\")"
        ]
    );
}

#[test]
fn a_relay_is_a_name_a_list_a_map_of_names_or_one_map() {
    for key in ["relay", "relays"] {
        assert_eq!(made(&format!("{key}: blue")), ["relay blue"]);
        assert_eq!(
            made(&format!("{key}: [blue, green]")),
            ["relay blue", "relay green"]
        );
        assert_eq!(
            made(&format!("{key}:\n  - blue\n  - green:\n      at: /node/n2\n")),
            ["relay blue", "relay green"]
        );
        assert_eq!(
            made(&format!("{key}:\n  blue:\n  green:\n    at: /project/p\n")),
            ["relay blue", "relay green"]
        );
        assert_eq!(made(&format!("{key}: {{ at: /project/p }}")), ["relay default"]);
        assert_eq!(
            made(&format!("{key}: {{ relay_address: x, name: y }}")),
            ["relay y"]
        );
    }
}

#[test]
fn a_policy_is_one_map_or_a_list_of_maps() {
    let one = "policy:\n  resource-type: tcp-outlet\n  allow: a\n";
    assert_eq!(made(one), ["policy tcp-outlet if a"]);
    let list =
        "policies:\n  - resource_type: tcp-outlet\n    expression: a\n  - resource: db\n    allow: b\n";
    assert_eq!(made(list), ["policy tcp-outlet if a", "policy db if b"]);
    assert!(wrong("policy: a").contains("cannot be a text"));
    assert!(wrong("policy: { allow: a }").contains("lacks `resource-type` or `resource`"));
    assert!(wrong("policy: { resource-type: tcp-outlet, allow: 'a or' }").contains("line 1, column 38"));
}

#[test]
fn an_outlet_is_one_map_a_map_of_names_or_a_list() {
    for key in ["tcp-outlet", "tcp-outlets", "tcp_outlets"] {
        assert_eq!(
            made(&format!("{key}: {{ to: 5432 }}")),
            ["tcp-outlet - 127.0.0.1:5432"]
        );
        assert_eq!(
            made(&format!(
                "{key}:\n  a: {{ to: 1 }}\n  b: {{ to: h:2, allow: x, tls: true }}"
            )),
            ["tcp-outlet a 127.0.0.1:1", "tcp-outlet b h:2 if x"]
        );
        assert_eq!(
            made(&format!(
                "{key}:\n  - {{ to: 1, from: a }}\n  - {{ to: 2, tls: false }}"
            )),
            ["tcp-outlet a 127.0.0.1:1", "tcp-outlet - 127.0.0.1:2"]
        );
        assert!(wrong(&format!("{key}: db")).contains("lacks `to`"));
    }
}

#[test]
fn an_inlet_is_a_name_one_map_a_map_of_names_or_a_list() {
    let route = |relay: &str, outlet: &str| {
        format!("/project/p/service/forward_to_{relay}/secure/api/service/{outlet}")
    };
    for key in ["tcp-inlet", "tcp-inlets"] {
        assert_eq!(
            made(&format!("{key}: db")),
            [format!("tcp-inlet db 127.0.0.1:0 {}", route("default", "outlet"))]
        );
        assert_eq!(
            made(&format!("{key}: {{ from: 7000, via: blue, to: db }}")),
            [format!("tcp-inlet - 127.0.0.1:7000 {}", route("blue", "db"))]
        );
        assert_eq!(
            made(&format!(
                "{key}:\n  web: {{ from: 7000, via: blue }}\n  db: {{ via: green }}"
            )),
            [
                format!("tcp-inlet web 127.0.0.1:7000 {}", route("blue", "outlet")),
                format!("tcp-inlet db 127.0.0.1:0 {}", route("green", "outlet"))
            ]
        );
        assert_eq!(
            made(&format!(
                "{key}:\n  - from: 7000\n    via: blue\n    connection-wait: 1s\n  - to: /service/x"
            )),
            [
                format!("tcp-inlet - 127.0.0.1:7000 {}", route("blue", "outlet")),
                "tcp-inlet - 127.0.0.1:0 /service/x".to_owned()
            ]
        );
    }
}

#[test]
fn a_relay_inside_an_outlet_may_have_each_of_its_shapes() {
    assert_eq!(
        made(
            "tcp-outlets:\n  db: { to: 1, relay: { blue: { at: /project/p } } }\n  web: { to: 2, relays: [a, b] }"
        ),
        [
            "relay blue",
            "relay a",
            "relay b",
            "tcp-outlet db 127.0.0.1:1",
            "tcp-outlet web 127.0.0.1:2"
        ]
    );
}

#[test]
fn resources_are_made_in_the_same_order_wherever_they_are_written() {
    let text =
        "tcp-inlet: a\ntcp-outlet: { to: 1 }\nrelay: b\npolicy: { resource-type: tcp-inlet, allow: c }";
    let kinds: Vec<Kind> = read(text)
        .unwrap()
        .items
        .iter()
        .map(|item| item.resource.identity().0)
        .collect();
    assert_eq!(kinds, [Kind::Policy, Kind::Relay, Kind::Outlet, Kind::Inlet]);
}

#[test]
fn the_keys_of_the_node_are_read_in_both_spellings_and_as_json() {
    let text = "version: '1'\nname: n1\nidentity: bank\nproject: p\nticket: /run/t\ntcp_listener_address: 0.0.0.0:4000\nforeground: true\nexit-on-eof: true\n";
    let all = read(text).unwrap();
    assert_eq!(all.name.as_deref(), Some("n1"));
    assert_eq!(all.identity.as_deref(), Some("bank"));
    assert_eq!(all.project.as_deref(), Some("p"));
    assert_eq!(all.ticket.as_deref(), Some("/run/t"));
    assert_eq!(all.tcp_listener_address.unwrap().to_string(), "0.0.0.0:4000");
    assert!(all.foreground && all.exit_on_eof);
    let json = "{\n// no\n}";
    assert!(read(json).is_err());
    assert_eq!(
        made(
            "{\"name\": \"edge\", \"relay\": \"edge\", \"tcp-outlet\": {\"to\": \"127.0.0.1:22\", \"allow\": \"ops\"},}"
        ),
        ["relay edge", "tcp-outlet - 127.0.0.1:22 if ops"]
    );
}

#[test]
fn the_examples_of_the_specification_are_understood() {
    let client = "ticket: ${ENROLLMENT_TICKET}\ntcp-inlet:\n  from: 0.0.0.0:9200\n  to: search-outlet\n  via: search\n  allow: search-service\n";
    let all = read_with(client, &[("ENROLLMENT_TICKET", "3a2f")]).unwrap();
    assert_eq!(all.ticket.as_deref(), Some("3a2f"));
    let service = "variables:\n  SERVICE: 127.0.0.1:9200\nticket: /run/secrets/search.ticket\nname: search-service\nrelays: search\npolicies:\n  - at: search-service\n    resource-type: tcp-outlet\n    allow: '(= subject.search-client \"true\")'\ntcp-outlets:\n  search-outlet:\n    to: $SERVICE\n";
    assert_eq!(
        made(service).last().unwrap(),
        "tcp-outlet search-outlet 127.0.0.1:9200"
    );
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_a_suggestion() {
    let text = wrong("name: n1\ntcp-outlt:\n  to: 1");
    assert!(text.contains("node.yaml, line 2, column 1"), "{text}");
    assert!(text.contains("did you mean `tcp-outlet`"), "{text}");
    let text = wrong("tcp-outlet:\n  to: 1\n  alow: x");
    assert!(text.contains("line 3, column 3"), "{text}");
    assert!(text.contains("did you mean `allow`"), "{text}");
    let text = wrong("tcp-outlet: { to: 1, relay: { a: { att: /project/p } } }");
    assert!(text.contains("did you mean `at`"), "{text}");
    assert!(wrong("relay: { nonsense: 1 }").contains("known:"));
}

#[test]
fn what_does_not_exist_here_is_said() {
    for text in [
        "kafka-outlet: { bootstrap-server: x }",
        "influxdb_inlets: { from: 1 }",
        "udp: true",
        "status-endpoint: 127.0.0.1:1",
        "services: { control-api: { frontend: true } }",
    ] {
        assert!(wrong(text).contains("does not exist in Portolan"), "{text}");
    }
    assert_eq!(made("udp: false\nrelay: a"), ["relay a"]);
    assert_eq!(read("http-server: true\nrelay: a").unwrap().notes.len(), 1);
}

#[test]
fn a_wrong_value_is_told_with_its_place_and_the_reason() {
    for (text, said) in [
        ("tcp-outlet:\n  to: localhost", ["line 2, column 3", "port"]),
        (
            "tcp-outlet:\n  to: 1\n  tls: maybe",
            ["line 3, column 8", "true or false"],
        ),
        (
            "tcp-inlet:\n  connection-wait: 1.5h",
            ["line 2, column 3", "1h30m"],
        ),
        ("tcp-inlet:\n  from: [1, 2]", ["line 2, column 9", "is a list"]),
        ("relay: a#b", ["line 1, column 8", "#"]),
        ("name: n!", ["line 1, column 7", "letters, digits"]),
        ("name:", ["line 1, column 1", "no value"]),
        ("version: 2", ["line 1, column 10", "version"]),
        ("foreground: yes", ["line 1", "true or false"]),
        ("tcp-outlets: []", ["line 1", "holds nothing"]),
        ("tcp-outlets:", ["line 1", "holds nothing"]),
        (
            "tcp-outlet: { to: 1, from: a, name: b }",
            ["line 1", "does not go with"],
        ),
        ("tcp-inlet: { to: -/service/x }", ["line 1", "stdin"]),
        ("- a", ["line 1", "is a list"]),
        ("", ["line 1", "empty"]),
        ("a: [", ["node.yaml", "line"]),
        ("relay: a\nrelays: b", ["line 2", "twice"]),
        ("tcp-outlet: { to: 1, to: 2 }", ["line 1", ""]),
        ("tcp-inlet: { retry-wait: 1, retry_wait: 2 }", ["line 1", "twice"]),
    ] {
        let found = wrong(text);
        for part in said {
            assert!(found.contains(part), "{text}\n{found}\nlacks {part}");
        }
    }
}

#[test]
fn two_things_of_a_kind_cannot_have_one_name() {
    let text = wrong("tcp-outlets:\n  - { to: 1, from: a }\n  - { to: 2, from: a }");
    assert!(text.contains("line 3") && text.contains("line 2"), "{text}");
    assert!(wrong("relay: a\ntcp-outlet: { to: 1, relay: a }").contains("two relays named `a`"));
    assert!(wrong("tcp-inlets: [a, a]").contains("two tcp-inlets"));
    assert_eq!(made("tcp-outlet: { a: { to: 1 } }\ntcp-inlet: a").len(), 2);
}

#[test]
fn a_message_never_holds_the_ticket() {
    for text in [
        "ticket: 5ec4e7\nnme: x",
        "ticket: [5ec4e7]",
        "ticket: 5ec4e7\nticket: 5ec4e7",
        "ticket: 5ec4e7: x",
    ] {
        let found = wrong(text);
        assert!(!found.contains("5ec4e7"), "{found}");
    }
}

#[test]
fn a_configuration_that_is_too_long_is_refused() {
    let long = format!("name: {}", "a".repeat(MAX_CONFIGURATION));
    assert!(wrong(&long).contains("longer than"));
}

#[test]
fn workers_are_named_by_their_address_and_have_a_configuration_of_their_own() {
    let text = "workers:\n  slow:\n    type: limiter\n    config:\n      per-second: 3\n      names: [a, '1']\n      deep: { on: true }\n    \
                allow: role=reader\n  other:\n    type: limiter\n    config: { per-second: 4 }\nrelay: blue\n";
    assert_eq!(
        made(text),
        [
            r#"worker limiter slow {"deep":{"on":true},"names":["a","1"],"per-second":3} if role=reader"#,
            r#"worker limiter other {"per-second":4}"#,
            "relay blue"
        ]
    );
    for text in [
        "worker: greeter",
        "workers: [greeter]",
        "workers: { greeter: }",
        "worker: { type: greeter }",
    ] {
        assert_eq!(made(text), ["worker greeter greeter null"], "{text}");
    }
    assert_eq!(
        made("workers: [{ type: greeter, address: a, config: {x: 1} }]"),
        [r#"worker greeter a {"x":1}"#]
    );
}

#[test]
fn a_worker_that_cannot_be_understood_is_an_error_with_its_place() {
    for (text, expected) in [
        (
            "workers:\n  a: { typ: b }",
            "line 2, column 8: a worker has no key `typ` | did you mean `type`?",
        ),
        (
            "worker: { config: { a: 1 }, allow: x }",
            "this worker lacks `type`",
        ),
        (
            "workers:\n  a: { type: b }\n  c: { type: b, address: a }",
            "is named by its address",
        ),
        (
            "workers: [{ type: b }, { type: b }]",
            "there are two workers at `b`",
        ),
        (
            "workers:\n  a: { type: b, config: { x: .nan } }",
            "line 2, column 30: non-finite float",
        ),
        (
            "workers:\n  a: { type: b, allow: '(= 1' }",
            "`allow` of this worker",
        ),
        ("workers:\n  'a b': { type: b }", "is not a name for workers"),
        ("workers: []", "holds nothing"),
    ] {
        let said = wrong(text);
        assert!(said.contains(expected), "{text}\n{said}");
    }
}
