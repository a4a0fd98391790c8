//! The example rows of spec 04, A5, with the differences applied.

use portolan_policy::{Cause, Decision, Policy, SubjectEnvironment};

const PEER: &str = "Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ATTRIBUTES: [(&str, &str); 5] = [
    ("component", "web"),
    ("role", "admin"),
    ("a", "true"),
    ("b", "true"),
    ("level", "3"),
];

/// What a text is under the environment E of A5.
fn outcome(policy: Result<Policy, portolan_policy::ParseError>) -> &'static str {
    let peer = SubjectEnvironment::new(PEER)
        .with_credential(true)
        .with_attributes(&ATTRIBUTES)
        .with_resource("outlet")
        .with_action("handle_message");
    match policy.map(|policy| policy.evaluate(&peer)) {
        Err(_) => "rejected",
        Ok(Decision::Allow) => "true",
        Ok(Decision::Deny(reason)) => match reason.cause() {
            // "unbound" in the table: unknown, or an error that no value of the missing attribute would avoid.
            Cause::Missing => "unbound",
            cause => cause.label(),
        },
    }
}

fn typed(text: &str) -> &'static str {
    outcome(Policy::parse(text))
}

fn stored(text: &str) -> &'static str {
    outcome(Policy::parse_stored(text))
}

#[test]
fn every_s_expression_row_decides_as_the_table_says() {
    let rows: &[(u32, &str, &str)] = &[
        (1, "(= subject.has_credential true)", "true"),
        (2, r#"(= subject.component "web")"#, "true"),
        (3, r#"= subject.component "web""#, "true"),
        (4, r#"(= subject.component "global_value")"#, "false"),
        (
            5,
            r#"(and (= subject.component "web") (= subject.role "admin"))"#,
            "true",
        ),
        (
            6,
            // The missing `c` is never looked at.
            r#"and (or (= subject.a "true") (= subject.identifier "I228786ae") (not (= subject.c "d")))"#,
            "true",
        ),
        (7, r#"(or (= subject.role "admin") (= subject.x "1"))"#, "true"),
        // D11: stock is Unbound.
        (8, r#"(or (= subject.x "1") (= subject.role "admin"))"#, "true"),
        (9, r#"(and (= subject.role "user") (= subject.x "1"))"#, "false"),
        (10, r#"(not (= subject.role "admin"))"#, "false"),
        (11, r#"(not (= subject.x "1"))"#, "unbound"),
        (12, r#"(if (exists? subject.x) (= subject.x "1") false)"#, "false"),
        (13, "(exists? subject.a subject.b)", "true"),
        (14, "(exists? subject.a subject.zz)", "false"),
        (15, "(exists?)", "true"),
        (16, r#"(exists? "subject.a")"#, "wrong-operand"),
        (17, r#"(member? subject.role ["admin" "ops"])"#, "true"),
        (18, r#"(member? "x" [])"#, "false"),
        (19, r#"(member? 1 ["a"])"#, "type-clash"),
        (20, "(member? 1 2)", "wrong-operand"),
        (21, "(member? 1)", "wrong-arity"),
        (22, "(< 1 2 3)", "true"),
        (23, "(< 1 3 2)", "false"),
        (24, r#"(< "a" "b")"#, "true"),
        (25, "(< false true)", "true"),
        (26, "(< [9] [1 2])", "true"),
        (27, "(= [1 2] [1 2])", "true"),
        (28, "(= [1] [1 2])", "false"),
        (29, "(= 1 1.0)", "type-clash"),
        (30, "(= subject.level 3)", "type-clash"),
        (31, r#"(= subject.level "3")"#, "true"),
        (32, "(!= 1 2)", "true"),
        (33, "(!= 1 2 1)", "true"),
        (34, "(!= 1)", "false"),
        (34, "(!=)", "false"),
        (35, "(= 1)", "wrong-arity"),
        (36, "(and)", "unbound"),
        (36, "(or)", "unbound"),
        (37, "(and true 5)", "not-boolean"),
        (38, "(and 5 true)", "wrong-operand"),
        (39, "(or false 5)", "not-boolean"),
        (40, "(not 1)", "wrong-operand"),
        (41, "(not)", "unbound"),
        (42, "(if 1 true false)", "wrong-operand"),
        (43, "(if true 1 2)", "not-boolean"),
        (44, "(= 0x10 16)", "true"),
        (45, "(= 1_000 1000)", "true"),
        (46, "(= 1e3 1000.0)", "true"),
        (47, "(= nan nan)", "false"),
        (48, "(< 1 +inf)", "type-clash"),
        (49, "(= () ())", "true"),
        (50, r#"(= resource.id "outlet")"#, "true"),
        (51, r#"(= $subject.a "true")"#, "true"),
        (52, r#"(= subject.a "tr\u{75}e")"#, "true"),
        (53, "(= 1 1) ;; note", "true"),
        (55, r#"(= subject.test = "true")"#, "unbound"),
        (56, "(and true (foo 1))", "unknown-operator"),
        (57, "(or true (foo 1))", "true"),
        (58, "and", "unbound"),
        (59, "((and) true)", "not-an-operator"),
        // D4: stock takes a surplus parenthesis.
        (60, "(= 1 1))", "rejected"),
        (60, "= 1 1)", "rejected"),
        (60, "and)", "rejected"),
        (61, "(and true true) (or false)", "not-an-operator"),
        (62, "(= True true)", "unbound"),
        (63, "(and (= resource.version 1) true)", "unbound"),
        (65, "(foo 1 2)", "rejected"),
        (67, "()", "rejected"),
        (68, "", "rejected"),
        (69, "(= 1 1", "rejected"),
        (70, "[1", "rejected"),
        (71, r#"(= [1 "a"] [1])"#, "rejected"),
        (72, r#"(= [subject.a "x"] [1])"#, "rejected"),
        (73, "(= subject.a 'x')", "rejected"),
        (74, "(= 1 1) #", "rejected"),
        (74, "a#", "rejected"),
        (75, "(= 9223372036854775808 1)", "rejected"),
        (76, "(= .5 0.5)", "rejected"),
        (106, r#"(= 1 2 "a")"#, "false"),
        (106, r#"(= 1 1 "a")"#, "type-clash"),
        (106, "(= 1 2 subject.zz)", "unbound"),
        (
            107,
            r#"(member? "true" [subject.a subject.has_credential])"#,
            "true",
        ),
        (
            107,
            r#"(member? "x" [subject.a subject.has_credential])"#,
            "type-clash",
        ),
        (108, "(!= nan nan)", "true"),
        (108, "(= [nan] [nan])", "false"),
        (108, "(member? nan [nan])", "false"),
        (109, "(= 0.0 -0.0)", "true"),
        (109, "(= 1e400 inf)", "true"),
        (109, "(= -0x10 -16)", "true"),
        (110, r#"(< "10" "9")"#, "true"),
        (110, r#"(< "Z" "a")"#, "true"),
        (110, r#"(< "é" "z")"#, "false"),
        (111, "(< [1 3] [1 2])", "false"),
        (111, "(> [2 0] [1 9])", "true"),
        (111, "(< [] [])", "false"),
        (111, "(= () [])", "type-clash"),
        (112, r#"(and "true")"#, "not-boolean"),
        (112, r#"(and (= subject.a "true") subject.a)"#, "not-boolean"),
        (113, "(if true true subject.zz)", "true"),
        (113, "(and false (1 2))", "false"),
        (113, r#"(or true ("x"))"#, "true"),
        (114, "((= 1 1))", "not-an-operator"),
        (114, "(= (1) (2))", "not-an-operator"),
        (115, "(= 1 1)]", "rejected"),
        (115, "[= 1 1]", "rejected"),
        (115, "(and (= 1 1]", "rejected"),
        (115, "(= [1 2) 3)", "rejected"),
        (116, r#"(= @subject.a "true")"#, "true"),
        (116, r#"(= @"a b" "x")"#, "rejected"),
        (116, "(= $ 1)", "rejected"),
    ];
    for (row, text, expected) in rows {
        assert_eq!(typed(text), *expected, "row {row}: {text}");
    }
}

#[test]
fn rows_for_the_s_expression_parser_alone_decide_as_the_table_says() {
    let rows: &[(u32, &str, &str)] = &[
        (36, "(and)", "true"),
        (36, "(or)", "false"),
        (41, "(not)", "wrong-arity"),
        (58, "and", "unbound"),
        (64, "a or b", "rejected"),
        (65, "(foo)", "rejected"),
        (66, "true", "rejected"),
        (67, "()", "rejected"),
        (68, "  ;; nothing", "rejected"),
    ];
    for (row, text, expected) in rows {
        assert_eq!(stored(text), *expected, "row {row}: {text}");
    }
}

#[test]
fn a_thousand_brackets_compare_and_read_back() {
    let nested = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let text = format!("(= {nested} {nested})");
    assert_eq!(typed(&text), "true", "row 54");
    assert_eq!(Policy::parse(&text).unwrap().to_string(), text);
}

#[test]
fn without_bindings_a_comparison_is_unknown_and_bound_false_is_false() {
    let policy = Policy::parse("(= subject.has_credential true)").unwrap();
    let cause = |decision: Decision| decision.reason().map(|reason| reason.cause());
    assert_eq!(
        cause(policy.evaluate(&SubjectEnvironment::new(PEER))),
        Some(Cause::Missing)
    );
    assert_eq!(
        cause(policy.evaluate(&SubjectEnvironment::new(PEER).with_credential(false))),
        Some(Cause::False)
    );
}

#[test]
fn every_boolean_row_decides_as_the_table_says() {
    let identifier = "I69c228786aec9341b3c1912423ae769f63200ceb553a2eba4c5b262b6766fc7c";
    let with_and = format!("{identifier} and a");
    let with_value = format!("{identifier}=x");
    let rows: &[(u32, &str, &str)] = &[
        (77, "a", "true"),
        (78, "a and b", "true"),
        (79, "a and b and c", "unbound"),
        (80, "a or b or c", "true"),
        // D11: stock is Unbound.
        (81, "c or a", "true"),
        (82, "a or b and not c", "true"),
        (83, "not a", "false"),
        (84, "not (not a)", "true"),
        (85, "( ( (a )))", "true"),
        (86, "(a or b) and (not c)", "unbound"),
        (87, "a and c=d", "unbound"),
        (88, "a=\"the value\" and c", "false"),
        (89, "component=\"web\" or component=\"database\"", "true"),
        (90, "name.1=a-b", "unbound"),
        (91, "___reserved", "unbound"),
        (92, &with_and, "false"),
        (93, "component.db or component.web", "unbound"),
        (94, "true", "unbound"),
        // D1: a name, not `not hing`.
        (95, "nothing", "unbound"),
        // D2: stock reads `a or b`.
        (96, "a orb", "rejected"),
        (97, "na*me", "rejected"),
        (98, "()", "rejected"),
        (99, "a and", "rejected"),
        (100, "a and b not c", "rejected"),
        (101, "(a and b) or (c and d))", "rejected"),
        (102, "a=\"\"", "rejected"),
        (102, "a=", "rejected"),
        (103, "=b", "rejected"),
        (103, "*", "rejected"),
        (103, "1", "rejected"),
        (103, ".a", "rejected"),
        (104, "component.db or", "rejected"),
        // D5: stock rejects white space here.
        (105, "a = true", "true"),
        (105, " a", "true"),
        (105, "a ", "true"),
        // D1: `notnot` is a name.
        (117, "notnot a", "rejected"),
        (117, "not(a)", "false"),
        (117, "(a)and(b)", "true"),
        (117, "a=\"true\"and b", "true"),
        (118, "a or b and c or d", "true"),
        (119, "a=\"b\"\"", "rejected"),
        (119, "a=\"b c", "rejected"),
        (119, "a==b", "rejected"),
        (119, "a=b=c", "rejected"),
        (119, &with_value, "rejected"),
        (120, "a=.x", "false"),
        (120, "a=-x", "false"),
        (120, "a=not", "false"),
        (120, "-", "unbound"),
        (120, "a..b", "unbound"),
        (120, "a.", "unbound"),
    ];
    for (row, text, expected) in rows {
        assert_eq!(typed(text), *expected, "row {row}: {text}");
    }
}

#[test]
fn the_boolean_form_is_stored_as_its_translation() {
    let rows: &[(&str, &str)] = &[
        ("a", r#"(= subject.a "true")"#),
        // D6: a chain of one keyword is one list.
        (
            "a and b and c",
            r#"(and (= subject.a "true") (= subject.b "true") (= subject.c "true"))"#,
        ),
        (
            "a or b or c",
            r#"(or (= subject.a "true") (= subject.b "true") (= subject.c "true"))"#,
        ),
        (
            "a or b and not c",
            r#"(or (= subject.a "true") (and (= subject.b "true") (not (= subject.c "true"))))"#,
        ),
        (
            "a or b and c or d",
            r#"(or (= subject.a "true") (and (= subject.b "true") (= subject.c "true")) (= subject.d "true"))"#,
        ),
        (
            "(a or b) and (not c)",
            r#"(and (or (= subject.a "true") (= subject.b "true")) (not (= subject.c "true")))"#,
        ),
        ("not (not a)", r#"(not (not (= subject.a "true")))"#),
        (
            "not a and b",
            r#"(and (not (= subject.a "true")) (= subject.b "true"))"#,
        ),
        (
            "((a or (b)))or c",
            r#"(or (or (= subject.a "true") (= subject.b "true")) (= subject.c "true"))"#,
        ),
        ("a=\"the value\"", r#"(= subject.a "the value")"#),
        ("a=\"b\"and c", r#"(and (= subject.a "b") (= subject.c "true"))"#),
        ("name.1=a-b", r#"(= subject.name.1 "a-b")"#),
        ("or or or", r#"(or (= subject.or "true") (= subject.or "true"))"#),
        (
            "component.db or component.web",
            r#"(or (= subject.component.db "true") (= subject.component.web "true"))"#,
        ),
        ("true", r#"(= subject.true "true")"#),
        ("(and)", r#"(= subject.and "true")"#),
        ("(not)", r#"(= subject.not "true")"#),
        ("not", r#"(= subject.not "true")"#),
        (
            "a and not",
            r#"(and (= subject.a "true") (= subject.not "true"))"#,
        ),
        ("(not subject.a)", r#"(not (= subject.subject.a "true"))"#),
        ("(not (and))", r#"(not (= subject.and "true"))"#),
        ("(foo)", r#"(= subject.foo "true")"#),
    ];
    for (text, expected) in rows {
        assert_eq!(Policy::parse(text).unwrap().to_string(), *expected, "{text}");
    }
}
