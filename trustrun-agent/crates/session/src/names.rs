//! Which names the target's believed DNS answers bound to which addresses: the user-space mirror of `BINDINGS`.

use std::{collections::HashMap, net::IpAddr, rc::Rc};

/// Most addresses that are remembered.
const MOST: usize = 1 << 18;
/// Most names of one address.
const MOST_NAMES: usize = 256;

#[derive(Debug)]
struct Bound {
    name: Rc<str>,
    /// CLOCK_BOOTTIME.
    expires: u64,
}

/// Names by address, the most recent first.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bound: HashMap<IpAddr, Vec<Bound>>,
    /// Bindings that found no room.
    pub(crate) lost: u64,
}

impl Names {
    pub(crate) fn bind(&mut self, address: IpAddr, name: &Rc<str>, expires: u64) {
        if self.bound.len() >= MOST && !self.bound.contains_key(&address) {
            self.lost += 1;
            return;
        }
        let names = self.bound.entry(address).or_default();
        if let Some(i) = names.iter().position(|b| b.name == *name) {
            let mut b = names.remove(i);
            b.expires = b.expires.max(expires);
            names.insert(0, b);
        } else {
            names.insert(0, Bound { name: Rc::clone(name), expires });
            if names.len() > MOST_NAMES {
                names.pop();
                self.lost += 1;
            }
        }
    }

    /// The names that an address has at a moment, the most recent first. `slack` nanoseconds past their end still
    /// count: the kernel's clock was read a little earlier or later than this one's.
    pub(crate) fn of(&self, address: IpAddr, at: u64) -> impl Iterator<Item = &Rc<str>> {
        self.bound.get(&address).into_iter().flatten().filter(move |b| b.expires > at).map(|b| &b.name)
    }

    /// Whether a name was ever bound to an address, as the kernel asks for an SNI.
    pub(crate) fn knows(&self, address: IpAddr, name: &str) -> Option<&Rc<str>> {
        self.bound.get(&address)?.iter().find(|b| &*b.name == name).map(|b| &b.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_name_comes_first_and_ends_with_its_ttl() {
        let mut names = Names::default();
        let ip: IpAddr = "203.0.113.5".parse().unwrap();
        names.bind(ip, &"a.test".into(), 100);
        names.bind(ip, &"b.test".into(), 50);
        let at = |t| names.of(ip, t).map(|n| &**n).collect::<Vec<_>>();
        assert_eq!(at(10), ["b.test", "a.test"]);
        assert_eq!(at(60), ["a.test"]);
        assert!(names.knows(ip, "b.test").is_some() && names.knows(ip, "c.test").is_none());
    }
}
