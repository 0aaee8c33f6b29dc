//! The `sds` block: how Envoy's secrets are named.

use std::collections::BTreeSet;

use ironroot_shell::settings::Section;

use super::SdsConfig;

/// Reads the block and `disable_sds_api`. Source of keys and defaults: SPIRE.
pub(super) fn read(agent: &Section<'_>) -> Option<SdsConfig> {
    let block = agent.block("sds");
    let default = SdsConfig::default();
    let name = |key, default| block.string(key).unwrap_or(default);
    let config = SdsConfig {
        default_svid_name: name("default_svid_name", default.default_svid_name),
        default_bundle_name: name("default_bundle_name", default.default_bundle_name),
        default_all_bundles_name: name("default_all_bundles_name", default.default_all_bundles_name),
        disable_spiffe_cert_validation: block.boolean("disable_spiffe_cert_validation").unwrap_or(false),
    };
    let names = [&config.default_svid_name, &config.default_bundle_name, &config.default_all_bundles_name];
    if BTreeSet::from(names).len() < names.len() {
        block.mistake("default_svid_name", "the three names of this block must differ, their defaults included");
    }
    block.finish();
    (!agent.boolean("disable_sds_api").unwrap_or(false)).then_some(config)
}
