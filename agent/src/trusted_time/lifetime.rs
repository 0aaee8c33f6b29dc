//! How long one certificate chain lasts, as this device can know it.

/// The validity of a chain: the latest notBefore and the earliest notAfter in it, UNIX seconds by its issuer's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The latest notBefore, UNIX seconds; valid from this second on.
    pub not_before: i64,
    /// The earliest notAfter, UNIX seconds; this second is the last.
    pub not_after: i64,
}

impl Span {
    /// The moment of the span that is nearest to `unix`: when to verify a chain of which time is judged apart. `None` if
    /// no moment is in it.
    pub fn nearest(&self, unix: i64) -> Option<i64> {
        (self.not_before <= self.not_after).then(|| unix.clamp(self.not_before, self.not_after))
    }

    /// Its length, seconds.
    pub fn length(&self) -> i64 {
        self.not_after.saturating_sub(self.not_before).max(0)
    }
}

/// A held chain's span, and what is left of it by elapsed time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifetime {
    span: Span,
    left: Left,
    disputed: bool,
}

/// What is left, seconds of elapsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Left {
    /// Received from its issuer in this run, signed for a key made a moment before: the agent's own clock then, and how
    /// long from there.
    Fresh { at: i64, seconds: i64 },
    /// Taken up from an earlier run: as long as this after that run's record was made.
    Kept { seconds: i64 },
}

impl Lifetime {
    pub(super) fn fresh(span: Span, at: i64, seconds: i64, disputed: bool) -> Self {
        Self { span, left: Left::Fresh { at, seconds }, disputed }
    }

    /// Of a chain that an earlier run had checked. `left`: what was left when it was written down, seconds; by the chain's
    /// whole length if that is not known.
    pub fn kept(span: Span, left: Option<i64>) -> Self {
        let length = span.length();
        let seconds = left.map_or(length, |left| left.clamp(0, length));
        Self { span, left: Left::Kept { seconds }, disputed: false }
    }

    /// The chain's validity.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Whether the device's clock, which had agreed with the server before, says that it is not valid now.
    pub fn is_disputed(&self) -> bool {
        self.disputed
    }

    pub(super) fn left(&self) -> Left {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_gives_its_nearest_moment() {
        let span = Span { not_before: 10, not_after: 20 };
        assert_eq!([5, 10, 15, 30].map(|unix| span.nearest(unix)), [Some(10), Some(10), Some(15), Some(20)]);
        assert_eq!(Span { not_before: 20, not_after: 10 }.nearest(15), None);
        assert_eq!((span.length(), Span { not_before: 20, not_after: 10 }.length()), (10, 0));
    }

    #[test]
    fn what_is_left_is_never_more_than_the_whole() {
        let span = Span { not_before: 10, not_after: 20 };
        let seconds = |left| match Lifetime::kept(span, left).left() {
            Left::Kept { seconds } => seconds,
            Left::Fresh { .. } => panic!("kept"),
        };
        assert_eq!([None, Some(3), Some(99), Some(-1)].map(seconds), [10, 3, 10, 0]);
    }
}
