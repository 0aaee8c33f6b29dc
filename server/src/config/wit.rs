//! WIT-SVIDs, which SPIRE has behind a feature flag.

use ironroot_hsm::KeyKind;
use ironroot_shell::settings::Section;

use super::server_block::{for_tokens, token_key_kind};
use crate::ca::WitPolicy;

/// SPIRE's name of the flag.
const FLAG: &str = "wit-svid";
/// Flags that SPIRE knows. Source: SPIRE pkg/common/fflag.
const FLAGS: [&str; 2] = [FLAG, "i_am_a_test_flag"];

/// What they say, if they are switched on: by the feature flag, or by the key that later versions of SPIRE have. Their key is of the same
/// kind as the CA's, or on P-256 where that one signs no tokens, unless the file says otherwise.
pub(super) fn read(server: &Section<'_>, experimental: &Section<'_>, ca_key_kind: KeyKind) -> Option<WitPolicy> {
    let flags = experimental.parsed_list("feature_flags", known_flag).unwrap_or_default();
    let by_key = [server, experimental].map(|section| section.boolean("enable_wit_svids"));
    let issuer = experimental.string("wit_issuer").filter(|issuer| !issuer.is_empty());
    let key_kind = experimental.parsed("wit_key_type", token_key_kind).unwrap_or(for_tokens(ca_key_kind));
    let is_on = flags.iter().any(|flag| flag == FLAG) || by_key.contains(&Some(true));
    is_on.then_some(WitPolicy { issuer, key_kind })
}

fn known_flag(flag: &str) -> Result<String, String> {
    match FLAGS.contains(&flag) {
        true => Ok(flag.to_owned()),
        false => Err(format!("no such feature flag; there are {}", FLAGS.join(" and "))),
    }
}

/// Keys of an administrator are on P-256, as those of CAs are.
pub(super) fn with_given_keys(server: &Section<'_>, wit: Option<WitPolicy>, has_given_keys: bool) -> Option<WitPolicy> {
    if has_given_keys && wit.as_ref().is_some_and(|wit| wit.key_kind != KeyKind::EcP256) {
        server.mistake("experimental", "wit_key_type: keys that key_labels and key_ids name are P-256: use ec-p256");
    }
    wit
}
