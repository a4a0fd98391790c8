//! Case 6: the policy language, ours against the reference's evaluator.
//!
//! Every difference must be one of D1–D15 of spec 04. It counts as explained by one of them when the difference disappears
//! with what that number is about: with the names renamed (D1), the white space removed (D5), the identifiers in lower case
//! (D3), the forged attributes gone (D12); when we refuse a text that has the flaw (D2, D4); or when the reference only stumbled
//! over a missing attribute and allows whatever the value of that attribute is (D11). D7–D10, D13 and D15 are about what is
//! said to people, D6 about sizes that end the reference's process, D14 about storing: they change no decision here.

use std::collections::{BTreeMap, BTreeSet};

use ockam::abac::expr::Expr;
use ockam::abac::{Abac, Env, EvalError, PolicyExpression, eval};
use ockam::identity::utils::now;
use ockam::identity::{AttributesEntry, Identifier};
use portolan_policy::{Policy, SubjectEnvironment};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const GENERATED: usize = 10_000;
const EXAMPLES: &str = include_str!("../../data/policy-examples.tsv");

/// What becomes of a message under a policy text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Rejected,
    Allowed,
    Denied,
}

/// A peer: identifier, attributes if it has a credential.
#[derive(Clone, Debug)]
struct Peer {
    identifier: String,
    attributes: Option<BTreeMap<String, String>>,
}

impl Peer {
    fn has(&self, name: &str) -> bool {
        self.attributes
            .as_ref()
            .is_some_and(|attributes| attributes.contains_key(name))
    }
}

/// The environment that a stock node makes of a peer (spec 04 §A1.3).
fn stock_environment(peer: &Peer) -> Env {
    let mut env = Env::new();
    env.put("resource.id", Expr::Str("outlet".into()));
    env.put("action.id", Expr::Str("handle_message".into()));
    env.put("subject.identifier", Expr::Str(peer.identifier.clone()));
    env.put("subject.has_credential", Expr::Bool(peer.attributes.is_some()));
    for (name, value) in peer.attributes.iter().flatten() {
        env.put(format!("subject.{name}"), Expr::Str(value.clone()));
    }
    env
}

fn verdict(result: &Result<Expr, EvalError>) -> Verdict {
    if matches!(result, Ok(Expr::Bool(true))) {
        Verdict::Allowed
    } else {
        Verdict::Denied
    }
}

fn stock_expression(text: &str) -> Option<Expr> {
    PolicyExpression::try_from(text)
        .ok()
        .map(|policy| policy.to_expression())
}

fn stock(text: &str, peer: &Peer) -> Verdict {
    match stock_expression(text) {
        None => Verdict::Rejected,
        Some(expression) => verdict(&eval(&expression, &stock_environment(peer))),
    }
}

fn ours(text: &str, peer: &Peer) -> Verdict {
    match Policy::parse(text) {
        Err(_) => Verdict::Rejected,
        Ok(policy) => decide(&policy, peer),
    }
}

fn decide(policy: &Policy, peer: &Peer) -> Verdict {
    let attributes: Vec<(&str, &str)> = peer
        .attributes
        .iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let environment = SubjectEnvironment::new(&peer.identifier)
        .with_credential(Some(peer.attributes.is_some()))
        .with_attributes(&attributes[..])
        .with_resource("outlet")
        .with_action("handle_message");
    if policy.evaluate(&environment).is_allowed() {
        Verdict::Allowed
    } else {
        Verdict::Denied
    }
}

// --- attribution -----------------------------------------------------------------------------------------------------

/// The differences that are undone by changing the text or the peer.
const UNDONE: [&str; 4] = ["D12", "D5", "D1", "D3"];

fn undo(number: &str, text: &str, peer: &Peer) -> (String, Peer) {
    let mut peer = peer.clone();
    let text = match number {
        "D12" => {
            if let Some(attributes) = &mut peer.attributes {
                attributes.remove("identifier");
                attributes.remove("has_credential");
            }
            text.to_owned()
        }
        "D5" => without_white_space(text),
        "D1" => {
            let renamed = peer.attributes.map(|attributes| {
                attributes
                    .into_iter()
                    .map(|(name, value)| (rename(&name), value))
                    .collect()
            });
            peer.attributes = renamed;
            words(text).into_iter().map(|word| rename(&word)).collect()
        }
        _ => words(text)
            .into_iter()
            .map(|word| {
                if is_identifier(&word) {
                    lower_case(&word)
                } else {
                    word
                }
            })
            .collect(),
    };
    (text, peer)
}

/// Names that begin with a keyword of the boolean form get another beginning; what D1 is about.
fn rename(name: &str) -> String {
    let bare = name.strip_prefix("subject.").unwrap_or(name);
    let touched = ["not", "and", "or"]
        .iter()
        .any(|keyword| bare.len() > keyword.len() && bare.starts_with(keyword));
    if touched {
        name.replacen(bare, &format!("zz{bare}"), 1)
    } else {
        name.to_owned()
    }
}

fn is_identifier(word: &str) -> bool {
    word.len() == 65 && word.starts_with('I') && word[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn lower_case(identifier: &str) -> String {
    format!("I{}", identifier[1..].to_lowercase())
}

/// The text in pieces: runs of name characters, quoted strings, single other characters.
fn words(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let (mut in_name, mut quoted) = (false, false);
    for c in text.chars() {
        let is_name = c.is_ascii_alphanumeric() || "._-".contains(c);
        let joins = quoted || (is_name && in_name);
        match pieces.last_mut() {
            Some(last) if joins => last.push(c),
            _ => pieces.push(c.to_string()),
        }
        if c == '"' {
            quoted = !quoted;
        }
        in_name = is_name && !quoted;
    }
    pieces
}

/// Without white space at the ends and around `=`; what D5 is about.
fn without_white_space(text: &str) -> String {
    let mut pieces = words(text.trim());
    let blank = |piece: &String| piece.trim().is_empty();
    let mut index = 0;
    while index < pieces.len() {
        if pieces[index] == "=" {
            while index > 0 && blank(&pieces[index - 1]) {
                pieces.remove(index - 1);
                index -= 1;
            }
            while index + 1 < pieces.len() && blank(&pieces[index + 1]) {
                pieces.remove(index + 1);
            }
        }
        index += 1;
    }
    pieces.concat()
}

/// Whether there is a `)` without its `(`; what D4 is about.
fn has_surplus_parenthesis(text: &str) -> bool {
    let mut open = 0;
    words(text).iter().any(|piece| {
        open += i32::from(piece == "(") - i32::from(piece == ")");
        open < 0
    })
}

/// Whether white space is followed by a word that only begins with `or` or `and`; what D2 is about.
fn has_keyword_in_word(text: &str) -> bool {
    let pieces = words(text);
    pieces.windows(2).any(|pair| {
        let longer = |keyword: &str| pair[1].len() > keyword.len() && pair[1].starts_with(keyword);
        (pair[0].trim().is_empty() || pair[0] == ")" || pair[0].ends_with('"'))
            && (longer("or") || longer("and"))
    })
}

/// Whether the reference only stumbled over missing attributes, and allows whatever their values are; what D11 is about.
/// (It is allowed to deny where a value would have the wrong type: attributes are text.)
fn is_missing_attribute(text: &str, peer: &Peer) -> bool {
    let Some(expression) = stock_expression(text) else {
        return false;
    };
    let environment = stock_environment(peer);
    let Err(error) = eval(&expression, &environment) else {
        return false;
    };
    if !error.is_unbound() {
        return false;
    }
    let mut names = BTreeSet::new();
    unbound_names(&expression, &environment, &mut names);
    // Attributes are text. A name that no attribute can have (`zzz`) may stand for a truth value as well.
    let texts = ["true", "false", "web", "\u{10ffff}", ""].map(|text| Expr::Str(text.to_owned()));
    let truths = [Expr::Bool(true), Expr::Bool(false)];
    [&texts[..], &truths[..]].into_iter().any(|others| {
        texts.iter().all(|text| {
            others.iter().all(|other| {
                let mut bound = environment.clone();
                for name in &names {
                    let value = if name.starts_with("subject.") { text } else { other };
                    bound.put(name.clone(), value.clone());
                }
                verdict(&eval(&expression, &bound)) == Verdict::Allowed
            })
        })
    })
}

fn unbound_names(expression: &Expr, environment: &Env, names: &mut BTreeSet<String>) {
    match expression {
        Expr::Ident(name) if !environment.contains(name) => {
            names.insert(name.clone());
        }
        Expr::List(parts) | Expr::Seq(parts) => {
            // What `exists?` asks for must stay as it is.
            let asks = matches!(parts.first(), Some(Expr::Ident(name)) if name == "exists?");
            if !asks {
                parts
                    .iter()
                    .for_each(|part| unbound_names(part, environment, names));
            }
        }
        _ => {}
    }
}

/// The numbers that explain why the two verdicts differ; `None` when none does.
fn attribute(text: &str, peer: &Peer) -> Option<Vec<&'static str>> {
    // Fewest first.
    let mut subsets: Vec<u32> = (0..1 << UNDONE.len()).collect();
    subsets.sort_by_key(|subset| subset.count_ones());
    for subset in subsets {
        let mut numbers = Vec::new();
        let (mut stock_text, mut stock_peer) = (text.to_owned(), peer.clone());
        for (index, number) in UNDONE.into_iter().enumerate() {
            if subset & (1 << index) != 0 {
                numbers.push(number);
                (stock_text, stock_peer) = undo(number, &stock_text, &stock_peer);
            }
        }
        let (theirs, our_own) = (stock(&stock_text, &stock_peer), ours(text, peer));
        if theirs == our_own {
            return Some(numbers);
        }
        if our_own == Verdict::Rejected && has_keyword_in_word(&stock_text) {
            numbers.push("D2");
            return Some(numbers);
        }
        if our_own == Verdict::Rejected && has_surplus_parenthesis(&stock_text) {
            numbers.push("D4");
            return Some(numbers);
        }
        if our_own == Verdict::Allowed && is_missing_attribute(&stock_text, &stock_peer) {
            numbers.push("D11");
            return Some(numbers);
        }
    }
    None
}

/// Compares both on each text, counts the differences by number, and fails on any that has none.
fn compare(cases: impl Iterator<Item = (String, Peer)>) -> BTreeMap<String, usize> {
    let (mut counts, mut unexplained) = (BTreeMap::new(), Vec::new());
    for (text, peer) in cases {
        let (theirs, our_own) = (stock(&text, &peer), ours(&text, &peer));
        *counts.entry(format!("{our_own:?}")).or_default() += 1;
        if theirs != our_own {
            match attribute(&text, &peer) {
                Some(numbers) => *counts.entry(numbers.join("+")).or_default() += 1,
                None => unexplained.push(format!(
                    "stock {theirs:?}, ours {our_own:?}: {text:?} for {peer:?}"
                )),
            }
        }
        // What we store or send is read by stock as we mean it, but for what D11 and D12 say.
        if let Ok(policy) = Policy::parse(&text) {
            let printed = policy.to_string();
            let read = ockam::abac::parse(&printed).ok().flatten();
            let Some(read) = read else {
                unexplained.push(format!(
                    "stock cannot read what we print: {printed:?} for {text:?}"
                ));
                continue;
            };
            let (_, honest) = undo("D12", "", &peer);
            let evaluated = eval(&read, &stock_environment(&honest));
            let same = verdict(&evaluated) == our_own
                || matches!(&evaluated, Err(error) if error.is_unbound()) && our_own == Verdict::Allowed;
            if !same {
                unexplained.push(format!(
                    "stock reads {printed:?}, printed for {text:?}, as {evaluated:?}"
                ));
            }
        }
    }
    println!("{counts:?}");
    assert!(
        unexplained.is_empty(),
        "{} differences:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(20)].join("\n")
    );
    counts
}

// --- cases -----------------------------------------------------------------------------------------------------------

const LOWER: &str = "I69c228786aec9341b3c1912423ae769f63200ceb553a2eba4c5b262b6766fc7c";
const OTHER: &str = "Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NAMES: [&str; 26] = [
    "a",
    "b",
    "c",
    "role",
    "component",
    "level",
    "team",
    "env-name",
    "region.zone",
    "_hid",
    "x1",
    "web",
    "database",
    "notes",
    "note",
    "nota",
    "not-admin",
    "android",
    "and",
    "order",
    "orb",
    "or",
    "admin",
    "-x",
    "has_credential",
    "identifier",
];
const VALUES: [&str; 14] = [
    "true", "false", "web", "database", "admin", "user", "3", "10", "x", "no", "b", "eu.west", "-x", "not",
];

fn peers(random: &mut StdRng) -> Vec<Peer> {
    let mut peers = vec![Peer {
        identifier: LOWER.to_owned(),
        attributes: None,
    }];
    for index in 0..60 {
        let mut attributes = BTreeMap::new();
        for name in NAMES
            .iter()
            .filter(|name| !["identifier", "has_credential"].contains(name))
        {
            if random.gen_bool(0.4) {
                attributes.insert(
                    (*name).to_owned(),
                    (*VALUES.choose(random).expect("some")).to_owned(),
                );
            }
        }
        // Forged names, now and then.
        if index % 12 == 5 {
            attributes.insert("identifier".to_owned(), OTHER.to_owned());
        }
        if index % 12 == 7 {
            attributes.insert("has_credential".to_owned(), "true".to_owned());
        }
        let identifier = if index % 3 == 0 { OTHER } else { LOWER };
        peers.push(Peer {
            identifier: identifier.to_owned(),
            attributes: Some(attributes),
        });
    }
    peers
}

struct Generator<'a> {
    random: &'a mut StdRng,
}

impl Generator<'_> {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(self.random).copied().expect("some")
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.gen_bool(probability)
    }

    fn boolean(&mut self, depth: u32) -> String {
        let roll = self.random.gen_range(0..100);
        if depth == 0 || roll < 25 {
            return self.term();
        }
        match roll {
            25..45 => {
                let gap = self.one(&[" ", " ", "  ", "\t", ""]);
                format!("not{gap}{}", self.boolean(depth - 1))
            }
            45..60 => {
                let (left, right) = (self.one(&["(", "( ", " ("]), self.one(&[")", " )", ") "]));
                format!("{left}{}{right}", self.boolean(depth - 1))
            }
            _ => {
                let operator = self.one(&[" and ", " or ", " and ", " or ", " or  ", " and", " or"]);
                format!("{}{operator}{}", self.boolean(depth - 1), self.boolean(depth - 1))
            }
        }
    }

    fn term(&mut self) -> String {
        match self.random.gen_range(0..100) {
            0..6 => self.one(&[LOWER, OTHER]).to_owned(),
            6..10 => format!("I{}", self.one(&[LOWER, OTHER])[1..].to_uppercase()),
            10..50 => self.one(&NAMES).to_owned(),
            50..55 => format!("{} = {}", self.one(&NAMES), self.one(&VALUES)),
            55..80 => format!("{}={}", self.one(&NAMES), self.one(&VALUES)),
            _ => format!("{}=\"{}\"", self.one(&NAMES), self.one(&VALUES)),
        }
    }

    fn s_expression(&mut self, depth: u32) -> String {
        let operator = self.one(&[
            "and", "or", "not", "if", "=", "!=", "<", ">", "member?", "exists?", "and", "or", "=",
        ]);
        let count = match (operator, self.chance(0.06)) {
            (_, true) => self.random.gen_range(0..4),
            ("not", _) => 1,
            ("if", _) => 3,
            ("member?", _) => 2,
            _ => self.random.gen_range(1..4),
        };
        let logical = ["and", "or", "not", "if"].contains(&operator);
        let text = self.chance(0.75);
        let mut out = format!("({operator}");
        for index in 0..count {
            out.push(' ');
            let operand = match operator {
                _ if logical && depth > 0 && self.chance(0.8) => self.s_expression(depth - 1),
                "exists?" => format!("subject.{}", self.one(&NAMES)),
                "member?" if index == 1 => self.sequence(),
                _ if text => self.text(),
                _ => self.operand(),
            };
            out.push_str(&operand);
        }
        out.push(')');
        out
    }

    fn text(&mut self) -> String {
        match self.random.gen_range(0..10) {
            0..6 => format!("subject.{}", self.one(&NAMES)),
            6 => self
                .one(&["resource.id", "action.id", "subject.identifier"])
                .to_owned(),
            _ => format!("\"{}\"", self.one(&VALUES)),
        }
    }

    fn operand(&mut self) -> String {
        match self.random.gen_range(0..10) {
            0 => self.one(&["true", "false", "subject.has_credential"]).to_owned(),
            1 => self.random.gen_range(-3..12).to_string(),
            2 => self
                .one(&["1.0", "-2.5", "1e3", "nan", "inf", "0x10", "1_000", "()"])
                .to_owned(),
            3 => self.sequence(),
            _ => self.text(),
        }
    }

    fn sequence(&mut self) -> String {
        let count = self.random.gen_range(0..4);
        let texts = self.chance(0.8);
        let elements: Vec<String> = (0..count)
            .map(|_| {
                if texts {
                    format!("\"{}\"", self.one(&VALUES))
                } else {
                    self.random.gen_range(0..5).to_string()
                }
            })
            .collect();
        format!("[{}]", elements.join(" "))
    }

    /// Damages a text a little.
    fn damage(&mut self, text: String) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        let at = self.random.gen_range(0..=characters.len());
        match self.random.gen_range(0..6) {
            0 => characters.insert(at, ')'),
            1 => characters.insert(at, ' '),
            2 if at < characters.len() => drop(characters.remove(at)),
            3 => characters.insert(
                at,
                self.one(&["(", "\"", "=", "#", "n", "]"])
                    .chars()
                    .next()
                    .expect("one"),
            ),
            4 => characters.push(self.one(&[" ", ")"]).chars().next().expect("one")),
            _ => characters.truncate(at),
        }
        characters.into_iter().collect()
    }
}

#[test]
fn ten_thousand_generated_policies_decide_alike_but_for_the_differences_that_we_want() {
    let seed = std::env::var("INTEROP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_150);
    let mut random = StdRng::seed_from_u64(seed);
    let peers = peers(&mut random);
    let mut cases = Vec::with_capacity(GENERATED);
    while cases.len() < GENERATED {
        let mut generator = Generator { random: &mut random };
        let depth = generator.random.gen_range(0..4);
        let boolean = generator.chance(0.5);
        let mut text = if boolean {
            generator.boolean(depth)
        } else {
            generator.s_expression(depth)
        };
        if generator.chance(0.1) {
            text = generator.damage(text);
        }
        cases.push((text, peers.choose(&mut random).expect("some").clone()));
    }
    let counts = compare(cases.into_iter());
    // All three verdicts, and every difference that can show, are well covered.
    for needed in [
        "Allowed", "Denied", "Rejected", "D1", "D2", "D3", "D4", "D5", "D11", "D12",
    ] {
        assert!(
            counts.get(needed).is_some_and(|count| *count >= 5),
            "{needed} is not covered: {counts:?}"
        );
    }
}

#[test]
fn every_example_of_the_specification_decides_alike_but_for_the_differences_that_we_want() {
    let attributes = [
        ("component", "web"),
        ("role", "admin"),
        ("a", "true"),
        ("b", "true"),
        ("level", "3"),
    ];
    let peer = Peer {
        identifier: OTHER.to_owned(),
        attributes: Some(
            attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        ),
    };
    let examples: Vec<&str> = EXAMPLES
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(_, text)| text)
        .collect();
    assert!(examples.len() >= 160, "{} examples", examples.len());
    compare(examples.into_iter().map(|text| (text.to_owned(), peer.clone())));
}

#[test]
fn a_forged_attribute_opens_the_reference_but_not_us() {
    let peer = Peer {
        identifier: LOWER.to_owned(),
        attributes: Some([("identifier".to_owned(), OTHER.to_owned())].into()),
    };
    assert!(peer.has("identifier"));
    assert_eq!(
        (stock(OTHER, &peer), ours(OTHER, &peer)),
        (Verdict::Allowed, Verdict::Denied),
        "D12"
    );
}

#[test]
fn the_reference_makes_of_a_peer_the_environment_that_this_comparison_makes() {
    portolan_interop::run(async {
        let stock_node = portolan_interop::stock::Stock::start().await;
        let attributes = stock_node.node.identities_attributes();
        let authority = stock_node.identifier.clone();
        let mut random = StdRng::seed_from_u64(4);
        let peers = peers(&mut random);
        let mut both = [0, 0];
        for _ in 0..600 {
            let peer = peers[1..].choose(&mut random).expect("some");
            let subject = Identifier::try_from(peer.identifier.as_str()).expect("an identifier");
            let said = peer.attributes.iter().flatten();
            let said = said
                .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
                .collect();
            let entry = AttributesEntry::new(said, now().expect("a clock"), None, Some(authority.clone()));
            attributes.put_attributes(&subject, entry).await.expect("stored");
            let mut generator = Generator { random: &mut random };
            let Some(expression) = stock_expression(&generator.boolean(2)) else {
                continue;
            };
            let mut environment = Env::new();
            environment.put("resource.id", Expr::Str("outlet".into()));
            environment.put("action.id", Expr::Str("handle_message".into()));
            let authorized = Abac::is_identity_authorized_static(
                attributes.clone(),
                &environment,
                Some(&authority),
                &subject,
                &expression,
            );
            let theirs = if matches!(authorized.await, Ok(true)) {
                Verdict::Allowed
            } else {
                Verdict::Denied
            };
            assert_eq!(
                theirs,
                verdict(&eval(&expression, &stock_environment(peer))),
                "{expression} for {peer:?}"
            );
            both[usize::from(theirs == Verdict::Allowed)] += 1;
        }
        assert!(both.iter().all(|count| *count > 20), "{both:?}");
    });
}
