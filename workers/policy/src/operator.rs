//! The operators of the language.

/// An operator: the first element of a list that is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `and`: true unless an operand is false. Lazy, left to right.
    And,
    /// `or`: false unless an operand is true. Lazy, left to right.
    Or,
    /// `not`: negation of one boolean.
    Not,
    /// `if`: test, value when true, value when false.
    If,
    /// `<`: strictly rising.
    Less,
    /// `>`: strictly falling.
    Greater,
    /// `=`: all neighbours equal.
    Equal,
    /// `!=`: not all neighbours equal.
    NotEqual,
    /// `member?`: a value is an element of a sequence.
    Member,
    /// `exists?`: all the names are bound.
    Exists,
}

/// How many operands an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    Any,
    Exactly(u32),
    AtLeast(u32),
}

impl Operator {
    /// Every operator, in the order in which messages list them.
    pub const ALL: [Operator; 10] = [
        Operator::And,
        Operator::Or,
        Operator::Not,
        Operator::If,
        Operator::Less,
        Operator::Greater,
        Operator::Equal,
        Operator::NotEqual,
        Operator::Member,
        Operator::Exists,
    ];

    /// The spelling in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Operator::And => "and",
            Operator::Or => "or",
            Operator::Not => "not",
            Operator::If => "if",
            Operator::Less => "<",
            Operator::Greater => ">",
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Member => "member?",
            Operator::Exists => "exists?",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.as_str() == name)
    }

    pub(crate) fn arity(self) -> Arity {
        match self {
            Operator::And | Operator::Or | Operator::NotEqual | Operator::Exists => Arity::Any,
            Operator::Not => Arity::Exactly(1),
            Operator::If => Arity::Exactly(3),
            Operator::Member => Arity::Exactly(2),
            Operator::Less | Operator::Greater | Operator::Equal => Arity::AtLeast(2),
        }
    }
}

impl Arity {
    pub(crate) fn allows(self, operands: u32) -> bool {
        match self {
            Arity::Any => true,
            Arity::Exactly(n) => operands == n,
            Arity::AtLeast(n) => operands >= n,
        }
    }
}

impl std::fmt::Display for Arity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arity::Any => f.write_str("any number of operands"),
            Arity::Exactly(1) => f.write_str("exactly 1 operand"),
            Arity::Exactly(n) => write!(f, "exactly {n} operands"),
            Arity::AtLeast(n) => write!(f, "at least {n} operands"),
        }
    }
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
