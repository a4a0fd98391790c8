//! Claims about tickets. Identities are the published vectors of specification 02 §8.1.

use portolan_identity::Identity;

use super::*;

const PROJECT: &str = "81825837830101583285f68200815820f405e06d988fa8039cce1cd0ae607e46847c1b64bc459ca9d89dd9b21ae30681f41a654cebe91a7818eee98200815840494c9b70e8a9ad5593fceb478f722a513b4bd39fa70f4265d584253bc24617d0eb498ce532273f6d0d5326921e013696fce57c20cc6c4008f74b816810f0b009";
const AUTHORITY: &str = "81825837830101583285f68200815820245ba33c7729dce1c94d8c1a00fcf89a7af33689d4563176f9dffbdd147d4488f41a66e2ee7b1a79aef17b820081584070856bb8da621154a39c894a2fedded55257715b00940b9cffe54b51d87889aff2c077124ee6e0e1c2e711688470affbc65d909c87acf4e41d38bdfb03e2000d";
const PROJECT_IDENTIFIER: &str = "I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819";
const AUTHORITY_IDENTIFIER: &str = "I59469f87a447f9e6302fce0b09d82db8d60657c7a0f76fe88c3b3d1a58286636";
const ROUTE: &str = "/dnsaddr/hub.example/tcp/4000/service/p1/service/api";
const AUTHORITY_ROUTE: &str = "/ip4/10.90.0.1/tcp/4001/service/api";

fn project() -> Project {
    let identity = Identity::from_hex(PROJECT, None).expect("a published vector");
    let authority = Identity::from_hex(AUTHORITY, None).expect("a published vector");
    Project::new("p1", "bank", ROUTE, identity, authority, AUTHORITY_ROUTE).expect("well-formed")
}

fn ticket() -> Ticket {
    Ticket::new(project(), OneTimeCode::from([0xc5; 32]), Some(1_700_000_600))
}

fn stock_line() -> String {
    let code = "c5".repeat(32);
    format!("{ROUTE},{PROJECT_IDENTIFIER},bank,{code},{PROJECT},{AUTHORITY},{AUTHORITY_ROUTE}")
}

fn same(a: &Ticket, b: &Ticket) {
    assert_eq!(a.code(), b.code());
    let (a, b) = (a.project(), b.project());
    assert_eq!(
        (a.id(), a.name(), a.route(), a.authority_route()),
        (b.id(), b.name(), b.route(), b.authority_route())
    );
    assert_eq!(a.identity().history(), b.identity().history());
    assert_eq!(a.authority().history(), b.authority().history());
}

fn error(text: &str) -> TicketError {
    text.parse::<Ticket>().map(|_| ()).expect_err(text)
}

#[test]
fn the_text_is_one_line_of_hex_digits() {
    let text = ticket().to_text();
    assert!(
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    let read: Ticket = text.parse().expect("our own text");
    same(&read, &ticket());
    assert_eq!(read.expires_at(), Some(1_700_000_600));
}

#[test]
fn the_line_starts_with_the_seven_fields_of_the_reference() {
    let line = ticket().to_line();
    assert!(
        line.starts_with(&format!("{},P1.1700000600.", stock_line())),
        "{}",
        &line[line.len() - 60..]
    );
    assert_eq!(line.split(',').count(), 8);
}

#[test]
fn every_form_of_the_reference_is_read_with_white_space_around_it() {
    let ticket = ticket();
    let wrapped = ticket
        .to_text()
        .as_bytes()
        .chunks(76)
        .map(|c| String::from_utf8_lossy(c) + "\r\n")
        .collect::<String>();
    let forms = [
        stock_line(),
        format!("{},something,else", stock_line()),
        hex::encode(stock_line()),
        hex::encode_upper(stock_line()),
        hex::encode(format!("{}\n", stock_line())),
        ticket.to_line().to_string(),
        ticket.to_json().to_string(),
        hex::encode(ticket.to_json().as_bytes()),
        ticket.to_legacy_text().to_string(),
        String::from_utf8(hex::decode(&*ticket.to_legacy_text()).expect("hex")).expect("JSON"),
        wrapped,
    ];
    for form in forms {
        for text in [
            form.clone(),
            format!("\u{feff} {form}\n"),
            format!("\r\n\t{form}\r\n"),
        ] {
            same(&text.parse().unwrap_or_else(|e| panic!("{e}: {form}")), &ticket);
        }
    }
}

#[test]
fn every_truncated_ticket_is_refused() {
    let line = ticket().to_line();
    let shortest_complete = stock_line().len();
    for end in 1..line.len() {
        // Without the eighth field and its comma it is a complete ticket of the reference.
        if end == shortest_complete {
            continue;
        }
        let cut = error(&hex::encode(&line[..end]));
        let expected = if line[..end].contains("/tcp/") {
            matches!(cut, TicketError::Truncated(_))
        } else {
            matches!(cut, TicketError::Truncated(_) | TicketError::NotATicket)
        };
        assert!(expected, "{end} of {}: {cut}", line.len());
    }
    let text = ticket().to_text();
    assert!(matches!(
        error(&text[..text.len() - 1]),
        TicketError::Truncated(_)
    ));
    let json = ticket().to_json();
    assert!(matches!(
        error(&json[..json.len() - 1]),
        TicketError::Truncated(_)
    ));
}

#[test]
fn every_changed_digit_of_our_text_is_noticed() {
    let text = ticket().to_text().to_string();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        error(&String::from_utf8(bytes).expect("hex digits"));
    }
}

#[test]
fn texts_that_are_no_tickets_are_called_so() {
    for text in [
        "hello",
        "deadbeef",
        "/home/me/ticket",
        "{}",
        "{\"a\":1}",
        "a,b,c,d,e,f,g",
        "0",
        "I923829",
        "\u{1f3ab}",
        "[1]",
    ] {
        assert_eq!(error(text), TicketError::NotATicket, "{text}");
    }
    assert_eq!(error(""), TicketError::Empty);
    assert_eq!(error(" \n"), TicketError::Empty);
    assert_eq!(error(&"0".repeat(MAX_TICKET_LEN + 1)), TicketError::TooLong);
    assert!(matches!(
        error("/ip4/1.2.3.4/tcp/1/service/api,a,b,c,d,e"),
        TicketError::Truncated(_)
    ));
}

#[test]
fn an_identifier_of_another_identity_is_refused() {
    for form in [stock_line(), ticket().to_json().to_string()] {
        let forged = form.replacen(PROJECT_IDENTIFIER, AUTHORITY_IDENTIFIER, 1);
        let TicketError::Invalid(invalid) = error(&forged) else {
            panic!("not refused for its identifier")
        };
        assert_eq!(invalid.part, Part::ProjectIdentifier);
    }
    let legacy = String::from_utf8(hex::decode(&*ticket().to_legacy_text()).expect("hex")).expect("JSON");
    error(&legacy.replacen(PROJECT_IDENTIFIER, AUTHORITY_IDENTIFIER, 1));
}

#[test]
fn an_error_names_the_part_and_does_not_repeat_the_ticket() {
    let code = "c5".repeat(32);
    let cases = [
        (stock_line().replace(&code, &code[1..]), Part::Code),
        (stock_line().replace("f405e06d", "f405e06e"), Part::ProjectHistory),
        (
            stock_line().replace("245ba33c", "245ba33d"),
            Part::AuthorityHistory,
        ),
        (
            stock_line().replace("/service/p1/service/api,", "/secure/api,"),
            Part::ProjectRoute,
        ),
        (stock_line().replace("tcp/4000", "tcp/x"), Part::ProjectRoute),
        (
            stock_line().replace("tcp/4001", "tcp/77777"),
            Part::AuthorityRoute,
        ),
        (stock_line().replace(",bank,", ",,"), Part::ProjectName),
    ];
    for (text, part) in cases {
        let error = error(&text);
        assert!(
            !error.to_string().contains(&code[..32]),
            "the code is in: {error}"
        );
        let TicketError::Invalid(invalid) = error else {
            panic!("{part}: {error}")
        };
        assert_eq!(invalid.part, part);
    }
}

#[test]
fn the_code_is_not_in_debug_output() {
    let shown = format!("{:?}", ticket());
    assert!(!shown.contains("c5c5") && !shown.contains("197, 197"), "{shown}");
}

#[test]
fn a_project_whose_id_is_not_in_its_route_gets_a_json_ticket() {
    let identity = Identity::from_hex(PROJECT, None).expect("a published vector");
    let authority = Identity::from_hex(AUTHORITY, None).expect("a published vector");
    let route = "/ip4/127.0.0.1/tcp/4000/secure/api";
    let project =
        Project::new("other", "n", route, identity, authority, AUTHORITY_ROUTE).expect("well-formed");
    let ticket = Ticket::new(project, OneTimeCode::from([1; 32]), None);
    let read: Ticket = ticket.to_text().parse().expect("our own text");
    assert_eq!(read.project().id(), "other");
}

#[test]
fn a_ticket_of_another_project_is_foreign() {
    let ours: Identifier = AUTHORITY_IDENTIFIER.parse().expect("a published vector");
    let other: Identifier = PROJECT_IDENTIFIER.parse().expect("a published vector");
    assert_eq!(ticket().ensure_authority(&ours), Ok(()));
    assert_eq!(
        ticket().ensure_authority(&other),
        Err(TicketError::Foreign {
            expected: other,
            found: ours
        })
    );
}

proptest::proptest! {
    #[test]
    fn no_text_upsets_the_parser(text in "\\PC{0,200}", cut in 0usize..800) {
        let _ = text.parse::<Ticket>();
        let line = stock_line();
        let _ = format!("{}{text}", &line[..cut.min(line.len())]).parse::<Ticket>();
    }
}
