//! Portals: a TCP stream over a route of workers.
