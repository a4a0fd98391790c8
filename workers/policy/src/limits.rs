//! Bounds on what one policy may cost.

/// Longest text that [`Policy::parse`](crate::Policy::parse) takes, in bytes.
///
/// A policy is written by a person; the largest sensible ones list some hundred identifiers of 65 bytes.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Longest text that [`Policy::parse_stored`](crate::Policy::parse_stored) takes, in bytes.
///
/// What is stored is the translation, which is longer than the text that was typed: `a or ` (5 bytes) becomes
/// `(= subject.a "true") ` (21), a control character becomes `\u{1f}` (6). Six times [`MAX_TEXT_BYTES`] is the worst
/// case; with eight times every accepted policy reads back.
pub const MAX_STORED_BYTES: usize = 8 * MAX_TEXT_BYTES;

/// Deepest nesting of lists, sequences and parentheses.
pub const MAX_LEVELS: usize = 1_024;

/// Deepest nesting that may be sent to a stock 0.150 node, whose own code runs out of stack soon after and takes the
/// whole process with it. See [`Policy::levels`](crate::Policy::levels).
pub const STOCK_MAX_LEVELS: usize = 1_000;
