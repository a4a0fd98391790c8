//! Policies that were recorded from a stock 0.150 node: `shared/vectors/policy.jsonl`.

use std::path::Path;

use portolan_policy::{Cause, Decision, Form, Policy, SubjectEnvironment};
use serde_json::Value;

fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/policy.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "the policy vectors are missing ({error}): put the folder `shared` beside the checkout, so that {} exists",
            path.display()
        )
    });
    let vectors: Vec<Value> = text
        .lines()
        .enumerate()
        .map(|(line, text)| serde_json::from_str(text).unwrap_or_else(|e| panic!("line {}: {e}", line + 1)))
        .collect();
    assert_eq!(vectors.len(), 300, "{}", path.display());
    vectors
}

fn decide(vector: &Value, policy: &Policy) -> Decision {
    let text = |field: &str| vector[field].as_str();
    let attributes: Vec<(&str, &str)> = vector["attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let has_credential = (vector["authority"] != false).then(|| !vector["attributes"].is_null());
    let mut peer = SubjectEnvironment::new(text("subject").unwrap())
        .with_credential(has_credential)
        .with_attributes(&attributes);
    if let Some(resource) = text("resource") {
        peer = peer.with_resource(resource);
    }
    if let Some(action) = text("action") {
        peer = peer.with_action(action);
    }
    policy.evaluate(&peer)
}

#[test]
fn every_vector_gets_the_expected_decision() {
    let mut wrong = Vec::new();
    for vector in vectors() {
        let text = vector["expression"].as_str().unwrap();
        let got = match Policy::parse(text) {
            Err(_) => "reject",
            Ok(policy) => {
                let decision = decide(&vector, &policy);
                // What is stored decides alike.
                let reread = Policy::parse_stored(&policy.to_string()).unwrap();
                assert_eq!(decide(&vector, &reread), decision, "{text}");
                if decision.is_allowed() { "allow" } else { "refuse" }
            }
        };
        let expected = vector["expect"].as_str().unwrap();
        let right = match expected {
            "any" => true,
            "not-allow" => got != "allow",
            _ => got == expected,
        };
        if !right {
            wrong.push(format!("{} expected {expected}, got {got}: {text}", vector["id"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_stock_did_is_what_we_do_unless_a_difference_says_otherwise() {
    for vector in vectors().iter().filter(|vector| vector["why"].is_null()) {
        let text = vector["expression"].as_str().unwrap();
        let Ok(policy) = Policy::parse(text) else {
            assert_eq!(vector["parses"], false, "{text}");
            continue;
        };
        let form = match policy.form() {
            Form::Boolean => "boolean",
            Form::SExpression => "s-expression",
        };
        assert_eq!(vector["form"], form, "{text}");
        let decision = decide(vector, &policy);
        let got = match decision.reason().map(|reason| reason.cause()) {
            None => ("allow", ""),
            Some(Cause::False | Cause::NotBoolean) => ("deny", ""),
            Some(Cause::Missing) => ("error", "unbound"),
            Some(Cause::TypeClash) => ("error", "type-mismatch"),
            Some(Cause::WrongOperand | Cause::NotAnOperator) => ("error", "invalid-type"),
            Some(Cause::WrongArity) => ("error", "malformed"),
            Some(Cause::UnknownOperator) => ("error", "unknown-operator"),
            Some(other) => panic!("{other:?}"),
        };
        let expected = (
            vector["result"].as_str().unwrap(),
            vector["error"].as_str().unwrap_or_default(),
        );
        // Which of two errors is found first does not matter; that it is an error does.
        assert_eq!(got.0, expected.0, "{text}: {got:?}");
    }
}
