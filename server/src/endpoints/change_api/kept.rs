//! What agents were told last, so that they can go on from there on another stream: a connection has an age, and networks break.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;

use super::pushes::MAX_HELD_STREAMS;
use crate::registry::AuthorizedView;

/// Views that are kept, one of an agent.
pub const MAX_KEPT_VIEWS: usize = MAX_HELD_STREAMS;
/// Entries of them all together: 8 bytes each while they are registered, some 400 once they are replaced.
pub const MAX_KEPT_ENTRIES: usize = 128 * 1024;
/// An agent that was away for longer asks for everything.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KeptViews {
    by_agent: HashMap<SpiffeId, Kept>,
    /// Agents in the order in which theirs came, with its number. One that was replaced stands here still, until it is the oldest.
    order: VecDeque<(u64, SpiffeId)>,
    entries: usize,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    view: AuthorizedView,
    since: Instant,
}

impl KeptViews {
    /// `view` is the last that `agent` was told.
    pub fn keep(&mut self, agent: &SpiffeId, view: AuthorizedView, now: Instant) {
        self.forget(agent);
        self.next += 1;
        self.entries += view.len();
        self.order.push_back((self.next, agent.clone()));
        self.by_agent.insert(agent.clone(), Kept { number: self.next, view, since: now });
        while self.has_too_much(now) {
            self.forget_oldest();
        }
    }

    /// The view that `agent` was told last, if it has that `name`.
    pub fn find(&self, agent: &SpiffeId, name: &[u8], now: Instant) -> Option<AuthorizedView> {
        let kept = self.by_agent.get(agent).filter(|kept| !kept.is_over(now))?;
        (kept.view.name().as_bytes() == name).then(|| kept.view.clone())
    }

    fn has_too_much(&self, now: Instant) -> bool {
        let oldest = self.order.front().map(|(number, agent)| self.current(*number, agent));
        let is_over = |oldest: Option<&Kept>| oldest.is_none_or(|kept| kept.is_over(now));
        self.entries > MAX_KEPT_ENTRIES
            || self.by_agent.len() > MAX_KEPT_VIEWS
            || self.order.len() > 2 * MAX_KEPT_VIEWS
            || oldest.is_some_and(is_over)
    }

    fn current(&self, number: u64, agent: &SpiffeId) -> Option<&Kept> {
        self.by_agent.get(agent).filter(|kept| kept.number == number)
    }

    fn forget_oldest(&mut self) {
        let Some((number, agent)) = self.order.pop_front() else { return };
        if self.current(number, &agent).is_some() {
            self.forget(&agent);
        }
    }

    fn forget(&mut self, agent: &SpiffeId) {
        if let Some(kept) = self.by_agent.remove(agent) {
            self.entries -= kept.view.len();
        }
    }
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > KEPT_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: usize) -> SpiffeId {
        SpiffeId::from_parts("td", &format!("/spire/agent/{number}")).expect("legal")
    }

    fn finds(kept: &KeptViews, number: usize, view: &AuthorizedView, now: Instant) -> bool {
        kept.find(&agent(number), view.name().as_bytes(), now).is_some()
    }

    #[test]
    fn an_agent_goes_on_from_what_it_was_told_last_and_from_nothing_else() {
        let (mut kept, now) = (KeptViews::default(), Instant::now());
        let (first, second) = (AuthorizedView::example(&["a"]), AuthorizedView::example(&["a", "b"]));
        kept.keep(&agent(1), first.clone(), now);
        assert!(finds(&kept, 1, &first, now) && !finds(&kept, 2, &first, now));
        kept.keep(&agent(1), second.clone(), now);
        assert!(finds(&kept, 1, &second, now) && !finds(&kept, 1, &first, now));
        assert!(finds(&kept, 1, &second, now + KEPT_FOR));
        assert!(!finds(&kept, 1, &second, now + KEPT_FOR + Duration::from_secs(1)), "too old");
    }

    #[test]
    fn views_are_kept_up_to_a_number_and_the_oldest_go() {
        let (mut kept, now, view) = (KeptViews::default(), Instant::now(), AuthorizedView::example(&["a"]));
        for number in 0..MAX_KEPT_VIEWS + 2 {
            kept.keep(&agent(number), view.clone(), now);
            // The same agent again and again takes no more room.
            kept.keep(&agent(number), view.clone(), now);
        }
        assert_eq!((kept.by_agent.len(), kept.entries), (MAX_KEPT_VIEWS, MAX_KEPT_VIEWS));
        assert!(kept.order.len() <= 2 * MAX_KEPT_VIEWS, "{}", kept.order.len());
        assert!(!finds(&kept, 1, &view, now) && finds(&kept, 2, &view, now));
    }

    #[test]
    fn an_agent_that_comes_back_all_the_time_takes_the_room_of_one() {
        let (mut kept, now, view) = (KeptViews::default(), Instant::now(), AuthorizedView::example(&["a"]));
        (0..100).for_each(|_| kept.keep(&agent(1), view.clone(), now));
        assert_eq!((kept.by_agent.len(), kept.entries, kept.order.len()), (1, 1, 1));
        // Behind one that stays.
        (0..3 * MAX_KEPT_VIEWS).for_each(|_| kept.keep(&agent(2), view.clone(), now));
        assert!(kept.order.len() <= 2 * MAX_KEPT_VIEWS && kept.by_agent.len() <= 2, "{}", kept.order.len());
        assert!(finds(&kept, 2, &view, now));
    }

    #[test]
    fn entries_are_kept_up_to_a_number_and_nothing_for_longer_than_it_is_good_for() {
        let (mut kept, now) = (KeptViews::default(), Instant::now());
        let ids: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
        let large = AuthorizedView::example(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let most = MAX_KEPT_ENTRIES / large.len();
        for number in 0..=most {
            kept.keep(&agent(number), large.clone(), now);
        }
        assert_eq!(kept.by_agent.len(), most);
        kept.keep(&agent(0), AuthorizedView::example(&[]), now + KEPT_FOR + Duration::from_secs(1));
        assert_eq!((kept.by_agent.len(), kept.entries), (1, 0));
    }
}
