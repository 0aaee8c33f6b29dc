//! `ca ceremony`: a root on paper.

mod facts;
mod open;
mod outputs;
mod request;
mod root;
mod sign;
mod take;
mod transcript;

use std::process::ExitCode;

use clap::Subcommand;

/// The whole of it, by example.
pub(super) const WALK: &str = "Example, the whole of it. On the machine of the ceremony, which needs no network, with the root's token plugged in:
  ironroot-server ca ceremony root -trustDomain example.org -module /usr/lib/p11.so -token ROOT -pinFile root.pin -out root
On the server, whose configuration has UpstreamAuthority \"pkcs11\" { plugin_data { roots_path = \"/etc/ironroot/roots.pem\" } }:
  cp root/root.pem /etc/ironroot/roots.pem
  ironroot-server ca ceremony request -config /etc/ironroot/server.conf -out request.pem
At the ceremony again, with request.pem carried there:
  ironroot-server ca ceremony sign -root root/root.pem -request request.pem -ttl 8760h -module /usr/lib/p11.so -token ROOT -pinFile root.pin -out ca
On the server, with ca/ca.pem carried back:
  ironroot-server ca ceremony take -config /etc/ironroot/server.conf -certificate ca.pem";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Ceremony {
    Root(root::MakeRoot),
    Request(request::ShowRequest),
    Sign(sign::Sign),
    Take(take::Take),
}

impl Ceremony {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Root(root) => root.execute(),
            Self::Request(request) => request.execute(),
            Self::Sign(sign) => sign.execute(),
            Self::Take(take) => take.execute(),
        }
    }
}
