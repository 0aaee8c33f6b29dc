//! The systemd unit of a process, in the names of SPIRE's `systemd` attestor: `systemd:id` and `systemd:fragment_path`.
//!
//! ```text
//!  /proc/PID/cgroup ─► unit ─┬─ no entry asks ────────────────────────► systemd:id, which nothing depends on
//!                            └─ PID 1, by pidfd over the system bus ─┬─► the same unit ─► systemd:id, systemd:fragment_path
//!                                                                    ├─► another, none ─► nothing
//!                                                                    └─► no answer ─────► systemd:id, and the file as it was said before
//! ```
//! Both witnesses are root's: nobody else can move a process into another unit's group, or speak for PID 1 on the system bus.
//! So the group is enough where there is no bus, or systemd does not answer in time; where both speak, they must agree.

mod bus;
mod control_group;
mod manager;

use std::error::Error;
use std::time::{Duration, Instant};

use procfs::ProcessCGroups;
use tracing::debug;

use super::demand::UnitDemand;
use super::outage::Outage;
use super::peer::Peer;
use super::process::Process;
use crate::Selector;
pub use bus::{BusAddressError, BusError, SystemBus};
use manager::Unit;

/// How long PID 1 may take to answer all that is asked of one process. It does within a millisecond, and is silent for a second
/// or so while it reloads its units.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Why nothing, or no `systemd:fragment_path`, is told of a process. It keeps its other selectors.
#[derive(Debug, thiserror::Error)]
pub enum UnitUntold {
    /// Somebody has made the control group by hand, or the process was just being moved.
    #[error("its control group is of the unit {control_group}, but systemd says that it belongs to {}", systemd.as_deref().unwrap_or("none"))]
    Disagreement {
        /// What /proc says.
        control_group: String,
        /// What PID 1 says.
        systemd: Option<String>,
    },
    /// An entry asks for the unit's file, and only systemd knows it.
    #[error("systemd could not be asked for the file of its unit")]
    Unanswered(#[source] BusError),
    /// Too long, or with control characters.
    #[error("the unit's file {0:?} cannot be a selector")]
    Unspeakable(String),
}

/// What is told of a process's unit.
#[derive(Debug)]
pub(super) struct Told {
    pub selectors: Vec<Selector>,
    pub withheld: Option<UnitUntold>,
    /// Whether the file is of an earlier answer, since systemd cannot be asked now.
    pub is_kept: bool,
}

/// What `process`, which is `peer`'s, has for a unit. `wanted` says what entries depend on, given `systemd:id`. Blocks, at
/// most for `ANSWER_DEADLINE`. True only if `peer` is alive afterwards.
pub(super) fn told(
    bus: &SystemBus,
    peer: &Peer,
    process: &Process,
    wanted: impl FnOnce(&Selector) -> UnitDemand,
    outage: &Outage,
) -> Told {
    // A kernel without control groups has no units.
    let groups = process.control_groups().ok();
    let Some((groups, unit)) = groups.as_ref().and_then(|groups| Some((groups, control_group::unit(groups)?))) else {
        return Told::of(Vec::new(), None);
    };
    let id = Selector::new("systemd", &format!("id:{unit}")).expect("the characters of a unit's name");
    let wanted = wanted(&id);
    if wanted == UnitDemand::Nothing {
        return Told::of(vec![id], None);
    }
    let answer = manager::unit_of(bus, peer, wanted, Instant::now() + ANSWER_DEADLINE);
    let told = agree(unit, id, answer, wanted);
    if wanted == UnitDemand::File { told.remembered(peer, groups, outage) } else { told }
}

impl Told {
    fn of(selectors: Vec<Selector>, withheld: Option<UnitUntold>) -> Self {
        Self { selectors, withheld, is_kept: false }
    }

    /// The same with the file that systemd said before, if it cannot be asked now.
    fn remembered(mut self, peer: &Peer, groups: &ProcessCGroups, outage: &Outage) -> Self {
        let kept = &peer.said().unit_file;
        match &self.withheld {
            Some(UnitUntold::Unanswered(error)) => {
                outage.failed(error);
                if let Some(file) = kept.instead(groups, Instant::now()) {
                    self.selectors.extend(file);
                    (self.withheld, self.is_kept) = (None, true);
                }
            }
            Some(UnitUntold::Disagreement { .. } | UnitUntold::Unspeakable(_)) => {
                outage.answered();
                kept.forget();
            }
            None => {
                outage.answered();
                kept.prove(groups, self.selectors.get(1..).unwrap_or_default());
            }
        }
        self
    }
}

/// What both witnesses say, or what the control group says if PID 1 says nothing.
fn agree(unit: &str, id: Selector, answer: Result<Option<Unit>, BusError>, wanted: UnitDemand) -> Told {
    let systemd = match answer {
        Err(error) => {
            debug!(unit, error = &error as &dyn Error, "systemd was not asked for a unit: its control group counts");
            let withheld = (wanted == UnitDemand::File).then_some(UnitUntold::Unanswered(error));
            return Told::of(vec![id], withheld);
        }
        Ok(Some(said)) if said.id == unit => said,
        Ok(said) => {
            let withheld =
                UnitUntold::Disagreement { control_group: unit.to_owned(), systemd: said.map(|said| said.id) };
            return Told::of(Vec::new(), Some(withheld));
        }
    };
    let file = systemd.file.map(|file| {
        Selector::new("systemd", &format!("fragment_path:{file}")).map_err(|_| UnitUntold::Unspeakable(file))
    });
    match file.transpose() {
        Ok(file) => Told::of(std::iter::once(id).chain(file).collect(), None),
        Err(why) => Told::of(vec![id], Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_by(answer: Result<Option<Unit>, BusError>, wanted: UnitDemand) -> (Vec<String>, Option<UnitUntold>) {
        let id = "systemd:id:app.service".parse().expect("legal");
        let told = agree("app.service", id, answer, wanted);
        (told.selectors.iter().map(ToString::to_string).collect(), told.withheld)
    }

    fn unit(id: &str, file: Option<&str>) -> Result<Option<Unit>, BusError> {
        Ok(Some(Unit { id: id.to_owned(), file: file.map(str::to_owned) }))
    }

    #[test]
    fn both_witnesses_agree_or_nothing_is_told() {
        let both = ["systemd:id:app.service", "systemd:fragment_path:/lib/app.service"].map(str::to_owned);
        let (found, withheld) = told_by(unit("app.service", Some("/lib/app.service")), UnitDemand::File);
        assert!(found == both && withheld.is_none());
        // As SPIRE tells a unit that systemd made itself.
        let (found, _) = told_by(unit("app.service", Some("")), UnitDemand::File);
        assert_eq!(found[1], "systemd:fragment_path:");
        for other in [unit("other.service", Some("/lib/app.service")), Ok(None)] {
            let (found, withheld) = told_by(other, UnitDemand::File);
            assert!(found.is_empty() && matches!(withheld, Some(UnitUntold::Disagreement { .. })), "{withheld:?}");
        }
    }

    #[test]
    fn without_an_answer_the_control_group_counts_and_the_file_is_not_known() {
        for (wanted, is_said) in [(UnitDemand::Id, false), (UnitDemand::File, true)] {
            let (found, withheld) = told_by(Err(BusError::TimedOut), wanted);
            assert_eq!(found, ["systemd:id:app.service"]);
            assert_eq!(matches!(withheld, Some(UnitUntold::Unanswered(_))), is_said, "{withheld:?}");
        }
    }

    #[test]
    fn a_file_that_no_selector_can_hold_is_withheld() {
        let (found, withheld) = told_by(unit("app.service", Some("/lib/a\nb")), UnitDemand::File);
        assert_eq!(found, ["systemd:id:app.service"]);
        assert!(matches!(withheld, Some(UnitUntold::Unspeakable(_))), "{withheld:?}");
    }
}
