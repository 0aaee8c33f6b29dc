//! `together_with`: several ways to attest, proven in one conversation.

use ironroot_shell::settings::{Plugin, Section};

use super::{JoinToken, KIND, NodeAttestor, join_token};
use crate::config::TpmKeys;

/// The key of a plugin that names those that are proven with it.
pub(super) const TOGETHER_WITH: &str = "together_with";

/// Reads the plugin `first` and the `others` that it names, each in its own block; join tokens need none.
pub(super) fn read(
    plugins: &Section<'_>,
    blocks: Vec<Plugin<'_>>,
    (first, others): (&str, &[String]),
    token: Option<JoinToken>,
) -> Option<(NodeAttestor<()>, TpmKeys)> {
    let names: Vec<&str> = std::iter::once(first).chain(others.iter().map(String::as_str)).collect();
    for block in blocks.iter().filter(|block| !names.contains(&block.name.as_str())) {
        plugins.plugin_mistake(KIND, block, format!("name it in {TOGETHER_WITH} of {first:?}, or remove it"));
    }
    let (mut parts, mut tpm) = (Vec::new(), TpmKeys::default());
    for name in names {
        let block = blocks.iter().find(|block| block.name == name);
        let (part, keys) = match block {
            _ if name == join_token::TYPE => {
                block.inspect(|block| block.data.finish());
                (NodeAttestor::JoinToken(token.clone()), TpmKeys::default())
            }
            Some(block) => NodeAttestor::read_one(plugins, block, None)?,
            None => {
                plugins.mistake(
                    KIND,
                    format!("{TOGETHER_WITH} names {name:?}: add NodeAttestor {name:?} with what it needs"),
                );
                return None;
            }
        };
        tpm = tpm.and(keys).map_err(|contradiction| plugins.mistake(KIND, contradiction)).ok()?;
        parts.push(part);
    }
    (parts.len() > 1).then_some((NodeAttestor::Together(parts), tpm))
}
