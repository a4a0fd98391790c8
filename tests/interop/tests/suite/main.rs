//! The cases of `docs/interop.md`, one module each.

mod authority;
mod channels;
mod extensions;
mod hostile;
mod policies;
mod portals;
mod relays;
mod routing;
