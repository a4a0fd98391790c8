//! Attribute policies: parse, check, evaluate.
