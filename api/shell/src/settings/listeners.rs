//! Where a configuration listens: one place is one listener's.

use std::cell::RefCell;
use std::net::IpAddr;

use super::Origin;

/// A place on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

/// The listeners of a configuration, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Listeners(RefCell<Vec<(Place, Origin, String)>>);

impl Listeners {
    /// Takes in the listener that `key` names; the key and the place in the file of the one that has its port already. `port` 0: the kernel
    /// gives it a free one.
    pub(super) fn add(&self, origin: Origin, key: &str, (host, port): (&str, u16)) -> Option<(String, Origin)> {
        let place = Place { host: host.to_owned(), port };
        let mut listeners = self.0.borrow_mut();
        let other = listeners.iter().find(|(other, ..)| place.meets(other));
        let other = other.map(|(_, origin, key)| (key.clone(), *origin));
        listeners.push((place, origin, key.to_owned()));
        other
    }
}

impl Place {
    fn meets(&self, other: &Self) -> bool {
        let same_host = || match (self.address(), other.address()) {
            (Some(this), Some(that)) => overlap(this, that) || overlap(that, this),
            _ => self.host == other.host,
        };
        self.port != 0 && self.port == other.port && same_host()
    }

    /// None of a name that only the machine can say the address of.
    fn address(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.trim_matches(['[', ']']).parse().ok(),
        }
    }
}

/// Whether a listener at `all` has what another at `one` wants. Of IPv6, "all addresses" are those of IPv4 too. Source: ipv6(7), IPV6_V6ONLY.
fn overlap(all: IpAddr, one: IpAddr) -> bool {
    all == one || (all.is_unspecified() && (all.is_ipv6() || one.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_listeners_at_each_address_that_both_would_have() {
        for (first, second, meet) in [
            (("0.0.0.0", 80), ("0.0.0.0", 80), true),
            (("0.0.0.0", 80), ("127.0.0.1", 80), true),
            (("localhost", 80), ("0.0.0.0", 80), true),
            (("localhost", 80), ("127.0.0.1", 80), true),
            (("::", 80), ("10.0.0.1", 80), true),
            (("::", 80), ("0.0.0.0", 80), true),
            (("[::1]", 80), ("::1", 80), true),
            (("host.example", 80), ("host.example", 80), true),
            (("0.0.0.0", 80), ("0.0.0.0", 81), false),
            (("10.0.0.1", 80), ("10.0.0.2", 80), false),
            (("0.0.0.0", 80), ("::1", 80), false),
            (("host.example", 80), ("10.0.0.1", 80), false),
            (("0.0.0.0", 0), ("0.0.0.0", 0), false),
        ] {
            let listeners = Listeners::default();
            assert_eq!(listeners.add(Origin::Line(1), "a", first), None);
            let met = listeners.add(Origin::Line(2), "b", second);
            assert_eq!(met, meet.then(|| ("a".to_owned(), Origin::Line(1))), "{first:?} {second:?}");
        }
    }
}
