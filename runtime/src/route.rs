//! An ordered list of hops.

use std::fmt;

use smallvec::SmallVec;

use crate::Address;

/// Longest route that a decoder of ours accepts, in hops. The protocol has no limit; real routes have up to eight.
pub const MAX_HOPS: usize = 64;

/// Routes up to this length live inside the message. That of a record through a relay has three hops; a longer one costs
/// an allocation, a longer limit costs each message, which is moved at each hop.
const INLINE: usize = 3;

/// An ordered list of hops; the first is the next (spec 01 §2.2).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Route {
    hops: SmallVec<[Address; INLINE]>,
}

impl Route {
    /// A route without hops.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next hop.
    pub fn next(&self) -> Option<&Address> {
        self.hops.first()
    }

    /// The last hop: whom the message is for.
    pub fn recipient(&self) -> Option<&Address> {
        self.hops.last()
    }

    /// Takes the next hop off.
    pub fn step(&mut self) -> Option<Address> {
        if self.hops.is_empty() {
            None
        } else {
            Some(self.hops.remove(0))
        }
    }

    /// Leaves only the next hop.
    pub fn keep_first(&mut self) {
        self.hops.truncate(1);
    }

    /// Takes the last hop off.
    pub fn pop(&mut self) -> Option<Address> {
        self.hops.pop()
    }

    /// Puts a hop in front.
    pub fn prepend(&mut self, hop: Address) {
        self.hops.insert(0, hop);
    }

    /// Puts a whole route in front.
    pub fn prepend_route(&mut self, route: &Route) {
        self.hops.insert_many(0, route.hops.iter().cloned());
    }

    /// Adds a hop at the end.
    pub fn push(&mut self, hop: Address) {
        self.hops.push(hop);
    }

    /// Adds the hops of another route at the end.
    pub fn extend(&mut self, route: &Route) {
        self.hops.extend(route.hops.iter().cloned());
    }

    /// The number of hops.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Whether no hop is left.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// The hops in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Address> {
        self.hops.iter()
    }

    /// The hops in order.
    pub fn as_slice(&self) -> &[Address] {
        &self.hops
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hop) in self.hops.iter().enumerate() {
            if i > 0 {
                f.write_str(" => ")?;
            }
            write!(f, "{hop}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl FromIterator<Address> for Route {
    fn from_iter<I: IntoIterator<Item = Address>>(hops: I) -> Self {
        Self {
            hops: hops.into_iter().collect(),
        }
    }
}

impl<'a> IntoIterator for &'a Route {
    type Item = &'a Address;
    type IntoIter = std::slice::Iter<'a, Address>;
    fn into_iter(self) -> Self::IntoIter {
        self.hops.iter()
    }
}

impl From<Address> for Route {
    fn from(hop: Address) -> Self {
        Self::from_iter([hop])
    }
}

impl From<&Address> for Route {
    fn from(hop: &Address) -> Self {
        hop.clone().into()
    }
}

impl From<&str> for Route {
    fn from(hop: &str) -> Self {
        Address::from(hop).into()
    }
}

impl From<&Route> for Route {
    fn from(route: &Route) -> Self {
        route.clone()
    }
}

impl<A: Into<Address>, const N: usize> From<[A; N]> for Route {
    fn from(hops: [A; N]) -> Self {
        hops.into_iter().map(Into::into).collect()
    }
}

impl From<Vec<Address>> for Route {
    fn from(hops: Vec<Address>) -> Self {
        hops.into_iter().collect()
    }
}

/// A route of the given hops: `route!["hop", address, "echo"]`.
#[macro_export]
macro_rules! route {
    ($($hop:expr),* $(,)?) => {
        [$($crate::Address::from($hop)),*].into_iter().collect::<$crate::Route>()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_taken_from_the_front_and_added_on_both_sides() {
        let mut route = route!["a", "b"];
        route.prepend_route(&route!["x", "y"]);
        route.push("z".into());
        assert_eq!(route.to_string(), "0#x => 0#y => 0#a => 0#b => 0#z");
        assert_eq!(route.step(), Some("x".into()));
        assert_eq!(route.pop(), Some("z".into()));
        assert_eq!(route.next(), Some(&"y".into()));
        assert_eq!(route.recipient(), Some(&"b".into()));
        assert_eq!(Route::new().step(), None);
    }
}
