//! Who may say whose a connection is: SPIRE's `proxy_protocol_trusted_cidrs`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ironroot_shell::settings::Section;

/// Networks of balancers that may say whose a connection is (PROXY protocol). None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancers(Arc<[IpNet]>);

impl Balancers {
    /// Those in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    /// Whether one is at that address, however it is written.
    pub fn have(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

pub(super) fn read(server: &Section<'_>) -> Balancers {
    Balancers::new(server.parsed_list("proxy_protocol_trusted_cidrs", network).unwrap_or_default())
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    text.parse().map_err(|_| "not a network: write it as 10.0.0.0/8 or 2001:db8::/32, one address as 192.0.2.7/32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_are_those_in_the_networks_that_are_named_however_their_addresses_are_written() {
        let networks = ["10.0.0.0/8", "2001:db8:5::/48"].map(|text| network(text).expect("a network"));
        let balancers = Balancers::new(networks.to_vec());
        for (address, is_one) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:5:9::1", true),
            ("11.1.2.3", false),
            ("2001:db8:6::1", false),
        ] {
            assert_eq!(balancers.have(address.parse().expect("an address")), is_one, "{address}");
        }
        assert!(!Balancers::default().have(IpAddr::from([127, 0, 0, 1])), "nobody by default");
    }

    #[test]
    fn an_address_alone_or_a_mask_that_is_too_long_is_no_network() {
        for text in ["", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "balancer.example.org", "::1/129"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
