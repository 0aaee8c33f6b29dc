//! The places for roots, and which root signs.

use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::slot::SlotName;
use crate::clock::Moment;

/// What a place for a root holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RootSlot {
    /// Nothing.
    #[default]
    Empty,
    /// A key is about to be made here. Whatever the token holds under its CKA_ID is nobody's and is replaced.
    Intended,
    /// Certified by itself and in the bundle.
    Made(Authority),
}

/// The roots: one, and from half its life on its successor beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    a: RootSlot,
    b: RootSlot,
}

impl Roots {
    /// What is in this place.
    pub fn slot(&self, name: SlotName) -> &RootSlot {
        match name {
            SlotName::A => &self.a,
            SlotName::B => &self.b,
        }
    }

    pub(super) fn slot_mut(&mut self, name: SlotName) -> &mut RootSlot {
        match name {
            SlotName::A => &mut self.a,
            SlotName::B => &mut self.b,
        }
    }

    /// The place where a root is about to be made.
    pub fn intended(&self) -> Option<SlotName> {
        SlotName::BOTH.into_iter().find(|name| *self.slot(*name) == RootSlot::Intended)
    }

    /// All, the one that ends first at the front.
    pub fn made(&self) -> Vec<(SlotName, &Authority)> {
        let made = |name| if let RootSlot::Made(root) = self.slot(name) { Some((name, root)) } else { None };
        let mut roots: Vec<_> = SlotName::BOTH.into_iter().filter_map(made).collect();
        roots.sort_by_key(|(_, root)| root.not_after);
        roots
    }

    /// The one that signs CAs at `now_unix`: the oldest for as long as it can, since devices that were off for long know no
    /// other; in the last quarter of its life, or when it would cut the CA's `ttl_seconds` short, the next.
    pub fn signing(&self, now_unix: i64, ttl_seconds: i64) -> Option<(SlotName, &Authority)> {
        let mut valid = self.made();
        valid.retain(|(_, root)| root.is_valid(now_unix));
        let enough = |root: &Authority| root.not_after - now_unix >= ttl_seconds.max(root.lifetime() / 4);
        valid.iter().find(|(_, root)| enough(root)).or(valid.last()).copied()
    }

    /// Where the next root is to be made now: at the beginning, and when the newest has lived half its life. A root that may
    /// still be needed is never replaced, and a second one is not made on the word of a clock that was just set.
    pub fn next(&self, moment: Moment) -> Option<SlotName> {
        let newest = self.made().pop().map(|(_, root)| root);
        let is_due = match newest {
            None => true,
            Some(root) if root.is_ahead_of(moment.now_unix) => false,
            Some(root) => moment.may_destroy() && moment.now_unix >= root.not_after - root.lifetime() / 2,
        };
        let is_empty = |name: &SlotName| !matches!(self.slot(*name), RootSlot::Made(_));
        let is_over = |name: &SlotName| matches!(self.slot(*name), RootSlot::Made(root) if root.is_over(moment));
        let free = SlotName::BOTH.into_iter().find(is_empty).or(SlotName::BOTH.into_iter().find(is_over));
        free.filter(|_| is_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Trust;

    const START: i64 = 1_800_000_000;
    const YEAR: i64 = 365 * 24 * 60 * 60;

    fn root(from: i64, years: i64) -> RootSlot {
        let (issued_at, not_after) = (START + from * YEAR, START + (from + years) * YEAR);
        let (certificate, issued_counted) = (Vec::new(), from * YEAR);
        RootSlot::Made(Authority { certificate, issued_at, not_after, issued_counted, key: 0, root: None })
    }

    fn moment(years: i64) -> Moment {
        Moment { now_unix: START + years * YEAR, counted: years * YEAR, trust: Trust::Agreed }
    }

    #[test]
    fn a_root_is_joined_by_its_successor_at_half_its_life_and_replaced_only_when_it_is_over() {
        assert_eq!(Roots::default().next(moment(0)), Some(SlotName::A));
        let one = Roots { a: root(0, 20), b: RootSlot::Empty };
        for (years, next) in [(0, None), (9, None), (10, Some(SlotName::B)), (25, Some(SlotName::B)), (-5, None)] {
            assert_eq!(one.next(moment(years)), next, "{years}");
        }
        for trust in [Trust::Settling, Trust::Incident] {
            assert_eq!(one.next(Moment { trust, ..moment(30) }), None, "one clock's word");
        }
        let two = Roots { a: root(0, 20), b: root(10, 20) };
        for (years, next) in [(15, None), (19, None), (20, Some(SlotName::A))] {
            assert_eq!(two.next(moment(years)), next, "{years}");
        }
        let mostly_off = Moment { counted: 5 * YEAR, ..moment(21) };
        assert_eq!(two.next(mostly_off), None, "for all that was counted it may be alive");
    }

    #[test]
    fn the_oldest_root_signs_as_long_as_it_can() {
        let two = Roots { a: root(0, 20), b: root(10, 20) };
        for (years, signs) in [(-1, None), (5, Some(SlotName::A)), (15, Some(SlotName::A)), (16, Some(SlotName::B))] {
            assert_eq!(two.signing(START + years * YEAR, 3600).map(|(name, _)| name), signs, "{years}");
        }
        assert_eq!(two.signing(START + 12 * YEAR, 9 * YEAR).map(|(name, _)| name), Some(SlotName::B), "a long CA");
        assert_eq!(two.signing(START + 29 * YEAR, 3600).map(|(name, _)| name), Some(SlotName::B), "the last there is");
        assert_eq!(two.signing(START + 31 * YEAR, 3600), None);
    }
}
