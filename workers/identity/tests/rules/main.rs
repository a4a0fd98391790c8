//! Every rule of the specification, part 02 sections 0 to 4, accepted and refused; the published vectors; properties.

mod attestation;
mod credential;
mod forge;
mod history;
mod properties;
mod repositories;
mod sealing;
mod signing;
mod vectors;
