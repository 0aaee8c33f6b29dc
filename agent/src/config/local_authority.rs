//! The `local_authority` block: the agent's own CA.

use std::ops::RangeInclusive;
use std::time::Duration;

use ironroot_shell::settings::Section;

use super::plugins::MAX_KEY_LABEL_BYTES;
use super::{KeyManager, ServerConfig};
use crate::local_authority::{JWT_LABEL_SUFFIX, LABEL_SUFFIX};

/// How long a CA lasts, and for how long it is used without its server, if the file says nothing: as long as a server's own. Source: SPIRE
/// `ca_ttl`.
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Source: SPIRE's server, `default_x509_svid_ttl`.
const DEFAULT_SVID_TTL: Duration = Duration::from_secs(3600);
/// Nothing can take a CA back before its end, so that is near: a week at most.
const LIVES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);
/// How long SVIDs may be made.
const SVID_LIVES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);

/// Source: SPIRE's server, `default_jwt_svid_ttl`.
const DEFAULT_JWT_TTL: Duration = Duration::from_secs(300);
/// How long JWT-SVIDs may be made: nothing takes one back.
const JWT_LIVES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);

/// How the agent signs for its own workloads while its server is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAuthorityConfig {
    /// How long a CA is asked for.
    pub ca_ttl: Duration,
    /// So long after the server's last word nothing is signed any more, and nothing that was signed is valid.
    pub max_offline: Duration,
    /// How long SVIDs last of entries that do not say it.
    pub default_x509_svid_ttl: Duration,
    /// How it signs JWT-SVIDs, if it does.
    pub jwt_svids: Option<LocalJwtConfig>,
}

/// How the agent signs JWT-SVIDs while its server is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalJwtConfig {
    /// How long those last of entries that do not say it.
    pub default_ttl: Duration,
    /// Their `iss`, if they are to have one: the server's.
    pub issuer: Option<String>,
}

/// Reads the block of the `agent` block, if it is there.
pub(super) fn read(agent: &Section<'_>) -> Option<LocalAuthorityConfig> {
    let block = agent.block("local_authority");
    let ca_ttl = within(&block, "ca_ttl", &LIVES, DEFAULT_LIFE);
    let max_offline = within(&block, "max_offline", &LIVES, DEFAULT_LIFE);
    let default_x509_svid_ttl = within(&block, "default_x509_svid_ttl", &SVID_LIVES, DEFAULT_SVID_TTL);
    let jwt_svids = read_jwt(&block);
    let is_wanted = block.is_present() && block.boolean("enabled").unwrap_or(true);
    block.finish();
    is_wanted.then_some(LocalAuthorityConfig { ca_ttl, max_offline, default_x509_svid_ttl, jwt_svids })
}

fn read_jwt(block: &Section<'_>) -> Option<LocalJwtConfig> {
    let default_ttl = within(block, "default_jwt_svid_ttl", &JWT_LIVES, DEFAULT_JWT_TTL);
    let issuer = block.string("jwt_issuer").filter(|issuer| !issuer.is_empty());
    let is_wanted = block.boolean("jwt_svids").unwrap_or(false);
    if issuer.is_some() && !is_wanted {
        block.mistake(
            "jwt_issuer",
            "says something of tokens that are not signed: set jwt_svids = true, or leave it out",
        );
    }
    is_wanted.then_some(LocalJwtConfig { default_ttl, issuer })
}

fn within(block: &Section<'_>, key: &str, range: &RangeInclusive<Duration>, default: Duration) -> Duration {
    let given = block.duration(key).unwrap_or(default);
    if !range.contains(&given) {
        let (least, most) = (range.start().as_secs(), range.end().as_secs() / 3600);
        block.mistake(key, format!("must be from {least}s to {most}h"));
    }
    given
}

/// What it does not go with.
pub(super) fn refuse_what_does_not_go(
    config: &LocalAuthorityConfig,
    agent: &Section<'_>,
    servers: &[ServerConfig],
    keys: &KeyManager,
) {
    if servers.len() > 1 {
        let reason = "not supported by ironroot-agent yet with several servers: while one is away another signs";
        agent.mistake("local_authority", reason);
    }
    let KeyManager::Token { label, .. } = keys else { return };
    let suffix = if config.jwt_svids.is_some() { JWT_LABEL_SUFFIX } else { LABEL_SUFFIX };
    let most = MAX_KEY_LABEL_BYTES - suffix.len();
    if label.len() > most {
        agent.mistake(
            "local_authority",
            format!("its keys are called key_label and {suffix:?}: make key_label at most {most} bytes long"),
        );
    }
}
