//! `CredentialComposer`: what is added to what the CA signs.

use ironroot_shell::settings::Section;

use super::PROGRAM;

/// Whether the subjects of workloads' SVIDs have a unique identifier: `CredentialComposer "uniqueid" {}`, which has no keys. Source: SPIRE,
/// pkg/server/plugin/credentialcomposer/uniqueid.
pub(super) fn read(plugins: &Section<'_>) -> bool {
    let mut unique_ids = false;
    for plugin in plugins.plugins("CredentialComposer") {
        match plugin.name.as_str() {
            "uniqueid" => unique_ids = true,
            _ => {
                let reason = format!("not supported by {PROGRAM} yet: use \"uniqueid\"");
                plugins.plugin_mistake("CredentialComposer", &plugin, reason);
                continue;
            }
        }
        plugin.data.finish();
    }
    unique_ids
}
