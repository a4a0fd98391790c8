//! Mistakes that parse: differences D7–D10.

use portolan_policy::{DEFAULT_EXPRESSION, Finding, MAX_FINDINGS, Policy, Severity};

fn check(text: &str) -> Vec<Finding> {
    Policy::parse(text).unwrap().check()
}

fn errors(text: &str) -> Vec<Finding> {
    check(text)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect()
}

/// The policy is refused, with the intended spelling; that one is not refused.
#[track_caller]
fn is_refused(text: &str, suggestion: Option<&str>) {
    let errors = errors(text);
    assert!(!errors.is_empty(), "{text} passes");
    assert_eq!(
        errors[0].suggestion.as_deref(),
        suggestion,
        "{text}: {}",
        errors[0]
    );
    if let Some(suggestion) = suggestion {
        assert_eq!(self::errors(suggestion), [], "{suggestion}");
    }
}

#[track_caller]
fn is_warned(text: &str, words: &str) {
    let findings = check(text);
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity == Severity::Warning),
        "{text}: {findings:?}"
    );
    assert!(
        findings.iter().any(|finding| finding.message.contains(words)),
        "{text}: {findings:?}"
    );
}

#[test]
fn usual_policies_have_no_findings() {
    for text in [
        DEFAULT_EXPRESSION,
        "component=web",
        "component.web or component.db",
        "postgres-inlet=true and not (blocked or team=\"red team\")",
        "(a)",
        "I69C228786AEC9341B3C1912423AE769F63200CEB553A2EBA4C5B262B6766FC7C or ockam-relay",
        r#"(and (= subject.component "web") (member? subject.role ["admin" "ops"]))"#,
        r#"(if (exists? subject.x) (= subject.x "1") (!= resource.id "outlet"))"#,
        r#"(or (< subject.name "m") (> subject.a subject.b "x"))"#,
        r#"(= action.id "handle_message")"#,
        "(= subject.identifier \"I69c228786aec9341b3c1912423ae769f63200ceb553a2eba4c5b262b6766fc7c\")",
    ] {
        assert_eq!(check(text), [], "{text}");
    }
}

#[test]
fn d7_names_that_mean_something_else_are_refused() {
    is_refused("true", Some("(and true)"));
    is_refused("(and)", Some("(and true)"));
    is_refused("false", Some("(or false)"));
    is_refused("(or)", Some("(or false)"));
    is_refused("(not)", Some(r#"(= subject.not "true")"#));
    is_refused("(if)", Some(r#"(= subject.if "true")"#));
    is_refused(
        "a and true=1",
        Some(r#"(and (= subject.a "true") (= subject.true "1"))"#),
    );
    is_refused("(not true)", Some("(not (and true))"));
    is_refused("(not (and))", Some("(not (and true))"));
    is_refused("(not subject.a)", Some(r#"(not (= subject.a "true"))"#));
    is_refused("subject.role=admin", Some(r#"(= subject.role "admin")"#));
    is_refused("resource.id=outlet", Some(r#"(= resource.id "outlet")"#));
    // The S-expression says what it says.
    assert_eq!(check(r#"(= subject.true "true")"#), []);
    assert_eq!(check(r#"(= subject.subject.a "true")"#), []);
}

#[test]
fn d8_has_credential_in_the_boolean_form_is_refused() {
    is_refused("has_credential", Some("(= subject.has_credential true)"));
    is_refused("has_credential=false", Some("(= subject.has_credential false)"));
    is_refused("subject.has_credential", Some("(= subject.has_credential true)"));
    is_refused(
        "a and has_credential",
        Some(r#"(and (= subject.a "true") (= subject.has_credential true))"#),
    );
    is_refused(
        r#"(= subject.has_credential "true")"#,
        Some("(= subject.has_credential true)"),
    );
    is_refused(
        "subject.has_credential and a",
        Some(r#"(and (= subject.has_credential true) (= subject.a "true"))"#),
    );
}

#[test]
fn d9_certain_errors_are_refused() {
    is_refused("(= subject.level 3)", Some(r#"(= subject.level "3")"#));
    is_refused("(= 1 1.0)", Some("(= 1.0 1.0)"));
    is_refused("(and true 5)", None);
    is_refused("(= 1)", None);
    is_refused("(not = 1)", Some(r#"(= subject.not "1")"#));
    is_refused("not a orb", None);
    is_refused("((and) true)", None);
    is_refused("(= True true)", Some("(= true true)"));
    is_refused("(= resource.version 1)", None);
    is_refused(r#"(= subject.test = "true")"#, Some(r#"(= subject.test "true")"#));
    is_refused(r#"(and (== subject.a "x"))"#, Some(r#"(and (= subject.a "x"))"#));
    is_refused("(and (foo 1))", None);
    is_refused(
        r#"(and subject.a (= subject.b "x"))"#,
        Some(r#"(and (= subject.a "true") (= subject.b "x"))"#),
    );
    is_refused(r#"(= component "web")"#, Some(r#"(= subject.component "web")"#));
    is_refused("(if true 1 2)", None);
    is_refused("(if (= 1 2) true 2)", None);
    is_refused(
        r#"(member? subject.role "admin")"#,
        Some(r#"(member? subject.role ["admin"])"#),
    );
    is_refused(
        "(member? subject.role [1 2])",
        Some(r#"(member? subject.role ["1" "2"])"#),
    );
    is_refused(r#"(exists? "subject.a")"#, Some("(exists? subject.a)"));
    is_refused("(exists? 1)", None);
    is_refused("(< 1 +inf)", Some("(< 1.0 +inf)"));
    is_refused("and", Some("(and true)"));
}

#[test]
fn d9_in_dead_branches_there_is_a_warning() {
    is_warned("(or true (foo 1))", "unknown operator `foo`");
    is_warned("(and (= 1 2) (= subject.level 3))", "never evaluated");
    is_warned("(if true (= subject.a \"x\") (= True true))", "never evaluated");
    // In a branch that may be taken it is an error.
    is_refused("(or (= subject.a \"x\") (foo 1))", None);
}

#[test]
fn d10_surprises_are_warned_about() {
    is_warned("(!= subject.a \"1\" subject.b)", "not all neighbours are equal");
    is_warned("(or (= subject.a \"1\") (!=))", "always false");
    is_warned("(!= nan nan)", "`nan` equals nothing");
    is_warned(
        "(< [subject.a] [\"1\" \"2\"])",
        "a shorter sequence is always less",
    );
    is_warned(r#"(< "10" "9")"#, "character by character");
    is_warned(r#"(> subject.level "9")"#, "character by character");
    assert_eq!(check(r#"(< subject.name "inf" "m")"#), []);
}

#[test]
fn policies_that_do_not_depend_on_the_peer_are_warned_about() {
    is_warned("(and true)", "allows every peer");
    is_warned(r#"(or (= subject.a "x") (= 1 1))"#, "allows every peer");
    is_warned("(not (exists?))", "denies every peer");
}

#[test]
fn an_identifier_that_nobody_has_is_warned_about() {
    let upper = "I69C228786AEC9341B3C1912423AE769F63200CEB553A2EBA4C5B262B6766FC7C";
    let findings = check(&format!("(= subject.identifier \"{upper}\")"));
    assert_eq!(
        findings[0].suggestion.as_deref(),
        Some("(= subject.identifier \"I69c228786aec9341b3c1912423ae769f63200ceb553a2eba4c5b262b6766fc7c\")")
    );
    is_warned("identifier=I228786ae", "no peer has this identifier");
}

#[test]
fn findings_are_few_and_short_however_long_the_policy() {
    let text = format!("(and {})", "(foo 1) ".repeat(8_000));
    let findings = check(&text);
    assert_eq!(findings.len(), MAX_FINDINGS / 2);
    assert!(findings.iter().all(|finding| finding.to_string().len() < 3_000));
}

#[test]
fn warnings_do_not_hide_an_error() {
    let text = format!("(and {} (foo 1))", "(!= 1 2 1) ".repeat(100));
    assert_eq!(errors(&text).len(), 1);
}

#[test]
fn a_finding_reads_as_advice() {
    assert_eq!(
        check("(= subject.level 3)")[0].to_string(),
        "error: values of different types do not compare: subject.level is a string, 3 is an integer; attributes are \
         always strings\n  in: (= subject.level 3)\n  did you mean: (= subject.level \"3\")"
    );
}
