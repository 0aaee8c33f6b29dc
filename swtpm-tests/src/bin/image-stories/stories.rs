//! What a device lives through, one function each: what it says when all went well is the verdict's facts.

mod boot;
mod chip;
mod data;
mod life;
mod lost_writes;
mod power;
mod sealed;
mod time;
mod update;

use crate::lab::Lab;
use crate::{Outcome, figures};

/// A story and its claim.
pub struct Story {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub claim: &'static str,
    /// Tells it: facts, or what was not as claimed.
    pub tell: fn(&mut Lab) -> Outcome<String>,
}

const fn story(name: &'static str, claim: &'static str, tell: fn(&mut Lab) -> Outcome<String>) -> Story {
    Story { name, claim, tell }
}

/// All of them, in an order that needs little waiting.
pub const STORIES: [Story; 24] = [
    story("factory", "a board prints its row, is enrolled by it, and its workload gets an identity", life::factory),
    story("offline", "without a server a started device serves from its sealed cache", life::offline),
    story("power-cuts", "no power cut loses or spoils the cache, and none locks the chip", power::cuts),
    story(
        "lost-writes",
        "a disk that loses any write not flushed leaves the old cache or the new one, and boots",
        lost_writes::tell,
    ),
    story(
        "clock-1970",
        "a clock that starts in 1970 keeps nobody from an identity, with a server or without",
        time::at_1970,
    ),
    story(
        "clock-shutdown",
        "a clock that stands where the device was shut down serves the cache",
        time::at_last_shutdown,
    ),
    story("network", "a cut network takes nothing away, and what changed meanwhile arrives after it", life::network),
    story(
        "secure-boot-off",
        "without Secure Boot the cache stays shut, and the server gives identities again",
        boot::secure_boot_off,
    ),
    story(
        "boot-policy",
        "a policy learned from the first boot gives identities, and takes them where Secure Boot is off",
        update::boot_policy,
    ),
    story(
        "signed-update",
        "an update whose boot state was signed keeps identities offline, one that was not asks the server",
        update::signed,
    ),
    story("unsigned-kernel", "a kernel without a signature does not boot", boot::unsigned_kernel),
    story("tampered-root", "a root that was changed does not boot", boot::tampered_root),
    story(
        "other-machine",
        "the disk in another machine opens nothing, and the board it was copied from goes on",
        chip::other_machine,
    ),
    story(
        "other-server",
        "a server that the anchor in the image does not know gives nothing, and nothing ends by it",
        life::other_server,
    ),
    story("no-chip", "without a chip the boot ends well, and the unit says what to do", chip::missing),
    story("watchdog", "an agent that hangs is killed by its watchdog and serves again", power::watchdog),
    story("data-full", "a full data partition takes nothing away", data::full),
    story("data-read-only", "a read-only disk serves what is sealed on it", data::read_only),
    story("data-corrupt", "a destroyed data partition costs what was on it, and not the boot", data::corrupt),
    story(
        "data-foreign",
        "a damaged cache is refused in one line, and the server gives identities again",
        data::foreign,
    ),
    story("old-disk", "an older copy of the disk opens nothing, and the server gives identities again", data::set_back),
    story(
        "fs-verity",
        "a program sealed by fs-verity is served by its digest, a plain copy is not, and a change below is not run",
        sealed::tell,
    ),
    story("figures", "what the agent costs an image and a device", figures::measure),
    // The last one: its server's clock goes on by years.
    story("warehouse", "after three years in a warehouse a device comes back by its chip", time::warehouse),
];

/// An error that says `claim`, unless it holds.
pub fn require(holds: bool, claim: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(claim.into()) }
}
