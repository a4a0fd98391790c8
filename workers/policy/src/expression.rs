//! The parsed form: a tree laid out flat, so that nothing that walks it needs recursion.

use crate::operator::Operator;

/// A parsed expression.
///
/// The tree is one array in the order in which it is written (each node before its children), and a list or sequence
/// knows where its part of the array ends. Printing, comparing, cloning and dropping are plain loops, however deep the
/// nesting: a policy from a peer or a disk cannot run a thread out of stack. `Display` prints the S-expression; what it
/// prints reads back as an equal expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    nodes: Box<[Node]>,
    levels: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(Box<str>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Name(Box<str>),
    List { end: u32, len: u32, head: Head },
    Sequence { end: u32, len: u32 },
}

/// What the first element of a list makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// `()`, the unit value.
    Empty,
    Operator(Operator),
    /// A name that is not an operator.
    Unknown,
    /// A literal, list or sequence.
    NotName,
}

/// One node of an [`Expression`], for code that walks it.
#[derive(Clone, Debug)]
pub enum Term<'a> {
    /// A string literal.
    Text(&'a str),
    /// An integer literal.
    Integer(i64),
    /// A floating point literal.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// An identifier, such as `subject.role` or `and`.
    Name(&'a str),
    /// `(…)`
    List(Terms<'a>),
    /// `[…]`
    Sequence(Terms<'a>),
}

/// The elements of a list or sequence.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    expression: &'a Expression,
    next: u32,
    end: u32,
}

impl<'a> Iterator for Terms<'a> {
    type Item = Term<'a>;

    fn next(&mut self) -> Option<Term<'a>> {
        if self.next >= self.end {
            return None;
        }
        let at = self.next;
        self.next = self.expression.end(at);
        Some(self.expression.term(at))
    }
}

impl PartialEq for Node {
    /// Equality of what is written. Floats by their bits, so that an expression that contains `nan` equals itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Node::Text(a), Node::Text(b)) | (Node::Name(a), Node::Name(b)) => a == b,
            (Node::Integer(a), Node::Integer(b)) => a == b,
            (Node::Float(a), Node::Float(b)) => a.to_bits() == b.to_bits(),
            (Node::Boolean(a), Node::Boolean(b)) => a == b,
            (Node::List { end, .. }, Node::List { end: other, .. }) => end == other,
            (Node::Sequence { end, .. }, Node::Sequence { end: other, .. }) => end == other,
            _ => false,
        }
    }
}

impl Eq for Node {}

impl Expression {
    /// The outermost term.
    pub fn root(&self) -> Term<'_> {
        self.term(0)
    }

    /// How deep lists and sequences are nested; 0 for a lone atom.
    pub fn levels(&self) -> usize {
        self.levels
    }

    pub(crate) fn term(&self, at: u32) -> Term<'_> {
        let terms = |end| Terms {
            expression: self,
            next: at + 1,
            end,
        };
        match self.node(at) {
            Node::Text(text) => Term::Text(text),
            Node::Integer(value) => Term::Integer(*value),
            Node::Float(value) => Term::Float(*value),
            Node::Boolean(value) => Term::Boolean(*value),
            Node::Name(name) => Term::Name(name),
            Node::List { end, .. } => Term::List(terms(*end)),
            Node::Sequence { end, .. } => Term::Sequence(terms(*end)),
        }
    }

    pub(crate) fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    /// Number of nodes; also the end of the root.
    pub(crate) fn size(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// The index after the last node of the sub-expression at `at`.
    pub(crate) fn end(&self, at: u32) -> u32 {
        end_of(&self.nodes, at)
    }

    /// Indices of the elements of the list or sequence at `at`; none for an atom.
    pub(crate) fn children(&self, at: u32) -> impl Iterator<Item = u32> + '_ {
        let end = self.end(at);
        let mut next = at + 1;
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let child = next;
                next = self.end(child);
                child
            })
        })
    }

    /// The innermost list around the node at `at`, or `at` itself when there is none.
    pub(crate) fn enclosing_list(&self, at: u32) -> u32 {
        (0..at)
            .rev()
            .find(|&outer| matches!(self.node(outer), Node::List { end, .. } if *end > at))
            .unwrap_or(at)
    }
}

fn end_of(nodes: &[Node], at: u32) -> u32 {
    match nodes[at as usize] {
        Node::List { end, .. } | Node::Sequence { end, .. } => end,
        _ => at + 1,
    }
}

/// Appends nodes in written order. Whoever uses it bounds the text, and with it the number of nodes.
#[derive(Default)]
pub(crate) struct Builder {
    nodes: Vec<Node>,
    open: Vec<Open>,
    levels: usize,
}

struct Open {
    at: usize,
    len: u32,
    sequence: bool,
}

impl Builder {
    pub(crate) fn atom(&mut self, node: Node) {
        self.count();
        self.nodes.push(node);
    }

    pub(crate) fn open(&mut self, sequence: bool) {
        self.count();
        self.open.push(Open {
            at: self.nodes.len(),
            len: 0,
            sequence,
        });
        self.levels = self.levels.max(self.open.len());
        self.nodes.push(if sequence {
            Node::Sequence { end: 0, len: 0 }
        } else {
            Node::List {
                end: 0,
                len: 0,
                head: Head::Empty,
            }
        });
    }

    /// Whether the innermost open one is a sequence; `None` when nothing is open.
    pub(crate) fn innermost_is_sequence(&self) -> Option<bool> {
        self.open.last().map(|open| open.sequence)
    }

    /// Closes the innermost list or sequence. Returns false when the elements of a sequence clash in type.
    #[must_use]
    pub(crate) fn close(&mut self) -> bool {
        let Some(open) = self.open.pop() else { return true };
        let end = self.nodes.len() as u32;
        if open.sequence {
            self.nodes[open.at] = Node::Sequence { end, len: open.len };
            self.is_uniform(open.at as u32)
        } else {
            let head = match self.nodes.get(open.at + 1) {
                None => Head::Empty,
                Some(Node::Name(name)) => Operator::from_name(name).map_or(Head::Unknown, Head::Operator),
                Some(_) => Head::NotName,
            };
            self.nodes[open.at] = Node::List {
                end,
                len: open.len,
                head,
            };
            true
        }
    }

    /// Removes the outermost list when it has exactly one element: parentheses that were not written.
    pub(crate) fn unwrap_single_root(&mut self) {
        if matches!(self.nodes.first(), Some(Node::List { len: 1, .. })) {
            self.nodes.remove(0);
            self.levels -= 1;
            for node in &mut self.nodes {
                if let Node::List { end, .. } | Node::Sequence { end, .. } = node {
                    *end -= 1;
                }
            }
        }
    }

    /// Whether the expression starts with an operator, looking into the first elements of nested lists.
    pub(crate) fn starts_with_operator(&self) -> bool {
        let mut first = self.nodes.iter();
        loop {
            match first.next() {
                Some(Node::List {
                    head: Head::Operator(_),
                    ..
                }) => return true,
                Some(Node::List {
                    head: Head::NotName, ..
                }) => {}
                Some(Node::Name(name)) => return Operator::from_name(name).is_some(),
                _ => return false,
            }
        }
    }

    pub(crate) fn levels(&self) -> usize {
        self.levels
    }

    pub(crate) fn finish(self) -> Expression {
        Expression {
            nodes: self.nodes.into_boxed_slice(),
            levels: self.levels,
        }
    }

    fn count(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.len += 1;
        }
    }

    /// Neighbouring elements of a sequence are compared as they are written and must not differ in type.
    fn is_uniform(&self, sequence: u32) -> bool {
        let end = end_of(&self.nodes, sequence);
        let mut left = sequence + 1;
        while left < end {
            let right = end_of(&self.nodes, left);
            if right < end && self.clash(left, right) {
                return false;
            }
            left = right;
        }
        true
    }

    /// Compares two neighbours up to their first difference: true when that is one of type.
    fn clash(&self, left: u32, right: u32) -> bool {
        let pairs = self.nodes[left as usize..right as usize]
            .iter()
            .zip(&self.nodes[right as usize..]);
        for (a, b) in pairs {
            let same = match (a, b) {
                (Node::Text(a), Node::Text(b)) | (Node::Name(a), Node::Name(b)) => a == b,
                (Node::Integer(a), Node::Integer(b)) => a == b,
                (Node::Float(a), Node::Float(b)) => a == b,
                (Node::Boolean(a), Node::Boolean(b)) => a == b,
                (Node::List { len: a, .. }, Node::List { len: b, .. })
                | (Node::Sequence { len: a, .. }, Node::Sequence { len: b, .. }) => a == b,
                _ => return true,
            };
            if !same {
                return false;
            }
        }
        false
    }
}
