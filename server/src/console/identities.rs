//! Which identities a device's agent hands out.

use ironroot_api::SpiffeId;
use ironroot_api::pb::entry::list_entries_request::Filter;
use ironroot_api::pb::types::selector_match::MatchBehavior;
use ironroot_api::pb::types::{Agent, Entry, SelectorMatch, Spiffeid};

use super::asked::{Server, Unanswered};

/// Most entries that a device's page shows.
pub const MAX_IDENTITIES: usize = 500;
/// Most groups of one agent that are looked at.
const MAX_GROUPS: i32 = 100;

/// What an agent is authorized for.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// The groups that the device is in: entries whose parent is the server.
    pub groups: Vec<Entry>,
    /// Of its workloads.
    pub workloads: Vec<Entry>,
    /// Whether there are more than are shown.
    pub more: bool,
}

impl Identities {
    /// As the registry decides it: entries below the agent, and below the groups whose selectors it has.
    pub async fn of(server: &Server, agent: &Agent) -> Result<Self, Unanswered> {
        let Some(id) = agent.id.clone() else { return Ok(Self::default()) };
        let groups = server.entries(groups_of(&id, agent), MAX_GROUPS, "").await?;
        let mut identities = Self { more: !groups.next_page_token.is_empty(), ..Self::default() };
        let parents = groups.entries.iter().filter_map(|group| group.spiffe_id.clone()).chain([id]);
        for parent in parents.collect::<Vec<_>>() {
            let most = MAX_IDENTITIES.saturating_sub(identities.workloads.len());
            let Some(most) = i32::try_from(most).ok().filter(|most| *most > 0) else {
                identities.more = true;
                break;
            };
            let filter = Filter { by_parent_id: Some(parent), ..Filter::default() };
            let page = server.entries(filter, most, "").await?;
            identities.more |= !page.next_page_token.is_empty();
            identities.workloads.extend(page.entries);
        }
        identities.groups = groups.entries;
        Ok(identities)
    }
}

fn groups_of(id: &Spiffeid, agent: &Agent) -> Filter {
    let server = Spiffeid { trust_domain: id.trust_domain.clone(), path: "/spire/server".to_owned() };
    let selectors = SelectorMatch { selectors: agent.selectors.clone(), r#match: MatchBehavior::MatchSubset.into() };
    Filter { by_parent_id: Some(server), by_selectors: Some(selectors), ..Filter::default() }
}

/// A SPIFFE ID as people read it.
pub fn shown(id: Option<&Spiffeid>) -> String {
    SpiffeId::from_pb(id).map(|id| id.to_string()).unwrap_or_default()
}
