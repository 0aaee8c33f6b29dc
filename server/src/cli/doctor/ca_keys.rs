//! Whether the keys that the CA has written down are where it will look for them.

use ironroot_hsm::Token;
use ironroot_shell::command_line::describe;
use ironroot_shell::command_line::doctor::Findings;

use crate::ca::{Authority, Journal, Place, Purpose, Slot, SlotName};
use crate::config::ServerConfig;

/// What the findings are called.
const ABOUT: &str = "keys of the CA";

/// What became of one key.
enum Sought {
    There,
    /// The token has another key of its name, or one that cannot be used.
    Other(String),
    Missing,
}

/// Looks for each key of this server's journal in `tokens`: where keys are made, and where they were made before.
pub(super) async fn look(findings: &mut Findings, config: &ServerConfig, tokens: &[Token]) {
    // A data store that cannot be read has a finding of its own.
    let journal = config.data_store.ca_journal(&config.trust_domain, config.server_name.as_str());
    let Ok(Some(journal)) = journal else { return };
    let journal = match Journal::from_bytes(&journal, &config.trust_domain, &config.server_name) {
        Ok(journal) => journal,
        Err(error) => return findings.fault(ABOUT, describe(&error), "handbook.md, Backup and restore"),
    };
    let mut found = 0;
    for (place, authority, signs) in places(&journal) {
        let says = match seek(tokens, authority).await {
            Sought::There => {
                found += 1;
                continue;
            }
            Sought::Missing => "it is not there".to_owned(),
            Sought::Other(why) => why,
        };
        let name = &authority.in_token.name;
        let says = format!("{place}, {name} of authority {}: {says}", authority.credential.id());
        let next = "restore the token from its backup; if the CA moves, name the token before in a second KeyManager block with previous = true; \
                    if the key is lost for good: docs/drills/lost-token.md";
        if signs { findings.fault(ABOUT, says, next) } else { findings.doubtful(ABOUT, says, next) }
    }
    if found > 0 {
        findings.good(ABOUT, format!("{found} of its journal are in the token, each with its public half"));
    }
}

/// Each authority with a key, where it is, and whether it signs.
fn places(journal: &Journal) -> impl Iterator<Item = (Place, &Authority, bool)> {
    let places = Purpose::ALL.into_iter().flat_map(|purpose| SlotName::BOTH.map(|slot| Place { purpose, slot }));
    places.filter_map(|place| {
        let slot = journal.slot(place);
        Some((place, slot.authority()?, matches!(slot, Slot::Active(_))))
    })
}

async fn seek(tokens: &[Token], authority: &Authority) -> Sought {
    let (kind, name) = (authority.credential.key_kind(), &authority.in_token.name);
    let mut sought = Sought::Missing;
    for token in tokens {
        match token.find_of(kind, name.clone()).await {
            Ok(Some(key)) if authority.credential.is_of(key.spki_der()) => return Sought::There,
            Ok(Some(_)) => sought = Sought::Other(format!("{} has another key of that name", token.uri())),
            Ok(None) => {}
            Err(error) => sought = Sought::Other(describe(&error)),
        }
    }
    sought
}
