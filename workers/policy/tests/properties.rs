//! Claims about every policy and every text.

use portolan_policy::{Decision, MAX_TEXT_BYTES, Policy, SubjectEnvironment};
use proptest::prelude::*;

const PEER: &str = "Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Pieces of which texts near the language are made.
fn fragment() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        " ",
        "\n",
        "and",
        "or",
        "not",
        "if",
        "<",
        ">",
        "=",
        "!=",
        "member?",
        "exists?",
        "true",
        "false",
        "a",
        "b",
        "notes",
        "subject.a",
        "subject.b",
        "subject.has_credential",
        "resource.id",
        "\"x\"",
        "\"",
        "1",
        "-2",
        "1.5",
        "nan",
        "+inf",
        "0x1f",
        "1_0",
        "$",
        "@",
        "#",
        "$\"q q\"",
        ";;",
        "(;",
        ";)",
        "\\",
        "é",
        "\u{202e}",
        "\0",
        "not ",
        " and ",
        " or ",
        "a=b",
        "(= 1 1)",
        "(= subject.a \"x\")",
        PEER,
    ]);
    prop_oneof![6 => fixed.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

fn near_text() -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

fn atom() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "subject.a",
            "subject.b",
            "subject.c",
            "True",
            "$\"#\"",
            "()",
            "[]"
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            "\"x\"", "\"y\"", "1", "2", "1.5", "nan", "-inf", "true", "false", "\"\\00\""
        ])
        .prop_map(str::to_owned),
        "\"[a-zA-Z é\u{1}\u{202e}]{0,4}\"".prop_filter_map("raw characters", |text| {
            text.chars()
                .all(|c| !c.is_control() && c != '\u{202e}')
                .then_some(text)
        }),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value:?}")),
    ]
}

/// S-expressions that mostly make sense.
fn expression() -> impl Strategy<Value = String> {
    let comparison = prop_oneof![
        3 => (prop::sample::select(vec!["=", "!=", "<", ">"]), prop::sample::select(vec!["subject.a", "subject.b", "subject.c"]), prop::sample::select(vec!["\"x\"", "\"y\"", "subject.c", "3"]))
            .prop_map(|(operator, a, b)| format!("({operator} {a} {b})")),
        1 => prop::sample::select(vec!["subject.a", "subject.b", "\"x\"", "1"])
            .prop_map(|needle| format!("(member? {needle} [subject.c subject.a])")),
        1 => prop::sample::select(vec!["(= 1 1)", "(= 1 2)", "true", "false", "5"]).prop_map(str::to_owned),
        1 => (prop::sample::select(vec!["=", "foo", "member?"]), atom(), atom()).prop_map(|(op, a, b)| format!("({op} {a} {b})")),
    ];
    comparison.prop_recursive(6, 60, 4, |inner| {
        prop_oneof![
            (
                prop::sample::select(vec!["and", "or"]),
                prop::collection::vec(inner.clone(), 0..4)
            )
                .prop_map(|(operator, operands)| format!("({operator} {})", operands.join(" "))),
            inner.clone().prop_map(|operand| format!("(not {operand})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(test, yes, no)| format!("(if {test} {yes} {no})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("(= [{a}] [{b}])")),
        ]
    })
}

/// A model of stock evaluation as spec 04, A4.3 describes it: recursive, two-valued, a missing name is an error.
mod stock {
    use std::cmp::Ordering;

    use portolan_policy::Term;

    #[derive(Clone, Debug, PartialEq)]
    pub(super) enum Value {
        Text(String),
        Integer(i64),
        Float(f64),
        Boolean(bool),
        Unit,
        Sequence(Vec<Value>),
    }

    #[derive(Debug, PartialEq)]
    pub(super) enum Error {
        Unbound,
        Other,
    }

    type Attributes<'a> = [(&'a str, &'a str)];

    fn lookup(name: &str, attributes: &Attributes<'_>) -> Result<Value, Error> {
        let found = attributes
            .iter()
            .find(|(attribute, _)| name == format!("subject.{attribute}"));
        found
            .map(|(_, value)| Value::Text((*value).to_owned()))
            .ok_or(Error::Unbound)
    }

    fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
        Ok(match (a, b) {
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
            (Value::Unit, Value::Unit) => Some(Ordering::Equal),
            (Value::Sequence(a), Value::Sequence(b)) if a.len() != b.len() => Some(a.len().cmp(&b.len())),
            (Value::Sequence(a), Value::Sequence(b)) => {
                for (a, b) in a.iter().zip(b) {
                    match compare(a, b)? {
                        Some(Ordering::Equal) => {}
                        other => return Ok(other),
                    }
                }
                Some(Ordering::Equal)
            }
            _ => return Err(Error::Other),
        })
    }

    fn chain(values: &[Value], wanted: Ordering) -> Result<bool, Error> {
        for pair in values.windows(2) {
            if compare(&pair[0], &pair[1])? != Some(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn evaluate(term: Term<'_>, attributes: &Attributes<'_>) -> Result<Value, Error> {
        let terms = match term {
            Term::Text(text) => return Ok(Value::Text(text.to_owned())),
            Term::Integer(value) => return Ok(Value::Integer(value)),
            Term::Float(value) => return Ok(Value::Float(value)),
            Term::Boolean(value) => return Ok(Value::Boolean(value)),
            Term::Name(name) => return lookup(name, attributes),
            Term::Sequence(terms) => {
                return terms
                    .map(|term| evaluate(term, attributes))
                    .collect::<Result<_, _>>()
                    .map(Value::Sequence);
            }
            Term::List(terms) => terms.collect::<Vec<_>>(),
        };
        let Some((head, operands)) = terms.split_first() else {
            return Ok(Value::Unit);
        };
        let Term::Name(operator) = head else {
            return Err(Error::Other);
        };
        let value = |operand: &Term<'_>| evaluate(operand.clone(), attributes);
        let boolean = |operand: &Term<'_>| match value(operand)? {
            Value::Boolean(value) => Ok(value),
            _ => Err(Error::Other),
        };
        match (*operator, operands) {
            ("and" | "or", operands) => {
                let decisive = *operator == "or";
                let Some((last, others)) = operands.split_last() else {
                    return Ok(Value::Boolean(!decisive));
                };
                for operand in others {
                    if boolean(operand)? == decisive {
                        return Ok(Value::Boolean(decisive));
                    }
                }
                value(last)
            }
            ("not", [operand]) => Ok(Value::Boolean(!boolean(operand)?)),
            ("if", [test, yes, no]) => value(if boolean(test)? { yes } else { no }),
            ("=" | "<" | ">", [_, _, ..]) | ("!=", _) => {
                let values: Vec<Value> = operands.iter().map(value).collect::<Result<_, _>>()?;
                let result = match *operator {
                    "<" => chain(&values, Ordering::Less)?,
                    ">" => chain(&values, Ordering::Greater)?,
                    "!=" => !chain(&values, Ordering::Equal)?,
                    _ => chain(&values, Ordering::Equal)?,
                };
                Ok(Value::Boolean(result))
            }
            ("member?", [needle, sequence]) => {
                let needle = value(needle)?;
                let Value::Sequence(elements) = value(sequence)? else {
                    return Err(Error::Other);
                };
                for element in &elements {
                    if compare(&needle, element)? == Some(Ordering::Equal) {
                        return Ok(Value::Boolean(true));
                    }
                }
                Ok(Value::Boolean(false))
            }
            _ => Err(Error::Other),
        }
    }
}

fn decide(policy: &Policy, attributes: &[(&str, &str)]) -> Decision {
    policy.evaluate(
        &SubjectEnvironment::new(PEER)
            .with_credential(true)
            .with_attributes(attributes),
    )
}

fn survives(text: &str) -> Result<(), TestCaseError> {
    for parsed in [Policy::parse(text), Policy::parse_stored(text)] {
        match parsed {
            Ok(policy) => {
                let printed = policy.to_string();
                let reread = Policy::parse_stored(&printed);
                prop_assert_eq!(reread.as_ref(), Ok(&policy), "{}", printed);
                prop_assert_eq!(reread.map(|policy| policy.to_string()), Ok(printed));
                let attributes = [("a", "x")];
                let decision = decide(&policy, &attributes);
                let _ = (decision.to_string(), policy.check());
                let peer = SubjectEnvironment::new(PEER).with_attributes(&attributes);
                let _ = policy.explain(&peer).to_string();
            }
            Err(error) => {
                let _ = (error.to_string(), error.summary());
                for error in [error.boolean(), error.s_expression()].into_iter().flatten() {
                    prop_assert!(text.is_char_boundary(error.offset()), "{:?}", error);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn text_near_the_language_never_panics_and_what_is_accepted_reads_back(text in near_text()) {
        survives(&text)?;
    }

    #[test]
    fn expressions_read_back(text in expression()) {
        survives(&text)?;
    }

    /// The rule of D11: a policy that allows a peer without an attribute allows it whatever that attribute were.
    /// (The expressions have no `exists?`, which asks for absence itself.)
    #[test]
    fn an_absent_attribute_never_opens_what_some_value_of_it_would_close(
        text in expression(),
        a in prop::option::of(prop::sample::select(vec!["x", "y", "z"])),
        c in prop::sample::select(vec!["x", "y", "z", "true", ""]),
        b in prop::sample::select(vec!["x", "y", "z", "3", ""]),
    ) {
        let Ok(policy) = Policy::parse_stored(&text) else { return Ok(()) };
        let known: Vec<(&str, &str)> = a.map(|a| ("a", a)).into_iter().collect();
        if decide(&policy, &known).is_allowed() {
            let mut complete = known.clone();
            complete.extend([("b", b), ("c", c)]);
            if a.is_none() {
                complete.push(("a", b));
            }
            prop_assert_eq!(decide(&policy, &complete), Decision::Allow, "{}", text);
        }
    }

    /// Wherever stock yields a value, so do we, and the same; any of its errors but a missing name denies here too.
    #[test]
    fn where_stock_yields_a_value_we_decide_alike(
        text in expression(),
        a in prop::option::of(prop::sample::select(vec!["x", "y", "z"])),
        c in prop::option::of(prop::sample::select(vec!["x", "y", "z"])),
    ) {
        let Ok(policy) = Policy::parse_stored(&text) else { return Ok(()) };
        let attributes: Vec<(&str, &str)> = a.map(|a| ("a", a)).into_iter().chain(c.map(|c| ("c", c))).collect();
        let allowed = decide(&policy, &attributes).is_allowed();
        match stock::evaluate(policy.expression().root(), &attributes) {
            Ok(value) => prop_assert_eq!(allowed, value == stock::Value::Boolean(true), "{}", text),
            Err(stock::Error::Unbound) => {}
            Err(stock::Error::Other) => prop_assert!(!allowed, "{}", text),
        }
    }

    #[test]
    fn the_boolean_form_translates_to_what_it_says(values in prop::collection::vec(any::<bool>(), 4), shape in 0..6usize) {
        let names = ["a", "b", "c", "d"];
        let attributes: Vec<(&str, &str)> =
            names.into_iter().zip(&values).map(|(name, value)| (name, if *value { "true" } else { "no" })).collect();
        let [a, b, c, d] = [values[0], values[1], values[2], values[3]];
        let (text, expected) = [
            ("a or b and c or d", a || b && c || d),
            ("(a or b) and (c or d)", (a || b) && (c || d)),
            ("not a and b or not (c and d)", !a && b || !(c && d)),
            ("not (not a or b) and c", a && !b && c),
            ("a and b and c and d", a && b && c && d),
            ("not not a or not(b)and c", a || !b && c),
        ][shape];
        prop_assert_eq!(decide(&Policy::parse(text).unwrap(), &attributes).is_allowed(), expected, "{}", text);
    }
}

#[test]
fn every_policy_that_is_accepted_can_be_stored() {
    // The worst expansions between what is typed and what is printed.
    let fill = |unit: &str, joint: &str, open: &str, close: &str| {
        let count = (MAX_TEXT_BYTES - open.len() - close.len()) / (unit.len() + joint.len());
        format!("{open}{}{close}", vec![unit; count].join(joint))
    };
    for text in [
        fill("a", " or ", "", ""),
        fill("(a)", "or", "", ""),
        fill("\u{1}", "", "a=\"", "\""),
        fill("\u{7f}", "", "a=\"", "\""),
        fill("\u{85}", "", "a=\"", "\""),
        fill("$#", " ", "(and ", ")"),
        fill("1e9", " ", "(and ", ")"),
        fill("1e15", " ", "(and ", ")"),
        fill("()", "", "(and ", ")"),
        fill("\"\"", " ", "(and ", ")"),
        fill("\\01", "", "(and \"", "\")"),
    ] {
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let printed = policy.to_string();
        assert_eq!(
            Policy::parse_stored(&printed),
            Ok(policy),
            "{} -> {}",
            text.len(),
            printed.len()
        );
    }
}
