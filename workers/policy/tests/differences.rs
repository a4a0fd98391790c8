//! The differences from stock 0.150 that are wanted: spec 04, "Differences we want", D1–D6 and D11–D15.
//! The checks, D7–D10, are in `checks.rs`.

use portolan_policy::{
    Cause, Decision, MAX_LEVELS, MAX_STORED_BYTES, MAX_TEXT_BYTES, ParseError, Policy, Problem, Severity,
    SubjectEnvironment,
};

const PEER: &str = "Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn decide(text: &str, attributes: &[(&str, &str)]) -> Decision {
    let peer = SubjectEnvironment::new(PEER)
        .with_credential(true)
        .with_attributes(attributes);
    Policy::parse(text).unwrap().evaluate(&peer)
}

fn allows(text: &str, attributes: &[(&str, &str)]) -> bool {
    decide(text, attributes).is_allowed()
}

fn cause(text: &str, attributes: &[(&str, &str)]) -> Option<Cause> {
    decide(text, attributes).reason().map(|reason| reason.cause())
}

fn stored_as(text: &str) -> String {
    Policy::parse(text).unwrap().to_string()
}

#[test]
fn d1_a_name_that_starts_like_a_keyword_is_a_name() {
    for (text, expected) in [
        ("notes", r#"(= subject.notes "true")"#),
        ("note=1", r#"(= subject.note "1")"#),
        ("not-admin", r#"(= subject.not-admin "true")"#),
        ("not_x", r#"(= subject.not_x "true")"#),
        (
            "a and nota",
            r#"(and (= subject.a "true") (= subject.nota "true"))"#,
        ),
        ("not notes", r#"(not (= subject.notes "true"))"#),
        (
            "order and android",
            r#"(and (= subject.order "true") (= subject.android "true"))"#,
        ),
        ("not\ta", r#"(not (= subject.a "true"))"#),
        ("not(a)", r#"(not (= subject.a "true"))"#),
    ] {
        assert_eq!(stored_as(text), expected, "{text}");
    }
    let warnings = |text: &str| {
        let findings = Policy::parse(text).unwrap().check();
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning),
            "{findings:?}"
        );
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect::<Vec<_>>()
    };
    assert!(warnings("a and notes")[0].contains("read this text as `not es`"));
    assert!(warnings("not1 or not.x or order").is_empty());
}

#[test]
fn d2_a_word_that_starts_like_an_operator_is_left_over() {
    for text in ["a orb", "a andy", "(a)orb", "a=\"b\"andc"] {
        let error = Policy::parse(text).unwrap_err();
        assert_eq!(
            error.boolean().map(|e| e.problem()),
            Some(&Problem::LeftOver),
            "{text}"
        );
    }
}

#[test]
fn d3_an_identifier_is_put_into_lower_case() {
    let upper = PEER.to_uppercase();
    assert_eq!(stored_as(&upper), format!("(= subject.identifier \"{PEER}\")"));
    assert!(allows(&upper, &[]));
    assert!(!allows(&format!("not {upper}"), &[]));
    let almost = &upper[..64];
    assert_eq!(stored_as(almost), format!("(= subject.{almost} \"true\")"));
}

#[test]
fn d4_an_unmatched_parenthesis_is_refused() {
    for (text, offset) in [("(= 1 1))", 7), ("and)", 3), ("= 1 1)", 5)] {
        for error in [
            Policy::parse(text).unwrap_err(),
            Policy::parse_stored(text).unwrap_err(),
        ] {
            let error = error.s_expression().unwrap();
            assert_eq!(
                (error.problem(), error.offset()),
                (&Problem::UnmatchedList, offset),
                "{text}"
            );
        }
    }
}

#[test]
fn d5_white_space_may_stand_around_everything() {
    for text in [" a=b", "a=b ", "\ta = b\r\n", "a =b", "a= b", "a = \"b\""] {
        assert_eq!(stored_as(text), r#"(= subject.a "b")"#, "{text:?}");
    }
    assert_eq!(stored_as("not a "), r#"(not (= subject.a "true"))"#);
}

#[test]
fn d6_deep_or_long_texts_are_refused_and_never_overflow_the_stack() {
    let deep: Vec<String> = vec![
        "not ".repeat(10_000) + "a",
        "(".repeat(10_000),
        "(".repeat(10_000) + "a" + &")".repeat(10_000),
        "(and ".repeat(10_000) + &")".repeat(10_000),
        "[".repeat(10_000),
        "(= ".to_owned() + &"[".repeat(5_000) + &"]".repeat(5_000) + " 1)",
        "not(".repeat(10_000) + "a" + &")".repeat(10_000),
    ];
    for text in &deep {
        let error = Policy::parse(text).unwrap_err();
        let problems = [error.boolean(), error.s_expression()];
        assert!(
            problems
                .into_iter()
                .flatten()
                .any(|e| *e.problem() == Problem::TooDeep),
            "{}",
            &text[..20]
        );
    }
    // 100,000 levels, where the longer limit lets them in at all.
    for unit in ["(", "[", "(not ", "(and (or"] {
        let text = unit.repeat(100_000);
        assert!(Policy::parse_stored(&text[..text.len().min(MAX_STORED_BYTES)]).is_err());
        assert!(matches!(
            Policy::parse(&text),
            Err(ParseError::TooLong {
                limit: MAX_TEXT_BYTES,
                ..
            })
        ));
    }
    let long = format!("a=\"{}\"", "x".repeat(MAX_TEXT_BYTES));
    assert!(matches!(Policy::parse(&long), Err(ParseError::TooLong { .. })));
}

#[test]
fn d6_the_deepest_allowed_policy_works_on_a_small_stack() {
    let work = || {
        let deepest: Vec<String> = vec![
            "not ".repeat(MAX_LEVELS - 1) + "a",
            "(".repeat(MAX_LEVELS) + "a" + &")".repeat(MAX_LEVELS),
            "(and ".repeat(MAX_LEVELS - 1) + "(= subject.a \"true\")" + &")".repeat(MAX_LEVELS - 1),
            "(if true ".repeat(MAX_LEVELS - 1) + "(= 1 1)" + &" false)".repeat(MAX_LEVELS - 1),
            format!(
                "(= {0}{1} {0}{1})",
                "[".repeat(MAX_LEVELS - 1),
                "]".repeat(MAX_LEVELS - 1)
            ),
            "(".repeat(MAX_LEVELS - 1) + "and" + &")".repeat(MAX_LEVELS - 1),
        ];
        for text in &deepest {
            let policy = Policy::parse(text).unwrap();
            assert!(policy.levels() <= MAX_LEVELS);
            let copy = Policy::parse_stored(&policy.to_string()).unwrap();
            assert_eq!(copy, policy);
            let attributes = [("a", "true")];
            let peer = SubjectEnvironment::new(PEER)
                .with_credential(true)
                .with_attributes(&attributes);
            assert_eq!(copy.evaluate(&peer), policy.evaluate(&peer));
            let _ = (
                policy.explain(&peer).to_string(),
                policy.check(),
                format!("{policy:?}").len(),
            );
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(work)
        .unwrap();
    thread.join().unwrap();
}

#[test]
fn d6_a_long_chain_is_one_flat_list_and_is_stored_whole() {
    for (joint, attributes) in [(" or ", [("z", "true")]), (" and ", [("a", "true")])] {
        let mut terms = vec!["a"; 7_000];
        if joint == " or " {
            terms.push("z");
        }
        let policy = Policy::parse(&terms.join(joint)).unwrap();
        assert_eq!(policy.levels(), 2);
        let peer = SubjectEnvironment::new(PEER)
            .with_credential(true)
            .with_attributes(&attributes);
        assert_eq!(policy.evaluate(&peer), Decision::Allow);
        assert_eq!(Policy::parse_stored(&policy.to_string()), Ok(policy));
    }
    let ten_thousand = vec!["a"; 10_000].join(" or ");
    assert_eq!(Policy::parse(&ten_thousand).unwrap().levels(), 2);
}

#[test]
fn d11_a_missing_attribute_decides_nothing() {
    let database = [("database", "true")];
    assert!(allows("web or database", &database));
    assert!(allows("database or web", &database));
    assert!(!allows("web and database", &database));
    assert!(allows(r#"(not (and (= subject.x "1") false))"#, &[]));
    assert!(allows(r#"(or (= subject.x "1") true)"#, &[]));
    // What depends on it stays unknown and denies.
    for text in [
        "blocked",
        "not blocked",
        "not not blocked",
        "not (blocked and database)",
        r#"(!= subject.blocked "true")"#,
        r#"(not (member? subject.blocked ["a"]))"#,
        r#"(not (= [subject.blocked] ["a" "b"]))"#,
        r#"(if (= subject.blocked "x") true true)"#,
        r#"(not (< subject.blocked "x"))"#,
        r#"(not (= "a" "b" subject.blocked))"#,
    ] {
        assert_eq!(cause(text, &database), Some(Cause::Missing), "{text}");
    }
    // Every value that stock yields is the same here.
    assert_eq!(
        cause(r#"(if (exists? subject.x) (= subject.x "1") false)"#, &[]),
        Some(Cause::False)
    );
    assert_eq!(cause("web and database", &[("web", "no")]), Some(Cause::False));
}

#[test]
fn d11_other_errors_still_abort() {
    for (text, expected) in [
        ("(or (foo 1) true)", Cause::UnknownOperator),
        ("(or (= 1) true)", Cause::WrongArity),
        ("(or (= 1 \"a\") true)", Cause::TypeClash),
        ("(or 1 true)", Cause::WrongOperand),
        ("(or (= subject.x \"1\") (1 2) true)", Cause::NotAnOperator),
        // Errors whatever the missing attribute were: attributes are strings.
        ("(or (= subject.x 3) true)", Cause::TypeClash),
        ("(or subject.x true)", Cause::WrongOperand),
        ("(or (not subject.x) true)", Cause::WrongOperand),
        ("(or (if subject.x true true) true)", Cause::WrongOperand),
        ("(or (member? \"a\" subject.x) true)", Cause::WrongOperand),
        ("(or (= [subject.x] [3]) true)", Cause::TypeClash),
        ("(or (member? 1 [subject.x]) true)", Cause::TypeClash),
        // Errors for some values of it.
        ("(or (= \"a\" subject.x 3) true)", Cause::TypeClash),
        (
            "(or (if (= subject.x \"1\") (foo) true) true)",
            Cause::UnknownOperator,
        ),
        ("(or (if (= subject.x \"1\") 5 false) true)", Cause::WrongOperand),
        ("(or (and (= subject.x \"1\") 5) true)", Cause::WrongOperand),
    ] {
        assert_eq!(cause(text, &[]), Some(expected), "{text}");
    }
    // No value of it would reach the clash.
    assert!(allows("(or (= 1 2 \"a\" subject.x) true)", &[]));
}

#[test]
fn d12_built_in_names_win_over_forged_attributes() {
    let other = PEER.replace('a', "b");
    let forged = [("identifier", other.as_str()), ("has_credential", "x")];
    assert!(allows(PEER, &forged));
    assert!(!allows(&other, &forged));
    assert!(allows("(= subject.has_credential true)", &forged));
    let peer = SubjectEnvironment::new(PEER)
        .with_credential(true)
        .with_attributes(&forged);
    assert_eq!(peer.forged_attributes().count(), 2);
}

#[test]
fn d13_a_denial_names_the_sub_expression_and_the_reason() {
    let attributes = [("role", "admin"), ("level", "3")];
    for (text, expected) in [
        (
            "role=admin and level=4",
            r#"denied: (= subject.level "4") is false"#,
        ),
        (
            "role=user or level=4",
            r#"denied: (or (= subject.role "user") (= subject.level "4")) is false"#,
        ),
        (
            "not role=admin",
            r#"denied: (not (= subject.role "admin")) is false"#,
        ),
        (
            "role=admin and team=blue",
            r#"denied: the peer has no attribute `team`, in (= subject.team "blue")"#,
        ),
        (
            "(and (= subject.role \"admin\") (= subject.level 3))",
            "denied: type clash at (= subject.level 3): values of different types do not compare",
        ),
        ("(and true (foo 1))", "denied: unknown operator at (foo 1)"),
        ("(and true 5)", "denied: 5 is neither true nor false"),
        ("(not 1 2)", "denied: wrong number of operands at (not 1 2)"),
        (
            "(= resource.version 1)",
            "denied: nothing binds the name `resource.version`, in (= resource.version 1)",
        ),
    ] {
        assert_eq!(decide(text, &attributes).to_string(), expected, "{text}");
    }
    let denied = decide("team=blue", &attributes);
    let reason = denied.reason().unwrap();
    assert_eq!(
        (reason.missing(), reason.cause().label()),
        (Some("subject.team"), "missing")
    );
    assert!(!reason.cause().is_defect());
    // A log line stays short.
    let long = decide(&format!("a=\"{}\"", "x".repeat(60_000)), &[("a", "b")]);
    assert!(long.to_string().len() < 300);
}

#[test]
fn d13_an_explanation_lists_what_the_names_stood_for() {
    let attributes = [("role", "ad\u{202e}min")];
    let peer = SubjectEnvironment::new(PEER)
        .with_credential(true)
        .with_attributes(&attributes);
    let explanation =
        Policy::parse("(and (= subject.role \"x\") (= subject.zone \"eu\") (= subject.has_credential true))")
            .unwrap()
            .explain(&peer);
    assert_eq!(
        explanation.to_string(),
        "denied: (= subject.role \"x\") is false\n  \
         policy: (and (= subject.role \"x\") (= subject.zone \"eu\") (= subject.has_credential true))\n  \
         subject.role is \"ad\\u{202e}min\"\n  \
         subject.zone has no value\n  \
         subject.has_credential is true"
    );
    assert!(!explanation.decision().is_allowed());
    assert_eq!(explanation.bindings().len(), 3);
    assert!(
        Policy::parse("role")
            .unwrap()
            .explain(&peer)
            .to_string()
            .starts_with("denied")
    );
}

#[test]
fn d14_what_is_printed_reads_back_as_the_same_expression() {
    for (text, printed) in [
        ("(= $true true)", r#"(= $"true" true)"#),
        ("(= $\"a b\" \"x\")", r#"(= $"a b" "x")"#),
        ("(exists? $#)", r##"(exists? $"#")"##),
        ("(= \"\\00a\" \"\")", r#"(= "\u{0}a" "")"#),
        ("(= \"\\u{202e}\\7f\" \"\")", r#"(= "\u{202e}\u{7f}" "")"#),
        (
            "(= $12 $-a $nan $$a $@b)",
            r#"(= $"12" $"-a" $"nan" $"$a" $"@b")"#,
        ),
        (
            "(= 1e3 0x10 1e400 -inf -nan 1e300 [] ())",
            "(= 1000.0 16 +inf -inf -nan 1e300 [] ())",
        ),
        ("= \"a\\\"\\\\\\t\" 1", r#"(= "a\"\\\t" 1)"#),
        (
            "(= \"é\" [1 2] [[\"a\"] [\"b\"]])",
            r#"(= "é" [1 2] [["a"] ["b"]])"#,
        ),
        ("x=\"a\nb\\\"", r#"(= subject.x "a\nb\\")"#),
    ] {
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.to_string(), printed, "{text}");
        assert_eq!(Policy::parse_stored(printed).unwrap(), policy, "{text}");
    }
}

#[test]
fn d14_check_warns_about_text_that_stock_nodes_damage() {
    for text in ["(exists? $\"subject.a b\")", "(= subject.a \"\\00a\")"] {
        let findings = Policy::parse(text).unwrap().check();
        assert!(
            findings
                .iter()
                .any(|f| f.severity == Severity::Warning && f.message.contains("stock 0.150")),
            "{text}"
        );
        assert!(
            findings.iter().all(|f| f.severity == Severity::Warning),
            "{findings:?}"
        );
    }
}

#[test]
fn d15_an_error_shows_position_and_caret_for_both_forms() {
    let error = Policy::parse("component=web andy").unwrap_err();
    assert_eq!(
        error.to_string(),
        "boolean form, position 15: text left over: expected `and`, `or` or the end\n  \
         component=web andy\n  \
         \u{20}             ^\n\
         S-expression form, position 1: the first element must be an operator: and or not if < > = != member? exists?\n  \
         component=web andy\n  \
         ^"
    );
    assert_eq!(
        error.summary(),
        "the policy is wrong at position 15: text left over: expected `and`, `or` or the end"
    );
    let error = Policy::parse_stored("(= subject.a 'x')").unwrap_err();
    assert!(
        error.to_string().starts_with("S-expression form, position 14: "),
        "{error}"
    );
    assert!(error.to_string().ends_with("\n               ^"), "{error}");
    let error = Policy::parse("(= subject.a\n  \"é\" 'x')").unwrap_err();
    assert!(
        error.to_string().contains("position 20 (line 2, column 7)"),
        "{error}"
    );
    assert!(
        error.summary().contains("line 2, column 7"),
        "{}",
        error.summary()
    );
}

#[test]
fn d15_an_excerpt_is_short_and_cannot_disturb_a_terminal() {
    let text = format!(
        "{} \u{1b}[31m\u{202e} {}",
        "a and ".repeat(1_000),
        "b or ".repeat(1_000)
    );
    let error = Policy::parse(&text).unwrap_err().to_string();
    assert!(error.len() < 1_000, "{error}");
    assert!(!error.contains(['\u{1b}', '\u{202e}']));
    for line in error.lines().filter(|line| line.ends_with('^')) {
        assert!(line.chars().count() < 60);
    }
}

#[test]
fn every_mistake_is_told_where_it_is() {
    for (text, offset, problem) in [
        ("a and", 5, Problem::DanglingKeyword("and")),
        ("a or ( )", 7, Problem::ExpectedTerm),
        ("(a and b", 0, Problem::UnclosedList),
        ("a=", 2, Problem::ExpectedValue),
        ("a=\"b", 2, Problem::UnclosedString),
        ("a b", 2, Problem::LeftOver),
        ("a)", 1, Problem::UnmatchedList),
        ("  ", 2, Problem::Empty),
        ("a and *", 6, Problem::ExpectedTerm),
    ] {
        let error = Policy::parse(text).unwrap_err();
        let boolean = error.boolean().unwrap();
        assert_eq!(
            (boolean.offset(), boolean.problem()),
            (offset, &problem),
            "{text}"
        );
    }
    for (text, offset, problem) in [
        ("(= 1 [1 2)", 9, Problem::UnmatchedList),
        ("(= 1 1]", 6, Problem::UnmatchedSequence),
        ("(= 1 [1 2", 5, Problem::UnclosedSequence),
        ("(= [1 \"a\"] 1)", 3, Problem::MixedSequence),
        ("(= 1 99999999999999999999)", 5, Problem::Integer),
        ("(= \"\\q\" 1)", 4, Problem::BadEscape),
        ("(foo)", 0, Problem::NoOperator),
        ("(= subject.a 'x')", 13, Problem::SingleQuotes),
        ("(; a", 0, Problem::UnclosedComment),
    ] {
        let error = Policy::parse_stored(text).unwrap_err();
        let problem_there = error.s_expression().unwrap();
        assert_eq!(
            (problem_there.offset(), problem_there.problem()),
            (offset, &problem),
            "{text}"
        );
    }
}

#[test]
fn neighbours_in_a_sequence_are_compared_as_they_are_written() {
    for text in [
        r#"(= [(= 1 1) (= "a" "a")] 1)"#,
        r#"(= [[1] ["a"]] 1)"#,
        r#"(= [1 2 "a"] 1)"#,
        r#"(= [subject.a "x"] 1)"#,
        "(= [1 1.0] 1)",
    ] {
        assert!(Policy::parse_stored(text).is_err(), "{text}");
    }
    for text in [
        r#"(= [(= 1 1) (< "a" "b")] 1)"#,
        r#"(= [[1 2] ["a"]] 1)"#,
        "(= [] 1)",
        "(= [[] [[]]] 1)",
    ] {
        assert!(Policy::parse_stored(text).is_ok(), "{text}");
    }
}
