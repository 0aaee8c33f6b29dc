//! How calls on the agent's sockets ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_shell::telemetry::{Calls, Counter};
use tonic::Code;

use super::BoundedCall;
use super::door::{Api, api_of, methods};

/// Grows with nothing: a place for each method there is.
#[derive(Debug)]
pub struct Tally {
    methods: Vec<Calls>,
    /// Callers that were looked at.
    pub attestations: Calls,
    let_in: [LetIn; Api::ALL.len()],
    over_rate: [Counter; BoundedCall::ALL.len()],
    /// Calls that were turned away at the door, of any name.
    pub turned_away: Calls,
}

/// Calls of one API.
#[derive(Debug, Default)]
struct LetIn {
    begun: Counter,
    ended: Counter,
}

impl Tally {
    /// Of no call.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            methods: methods().map(|_| Calls::default()).collect(),
            attestations: Calls::default(),
            let_in: Default::default(),
            over_rate: Default::default(),
            turned_away: Calls::default(),
        })
    }

    /// A call of the method at `path` that began now. Whoever drops what is returned without a word has broken it off.
    pub(super) fn begin(this: &Arc<Self>, path: &str) -> Counting {
        let (method, api) = (methods().position(|known| known == path), api_of(path));
        api.into_iter().for_each(|api| this.let_in[api as usize].begun.one_more());
        Counting { tally: Arc::clone(this), method, api, began: Instant::now(), code: Code::Cancelled }
    }

    /// Each method's path, and its calls.
    pub fn by_method(&self) -> impl Iterator<Item = (&'static str, &Calls)> {
        methods().zip(&self.methods)
    }

    /// Calls of `api` that were let in so far, and those of them that are under way.
    pub fn let_in(&self, api: Api) -> (u64, u64) {
        let LetIn { begun, ended } = &self.let_in[api as usize];
        let ended = ended.count();
        let begun = begun.count();
        (begun, begun.saturating_sub(ended))
    }

    /// A call that the operator's bound has turned away.
    pub(super) fn over_rate(&self, call: BoundedCall) {
        self.over_rate[call as usize].one_more();
    }

    /// How many there were of each method, by its path; none of those without one.
    pub fn times_over_rate(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = BoundedCall::ALL.into_iter().zip(&self.over_rate);
        counts.map(|(call, counter)| (call.path(), counter.count())).filter(|(_, count)| *count > 0)
    }

    fn end(&self, (method, api): (Option<usize>, Option<Api>), code: Code, time: Duration) {
        api.into_iter().for_each(|api| self.let_in[api as usize].ended.one_more());
        if let Some(method) = method {
            self.methods[method].ended(code, time);
        }
    }
}

/// A call that is under way.
#[derive(Debug)]
pub(super) struct Counting {
    tally: Arc<Tally>,
    method: Option<usize>,
    api: Option<Api>,
    began: Instant,
    code: Code,
}

impl Counting {
    /// It ended with this code.
    pub(super) fn with(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.tally.end((self.method, self.api), self.code, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_under_way_until_it_ends_and_one_that_is_dropped_was_broken_off() {
        let tally = Tally::new();
        let path = "/SpiffeWorkloadAPI/FetchX509SVID";
        let (good, broken_off) = (Tally::begin(&tally, path), Tally::begin(&tally, path));
        assert_eq!(tally.let_in(Api::Workload), (2, 2));
        good.with(Code::Ok);
        drop(broken_off);
        drop(Tally::begin(&tally, "/no.such/Method"));
        assert_eq!(tally.let_in(Api::Workload), (2, 0));
        let fetched = tally.by_method().find(|(method, _)| *method == path).expect("in the table").1;
        let codes: Vec<_> = fetched.by_code().map(|(code, elapsed)| (code, elapsed.times())).collect();
        assert_eq!(codes, [("OK", 1), ("Canceled", 1)]);
        assert_eq!(tally.by_method().map(|(_, calls)| calls.by_code().count()).sum::<usize>(), 2, "and no other");
    }

    #[test]
    fn calls_are_counted_by_api_and_health_checks_are_nobodys() {
        let tally = Tally::new();
        let paths = [
            (Some(Api::Workload), "/SpiffeWorkloadAPI/FetchJWTSVID"),
            (Some(Api::Sds), "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"),
            (Some(Api::DelegatedIdentity), "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs"),
            (Some(Api::Debug), "/spire.agent.debug.v1.Debug/GetInfo"),
            (Some(Api::Logger), "/spire.api.agent.logger.v1.Logger/GetLogger"),
            (None, "/grpc.health.v1.Health/Watch"),
        ];
        for (api, path) in paths {
            assert!(methods().any(|known| known == path), "{path}");
            let before = Api::ALL.map(|other| tally.let_in(other));
            let under_way = Tally::begin(&tally, path);
            for (other, before) in Api::ALL.into_iter().zip(before) {
                let grown = u64::from(api == Some(other));
                assert_eq!(tally.let_in(other), (before.0 + grown, before.1 + grown), "{other:?} by {path}");
            }
            drop(under_way);
        }
    }
}
