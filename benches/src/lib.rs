//! Microbenchmarks and side-by-side runs.
