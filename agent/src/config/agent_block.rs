//! The `agent` block.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection, UnknownPcrHash};
use ironroot_attest::pcr_policy::PolicyAuthority;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, places};
use ironroot_text::HumanFile;

use super::broker;
use super::call_rates;
use super::servers::{self, ServerConfig};
use super::{
    BrokerConfig, CallRates, JoinToken, OfflineCacheConfig, PROGRAM, RenewalPatience, TpmConfig, WorkloadKeyKind,
};
use crate::sealed_cache::SignedStates;

/// Where the Workload API is unless the file says otherwise. Source: SPIRE.
pub(crate) const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-agent/public/api.sock";
/// How often the server is asked for changes unless the file says otherwise. Source: SPIRE.
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// PCR 7, the state of secure boot: it survives updates of firmware and kernel, which the others do not.
const DEFAULT_SEALING_PCRS: [u8; 1] = [7];
/// An index of the owner's range. Source: TCG Registry of Reserved TPM 2.0 Handles, table 3.
const DEFAULT_NV_INDEX: u32 = 0x0180_4952;
/// Largest file with a join token, bytes: a token is a UUID, or at most what a SPIFFE ID's segment holds.
const MAX_JOIN_TOKEN_FILE_BYTES: usize = 4 * 1024;
/// Largest file with the operator's public key, bytes: one of RSA-4096 has some 800 in PEM.
const MAX_POLICY_KEY_BYTES: usize = 8 * 1024;
/// The NV indices that the owner of a chip may define. Source: TCG Registry of Reserved TPM 2.0 Handles and Localities.
const OWNER_NV_INDICES: RangeInclusive<u32> = 0x0180_0000..=0x01BF_FFFF;

pub(super) struct AgentBlock {
    pub(super) trust_domain: TrustDomain,
    pub(super) servers: Vec<ServerConfig>,
    pub(super) data_dir: PathBuf,
    pub(super) socket_path: PathBuf,
    pub(super) sync_interval: Duration,
    pub(super) workload_keys: WorkloadKeyKind,
    pub(super) wit_svids: bool,
    pub(super) key_exchanges: KeyExchanges,
    pub(super) broker: Option<BrokerConfig>,
    pub(super) call_rates: CallRates,
    pub(super) renewal_patience: RenewalPatience,
}

pub(super) fn read(agent: &Section<'_>) -> Option<AgentBlock> {
    let trust_domain = agent.parsed("trust_domain", TrustDomain::new);
    let trust_domain =
        agent.required("trust_domain", trust_domain, "give its name, such as trust_domain = \"example.org\"");
    let servers = servers::read(agent, trust_domain.as_ref());
    let data_dir = agent.path("data_dir").unwrap_or_else(|| PathBuf::from("."));
    let socket_path = agent.socket_path("socket_path").unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_PATH));
    // An agent serves what a disk holds that takes nothing any more.
    agent.look("data_dir", || places::usable_or_read_only_directory(&data_dir));
    agent.doubt("data_dir", || places::read_only_directory(&data_dir));
    agent.look("socket_path", || places::usable_socket(&socket_path));
    let Experimental { sync_interval, wit_svids, key_exchanges, broker, call_rates, renewal_patience } =
        read_experimental(agent);
    let workload_keys = agent.parsed("workload_x509_svid_key_type", str::parse).unwrap_or_default();
    Some(AgentBlock {
        trust_domain: trust_domain?,
        servers: servers?,
        data_dir,
        socket_path,
        sync_interval,
        workload_keys,
        wit_svids,
        key_exchanges,
        broker,
        call_rates,
        renewal_patience,
    })
}

/// Reads `join_token` or the file that `join_token_file` names.
pub(super) fn read_join_token(agent: &Section<'_>) -> Option<JoinToken> {
    if agent.string("join_token").is_some() && agent.string("join_token_file").is_some() {
        agent.mistake("join_token_file", "give either join_token or join_token_file, not both");
    }
    let from_file = agent.parsed("join_token_file", |path| {
        if agent.is_of_another_machine() {
            return Ok(JoinToken::new("a token that is there"));
        }
        let file = HumanFile::regular(Path::new(path), MAX_JOIN_TOKEN_FILE_BYTES)
            .map_err(|error| format!("cannot read the file: {}", error.problem))?;
        match file.text().trim() {
            "" => Err("the file is empty: put the token into it".to_owned()),
            token => Ok(JoinToken::new(token)),
        }
    });
    agent.string("join_token").map(|text| JoinToken::new(&text)).or(from_file)
}

/// Reads the `offline_cache` block; `tpm` is `None` when the plugins could not be read, and `Some(None)`
/// when they need none.
pub(super) fn read_offline_cache(section: &Section<'_>, tpm: Option<Option<&TpmConfig>>) -> Option<OfflineCacheConfig> {
    let enabled = section.boolean("enabled");
    let pcrs = section.parsed_list("pcrs", str::parse::<u8>).unwrap_or_else(|| DEFAULT_SEALING_PCRS.to_vec());
    let pcrs = PcrSelection::from_indices(pcrs).map_err(|error| section.mistake("pcrs", error.to_string())).ok();
    let signed_states = read_signed_states(section, pcrs);
    let max_age = section.duration("max_age");
    let pcr_bank = section.parsed("pcr_bank", sealing_bank).flatten();
    let tpm_nv_index = section.parsed("tpm_nv_index", nv_index);
    section.finish();
    if enabled == Some(true) && tpm == Some(None) {
        section.mistake("enabled", "the cache is sealed to a TPM: add NodeAttestor \"tpm2\" or KeyManager \"tpm\"");
    }
    let tpm = tpm.flatten().filter(|_| enabled.unwrap_or(true))?.clone();
    let tpm_nv_index = tpm_nv_index.unwrap_or(DEFAULT_NV_INDEX);
    Some(OfflineCacheConfig { tpm, pcrs: pcrs?, signed_states, pcr_bank, max_age, tpm_nv_index })
}

/// Whose signature lets the cache open in another state than it was sealed in, and where the signed policies are.
fn read_signed_states(section: &Section<'_>, pcrs: Option<PcrSelection>) -> Option<SignedStates> {
    let authority = section.parsed("policy_key_path", |path| {
        if section.is_of_another_machine() {
            return Ok(None);
        }
        let file = HumanFile::regular(Path::new(path), MAX_POLICY_KEY_BYTES).map_err(|error| describe(&error))?;
        PolicyAuthority::from_pem(file.text()).map(Some).map_err(|error| error.to_string())
    });
    let directory = section.path("policy_directory");
    if section.has("policy_key_path") && directory.is_none() {
        section
            .mistake("policy_directory", "missing: name the directory of the policies that policy_key_path has signed");
    }
    if section.has("policy_key_path") && pcrs.is_some_and(PcrSelection::is_empty) {
        section.mistake("policy_key_path", "pcrs is empty, so there is no state of them that could be signed");
    }
    if directory.is_some() && !section.has("policy_key_path") {
        section.mistake("policy_key_path", "missing: name the public key that signs what is in policy_directory");
    }
    Some(SignedStates { authority: authority.flatten()?, directory: directory? })
}

/// `auto`, or the name of a bank.
fn sealing_bank(text: &str) -> Result<Option<PcrHash>, UnknownPcrHash> {
    if text == "auto" { Ok(None) } else { text.parse().map(Some) }
}

/// SPIRE's keys that stand for nothing here.
pub(super) fn warn_of_what_has_no_meaning(agent: &Section<'_>) {
    agent.no_meaning(
        PROGRAM,
        &[
            "availability_target",
            "jwt_svid_cache_max_size",
            "log_source_location",
            "profiling_enabled",
            "profiling_freq",
            "profiling_names",
            "profiling_port",
            "x509_svid_cache_max_size",
        ],
    );
}

fn nv_index(text: &str) -> Result<u32, String> {
    let index = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (first, last) = (OWNER_NV_INDICES.start(), OWNER_NV_INDICES.end());
    let refusal = || format!("not an NV index of the owner: {first:#010x} to {last:#010x}");
    index.filter(|index| OWNER_NV_INDICES.contains(index)).ok_or_else(refusal)
}

/// SPIRE's name of the feature flag for WIT-SVIDs.
const WIT_FLAG: &str = "wit-svid";
/// Flags that SPIRE knows. Source: SPIRE pkg/common/fflag.
const FLAGS: [&str; 2] = [WIT_FLAG, "i_am_a_test_flag"];

/// What SPIRE has as experimental.
struct Experimental {
    sync_interval: Duration,
    wit_svids: bool,
    key_exchanges: KeyExchanges,
    broker: Option<BrokerConfig>,
    call_rates: CallRates,
    renewal_patience: RenewalPatience,
}

fn known_flag(flag: &str) -> Result<String, String> {
    match FLAGS.contains(&flag) {
        true => Ok(flag.to_owned()),
        false => Err(format!("no such feature flag; there are {}", FLAGS.join(" and "))),
    }
}

fn read_experimental(agent: &Section<'_>) -> Experimental {
    let experimental = agent.block("experimental");
    let flags = experimental.parsed_list("feature_flags", known_flag).unwrap_or_default();
    let by_key = [agent, &experimental].map(|section| section.boolean("enable_wit_svids"));
    let wit_svids = flags.iter().any(|flag| flag == WIT_FLAG) || by_key.contains(&Some(true));
    experimental.not_supported(PROGRAM, &["admin_named_pipe_name", "named_pipe_name"]);
    // The paged sync is always used; SPIRE keeps the key although it ignores the older way as well.
    experimental.boolean("use_sync_authorized_entries");
    let interval = experimental.duration("sync_interval");
    if interval.is_some_and(|interval| interval.is_zero()) {
        experimental.mistake("sync_interval", "must be above zero, such as 5s");
    }
    let required = [agent, &experimental].map(|section| section.boolean("require_pq_kem"));
    let key_exchanges = required.contains(&Some(true)).into();
    let broker = broker::read(agent, &experimental);
    let call_rates = call_rates::read(&experimental);
    let patience = experimental.duration("jwt_svid_cache_hit_timeout").map(RenewalPatience::try_new).transpose();
    let patience = patience.map_err(|error| experimental.mistake("jwt_svid_cache_hit_timeout", error.to_string()));
    let renewal_patience = patience.ok().flatten().unwrap_or_default();
    experimental.finish();
    Experimental {
        sync_interval: interval.unwrap_or(DEFAULT_SYNC_INTERVAL),
        wit_svids,
        key_exchanges,
        broker,
        call_rates,
        renewal_patience,
    }
}
