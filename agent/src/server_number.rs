//! Which of an agent's servers something is of. Each has IDs of entries of its own.

/// Most servers of one agent: each costs a loop, a sealed cache with its counter in the chip, and two keys.
pub const MAX_SERVERS: usize = 4;

/// The place of a server in the agent's configuration, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerNumber(u8);

impl ServerNumber {
    /// Of an agent with one server, that one.
    pub const FIRST: Self = Self(0);

    /// Those of so many servers, at most [`MAX_SERVERS`], in order.
    pub fn up_to(count: usize) -> impl Iterator<Item = Self> {
        (0..count.min(MAX_SERVERS)).map(|place| Self(u8::try_from(place).unwrap_or(u8::MAX)))
    }

    /// Its place, from 0.
    pub fn place(self) -> usize {
        self.0.into()
    }

    /// Its own of what each server has one of.
    pub fn own<T>(self, each: &[T; MAX_SERVERS]) -> &T {
        let [first, ..] = each;
        each.get(self.place()).unwrap_or(first)
    }
}
