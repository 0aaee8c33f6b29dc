//! Entries: taken as our own rules would take them from an operator, with their IDs, revisions and ages.

use std::collections::{HashMap, HashSet};

use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::{Selector, SelectorSet};
use ironroot_shell::describe;
use prost::Message;

use super::federation::name;
use super::plan::Rules;
use super::report::{Report, What};
use crate::facts::entry::{NewEntry, RegistrationEntry};
use crate::registry::MAX_ENTRIES_PER_PARENT;
use crate::store::spire::SpireEntry;

/// `spire.common.RegistrationEntry.AdditionalAttributes`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Attributes {
    #[prost(bool, tag = "1")]
    disable_x509_svid_prefetch: bool,
    #[prost(bool, tag = "2")]
    jwt_svid_include_jti: bool,
}

/// Those that our rules take; of each other the report says why. `bundles`: whose have come along.
pub(super) fn taken(
    found: Vec<SpireEntry>,
    bundles: &HashSet<&TrustDomain>,
    rules: &Rules,
    now_unix: i64,
    report: &mut Report,
) -> Vec<RegistrationEntry> {
    let (mut children, mut ids) = (HashMap::<SpiffeId, usize>::new(), HashSet::new());
    let mut taken = Vec::new();
    for entry in found {
        let name = format!("{} ({})", entry.entry_id, entry.spiffe_id);
        match judge(entry, bundles, rules, now_unix) {
            Ok(entry) if !ids.insert(entry.id().to_owned()) => {
                report.leave(What::Entry, name, "another one has its ID")
            }
            Ok(entry) => {
                let below = children.entry(entry.parent_id().clone()).or_default();
                *below += 1;
                match *below > MAX_ENTRIES_PER_PARENT && *entry.parent_id() != rules.trust_domain.server_id() {
                    true => {
                        let why = format!("its parent has more than {MAX_ENTRIES_PER_PARENT} entries");
                        report.leave(What::Entry, name, why);
                    }
                    false => taken.push(entry),
                }
            }
            Err(why) => report.leave(What::Entry, name, why),
        }
    }
    taken
}

fn judge(
    found: SpireEntry,
    bundles: &HashSet<&TrustDomain>,
    rules: &Rules,
    now_unix: i64,
) -> Result<RegistrationEntry, String> {
    if found.expiry != 0 && found.expiry <= now_unix {
        return Err("it has expired".to_owned());
    }
    let (revision, created_at) = (found.revision_number, found.created_at);
    let wire = to_wire(found, &rules.trust_domain)?;
    refuse_executable_only(&wire, rules)?;
    let new = NewEntry::from_pb(&wire, &rules.trust_domain).map_err(|refusal| describe(&refusal))?;
    if let Some(domain) = wire.federates_with.iter().find(|name| !bundles.iter().any(|held| held.as_str() == **name)) {
        return Err(format!(
            "it federates with {domain}, whose bundle is not taken over: set one that our rules take (bundle set), then create the entry"
        ));
    }
    new.take_over(revision, created_at).ok_or_else(|| "it has no ID".to_owned())
}

fn to_wire(found: SpireEntry, trust_domain: &TrustDomain) -> Result<types::Entry, String> {
    let id =
        |text: &str| SpiffeId::parse(text).map(|id| Some(id.to_pb())).map_err(|error| format!("{text:?}: {error}"));
    let ttl = |seconds: i64| i32::try_from(seconds).map_err(|_| format!("a TTL of {seconds} s is out of range"));
    let attributes = match found.additional_attributes.is_empty() {
        true => None,
        false => Some(
            Attributes::decode(&*found.additional_attributes).map_err(|_| "its additional attributes do not decode")?,
        ),
    };
    let own = format!("spiffe://{trust_domain}");
    Ok(types::Entry {
        spiffe_id: id(&found.spiffe_id)?,
        parent_id: id(&found.parent_id)?,
        id: found.entry_id,
        selectors: found.selectors.into_iter().map(|(r#type, value)| types::Selector { r#type, value }).collect(),
        x509_svid_ttl: ttl(found.x509_svid_ttl)?,
        jwt_svid_ttl: ttl(found.jwt_svid_ttl)?,
        // An entry may name its own trust domain, which changes nothing.
        federates_with: found
            .federates_with
            .into_iter()
            .filter(|domain| *domain != own)
            .map(|domain| name(&domain))
            .collect(),
        admin: found.admin,
        downstream: found.downstream,
        expires_at: found.expiry,
        dns_names: found.dns_names,
        store_svid: found.store_svid,
        hint: found.hint,
        additional_attributes: attributes.map(|attributes| types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
            jwt_svid_include_jti: attributes.jwt_svid_include_jti,
        }),
        revision_number: 0,
        created_at: 0,
    })
}

fn refuse_executable_only(entry: &types::Entry, rules: &Rules) -> Result<(), String> {
    let selectors = entry.selectors.iter().map(|wire| Selector::new(&wire.r#type, &wire.value));
    match selectors.collect::<Result<SelectorSet, _>>() {
        Ok(selectors) if !rules.allow_executable_only && selectors.names_an_executable_only() => Err(
            "its selectors name a program and nobody who runs it, so any local user could claim the identity; add unix:uid, unix:gid or \
             systemd:id, or set allow_executable_only = true"
                .to_owned(),
        ),
        // What is no selector is refused with the rest of the entry.
        _ => Ok(()),
    }
}
