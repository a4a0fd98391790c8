//! Addresses, routes, messages, wire codecs and the actor runtime of Portolan.
