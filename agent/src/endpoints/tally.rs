//! How calls on the agent's sockets ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_shell::telemetry::{Calls, Counter};
use tonic::Code;

use super::door::methods;

/// Grows with nothing: a place for each method there is.
#[derive(Debug)]
pub struct Tally {
    methods: Vec<Calls>,
    /// Callers that were looked at.
    pub attestations: Calls,
    begun: Counter,
    ended: Counter,
    /// Calls that were turned away at the door, of any name.
    pub turned_away: Calls,
}

impl Tally {
    /// Of no call.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            methods: methods().map(|_| Calls::default()).collect(),
            attestations: Calls::default(),
            begun: Counter::default(),
            ended: Counter::default(),
            turned_away: Calls::default(),
        })
    }

    /// A call of the method at `path` that began now. Whoever drops what is returned without a word has broken it off.
    pub(super) fn begin(this: &Arc<Self>, path: &str) -> Counting {
        this.begun.one_more();
        let method = methods().position(|known| known == path);
        Counting { tally: Arc::clone(this), method, began: Instant::now(), code: Code::Cancelled }
    }

    /// Each method's path, and its calls.
    pub fn by_method(&self) -> impl Iterator<Item = (&'static str, &Calls)> {
        methods().zip(&self.methods)
    }

    /// Calls that were let in so far, and those of them that are under way.
    pub fn let_in(&self) -> (u64, u64) {
        let ended = self.ended.count();
        let begun = self.begun.count();
        (begun, begun.saturating_sub(ended))
    }

    fn end(&self, method: Option<usize>, code: Code, time: Duration) {
        self.ended.one_more();
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
        self.tally.end(self.method, self.code, self.began.elapsed());
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
        assert_eq!(tally.let_in(), (2, 2));
        good.with(Code::Ok);
        drop(broken_off);
        drop(Tally::begin(&tally, "/no.such/Method"));
        assert_eq!(tally.let_in(), (3, 0));
        let fetched = tally.by_method().find(|(method, _)| *method == path).expect("in the table").1;
        let codes: Vec<_> = fetched.by_code().map(|(code, elapsed)| (code, elapsed.times())).collect();
        assert_eq!(codes, [("OK", 1), ("Canceled", 1)]);
        assert_eq!(tally.by_method().map(|(_, calls)| calls.by_code().count()).sum::<usize>(), 2, "and no other");
    }
}
