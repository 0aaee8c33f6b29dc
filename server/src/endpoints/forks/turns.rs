//! One certificate, or one agent's certificates, used in turns by two: a copy of a chip, or of a key, that works beside the
//! original. It is told, not banned: two agents on one machine that share their identity by mistake look the same.
//!
//! An agent that dialled anew, moved or was restarted leaves its older connections behind: see [`connections`]. One that
//! shows a certificate that was replaced has lost the newer one: see [`serials`]. Who goes back all the same, again and again,
//! is two, whatever the addresses; behind one address (NAT) the ports tell them apart.
//!
//! What no request shows: two that never ask at the same time, and two that come by different addresses of the server.

mod connections;
mod serials;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ironroot_api::SpiffeId;
use tokio::time::Instant;

use connections::Connections;
use serials::Serials;

/// Ways back that are evidence.
const TURNS: u32 = 3;
/// What was sent before an agent dialled anew, or took a newer certificate into use, has arrived by then.
const SETTLED: Duration = Duration::from_secs(2);
/// Ways back further apart than this are not of one story; so long, too, until the same is said again.
const MEMORY: Duration = Duration::from_secs(31 * 60);
/// Agents remembered, about 400 bytes each: as many as there may be connections of agents. Past it those that rest are
/// forgotten, then all.
const MAX_AGENTS: usize = 65_536;

/// A call of an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// When its connection was opened.
    pub opened: Instant,
    /// Where the request came from.
    pub address: SocketAddr,
    /// Which of the server's addresses it dialled.
    pub dialled: SocketAddr,
    /// The serial of the certificate that it showed.
    pub serial: &'a str,
    /// Whether that is the agent's certificate now; else it was replaced.
    pub is_current: bool,
}

/// What is told of two who use one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The address and port of the connection that answers in turns with this one.
    pub other: SocketAddr,
    /// Whether they show one certificate, or two of one agent.
    pub shared: InCommon,
}

/// What two use in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InCommon {
    /// The very same certificate, by its serial.
    Certificate,
    /// An agent's certificates: each has one that replaced the other's.
    Identity,
}

/// Who used what last.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<SpiffeId, Use>>);

#[derive(Debug)]
struct Use {
    connections: Connections,
    serials: Serials,
    seen: Instant,
    told: Option<Instant>,
}

impl Turns {
    /// `agent` asks. What is to be told of it, when there is evidence that was not told lately.
    pub fn note(&self, agent: &SpiffeId, call: Call<'_>, now: Instant) -> Option<Told> {
        // A panic leaves the map whole: its values are plain.
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = uses.get_mut(agent) else {
            make_room(&mut uses, now);
            if call.is_current {
                uses.insert(agent.clone(), Use::first(call, now));
            }
            return None;
        };
        last.note(call, now)
    }
}

fn make_room(uses: &mut HashMap<SpiffeId, Use>, now: Instant) {
    if uses.len() >= MAX_AGENTS {
        uses.retain(|_, last| now.saturating_duration_since(last.seen) < MEMORY);
    }
    if uses.len() >= MAX_AGENTS {
        uses.clear();
    }
}

impl Use {
    fn first(call: Call<'_>, now: Instant) -> Self {
        Self { connections: Connections::new(call, now), serials: Serials::new(call, now), seen: now, told: None }
    }

    fn note(&mut self, call: Call<'_>, now: Instant) -> Option<Told> {
        self.seen = now;
        let identity = self.serials.note(call, now).map(|other| Told { other, shared: InCommon::Identity });
        let certificate = if call.is_current { self.connections.note(call, now) } else { None };
        let told = certificate.map(|other| Told { other, shared: InCommon::Certificate }).or(identity)?;
        let told_lately = self.told.is_some_and(|told| now.saturating_duration_since(told) < MEMORY);
        if told_lately {
            return None;
        }
        self.told = Some(now);
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 4000).into()
    }

    fn agent() -> SpiffeId {
        SpiffeId::parse("spiffe://td/spire/agent/tpm2/a").expect("legal")
    }

    /// A call: the caller's address, when its connection was opened, which certificate it shows, and which is current.
    type Line = (u8, u64, u64, u64);

    /// What is told of calls three seconds apart, the first 100 s after the start.
    fn told(calls: &[Line]) -> Vec<Told> {
        told_over(calls, &[1; 100])
    }

    /// The same; `dialled` are the server's addresses.
    fn told_over(calls: &[Line], dialled: &[u8]) -> Vec<Told> {
        let (turns, start) = (Turns::default(), Instant::now());
        let call = |(number, (line, dialled)): (u32, (&Line, &u8))| {
            let (from, opened, serial, current) = *line;
            let serial = serial.to_string();
            let call = Call {
                opened: start + SECOND * u32::try_from(opened).expect("few"),
                address: address(from),
                dialled: address(*dialled),
                serial: &serial,
                is_current: serial == current.to_string(),
            };
            turns.note(&agent(), call, start + SECOND * (100 + 3 * number))
        };
        (0..).zip(calls.iter().zip(dialled)).filter_map(call).collect()
    }

    #[test]
    fn one_certificate_that_is_used_in_turns_is_told_once_from_two_addresses_and_from_one() {
        for other in [1, 2] {
            let calls: Vec<Line> = (0..30).map(|n| if n % 2 == 0 { (1, 0, 7, 7) } else { (other, 1, 7, 7) }).collect();
            let told = told(&calls);
            assert_eq!(told, [Told { other: address(other), shared: InCommon::Certificate }]);
        }
    }

    #[test]
    fn certificates_that_replace_each_other_in_turns_are_told() {
        // Each is refused, attests again, and replaces the other's.
        let calls: Vec<Line> = (1..12)
            .flat_map(|n| {
                let (one, other) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
                [(one, n, n, n), (one, n, n, n), (other, n - 1, n - 1, n)]
            })
            .collect();
        let told = told(&calls);
        assert!(told.len() == 1 && told[0].shared == InCommon::Identity, "{told:?}");
        // One of them cannot attest again: it shows what it has.
        let calls: Vec<Line> =
            [(1, 0, 1, 1), (1, 1, 2, 2)].into_iter().chain([(1, 1, 2, 2), (2, 2, 1, 2)].repeat(4)).collect();
        assert_eq!(self::told(&calls).len(), 1);
    }

    #[test]
    fn an_agent_that_moves_dials_anew_is_restarted_or_renews_is_one() {
        let innocent: [Vec<Line>; 6] = [
            // It moves on and on.
            (0..30).map(|n| (n as u8, n, 7, 7)).collect(),
            // It dials anew every third call; a late one of before arrives each time.
            (0..30).map(|n| (1, if n % 3 == 1 { n / 3 } else { n / 3 + 1 }, 7, 7)).collect(),
            // It renews, and dials anew each time.
            (0..30).map(|n| (1, n, n, n)).collect(),
            // It never keeps what it was given: each start shows its first certificate, is refused and attests.
            (1..15).flat_map(|n| [(1, 3 * n, 0, n), (1, 3 * n + 1, n + 1, n + 1)]).collect(),
            // It was put back to an older certificate once, and renewed since.
            vec![(1, 0, 1, 1), (1, 1, 2, 2), (1, 1, 2, 2), (1, 2, 1, 2), (1, 3, 3, 3), (1, 3, 3, 3), (1, 3, 3, 3)],
            // A stranger to this server's memory shows an old one.
            [(1, 0, 1, 2)].repeat(20),
        ];
        for calls in innocent {
            assert_eq!(told(&calls), [], "{calls:?}");
        }
    }

    /// Its resolver gives several addresses of the server, and it takes them by turns, as SPIRE's agents do.
    #[test]
    fn an_agent_that_dials_two_addresses_of_the_server_is_one() {
        let calls: Vec<Line> = (0..30).map(|n| (1, n % 2, 7, 7)).collect();
        let dialled: Vec<u8> = (0..30).map(|n| n % 2).collect();
        assert_eq!(told_over(&calls, &dialled), []);
    }

    #[test]
    fn the_agents_remembered_are_bounded() {
        let (turns, now) = (Turns::default(), Instant::now());
        let call = Call { opened: now, address: address(1), dialled: address(9), serial: "1", is_current: true };
        for number in 0..MAX_AGENTS + 10 {
            let agent = SpiffeId::parse(&format!("spiffe://td/spire/agent/tpm2/{number}")).expect("legal");
            assert_eq!(turns.note(&agent, call, now), None);
        }
        assert!(turns.0.lock().expect("whole").len() <= MAX_AGENTS);
    }
}
