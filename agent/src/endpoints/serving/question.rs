//! What a caller asks for on a stream, and how it is answered.

use std::time::Duration;

use ironroot_attest::SelectorSet;
use tonic::Status;

use super::{Attested, Seen, Serving};
use crate::endpoints::BoundedCall;
use crate::endpoints::caller::Known;

/// What a caller said on a stream after its first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::endpoints) enum Heard {
    /// It asks, and waits for an answer, whether or not that is a new one.
    Asked,
    /// It wants no more.
    Ended,
}

/// One stream's question. It is answered at once, and again whenever what it sees differs from what was sent last.
pub(in crate::endpoints) trait Question: Send + 'static {
    /// A message of the stream.
    type Answer: Send + 'static;
    /// What an answer is made of, by reference: cheap to compare with what was sent last.
    type View: Send + 'static;

    /// The method, for the log.
    const METHOD: &'static str;
    /// The rate that bounds its calls, if one does.
    const BOUNDED: Option<BoundedCall> = None;
    /// What an answer holds, for the log.
    const WHAT: &'static str;

    /// Finds out who `caller` is now, or whom else the selectors are of that count; `before`: what was known when the last answer
    /// was sent. Most callers ask for themselves.
    fn attest(
        &self,
        serving: &Serving,
        caller: &Known,
        before: Option<&Attested>,
    ) -> impl Future<Output = Result<Attested, Status>> + Send {
        async move {
            match before {
                Some(before) => serving.attest_again(caller, before).await,
                None => serving.attest(caller).await,
            }
        }
    }

    /// Whose identities it is about: most callers ask for themselves.
    fn about<'a>(&'a self, caller: &'a Attested) -> &'a SelectorSet {
        &caller.selectors
    }

    /// Whether X509-SVIDs that are made on demand are to be made for it.
    fn wants_svids(&self) -> bool {
        true
    }

    /// Whether there is something to answer by now: a caller may open its stream and ask later.
    fn is_asked(&self) -> bool {
        true
    }

    /// What is seen now, and how long nothing of it ends. `Err` ends the stream.
    fn view(&self, seen: &Seen<'_>) -> Result<(Self::View, Duration), Status>;

    /// Whether both views make the same answer.
    fn is_same(&self, sent: &Self::View, now: &Self::View) -> bool;

    /// The SPIFFE IDs in the answer, for the log, where those are not all that the selectors have.
    fn named<'a>(&self, _view: &'a Self::View) -> Option<Vec<&'a str>> {
        None
    }

    /// The whole state as a message.
    fn answer(&mut self, view: &Self::View) -> Self::Answer;

    /// Waits until the caller says something on the same stream that wants an answer; most APIs have nothing of the kind. Must
    /// lose nothing when it is dropped.
    fn heard(&mut self) -> impl Future<Output = Result<Heard, Status>> + Send {
        std::future::pending()
    }
}
