//! Every reason for which a caller has no right, and who has one.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::tls::TlsPeer;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::rights::{
    Administrator, AgentStanding, CaScope, Caller, DownstreamServer, NoRight, OwnAuthorities, Provenance,
    ShownCertificate,
};

/// Long after every certificate here has ended.
const LATE: i64 = i64::MAX;

fn id() -> SpiffeId {
    TrustDomain::new("td").expect("legal").id_with_path("/spire/agent/a").expect("legal")
}

fn stranger() -> Caller {
    let (address, dialled) = (([10, 0, 0, 1], 4000).into(), ([10, 0, 0, 9], 8081).into());
    Caller::Remote(TlsPeer { address, dialled, svid: None })
}

/// Fetched through no agent that is banned.
fn honest(own: &OwnAuthorities) -> Provenance<'_> {
    Provenance { own, is_through_banned_agent: &|_| false }
}

fn holder() -> Caller {
    grants::shown(&id(), 1).caller().clone()
}

#[test]
fn only_whoever_an_entry_or_the_configuration_names_administers_and_only_while_its_certificate_lasts() {
    let judge = |caller: Caller, named: bool, now_unix| {
        let own = grants::own_authorities(&caller);
        Administrator::judge(caller, honest(&own), |_| named, now_unix).map(drop)
    };
    assert_eq!(judge(stranger(), true, 0), Err(NoRight::NotAdministrator));
    assert_eq!(judge(holder(), false, 0), Err(NoRight::NotAdministrator));
    assert_eq!(judge(holder(), true, LATE), Err(NoRight::AdministratorExpired));
    assert_eq!(judge(holder(), true, 0), Ok(()));
    assert_eq!(grants::administrator().caller().to_string(), "local");
}

#[test]
fn only_whoever_an_entry_names_is_a_server_below_and_only_while_its_certificate_lasts() {
    let judge = |caller: Caller, named: bool, now_unix| {
        let own = grants::own_authorities(&caller);
        DownstreamServer::judge(caller, honest(&own), |_| named.then_some(CaScope::Server), now_unix).map(drop)
    };
    assert_eq!(judge(stranger(), true, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(grants::administrator().caller().clone(), true, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(holder(), false, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(holder(), true, LATE), Err(NoRight::DownstreamExpired));
    assert_eq!(judge(holder(), true, 0), Ok(()));
    let (caller, named) = (holder(), |named: &SpiffeId| (*named == id()).then_some(CaScope::Server));
    let own = grants::own_authorities(&caller);
    let server = DownstreamServer::judge(caller, honest(&own), named, 0).expect("its ID is asked for");
    assert_eq!(server.id(), &id());
}

#[test]
fn only_a_certificate_that_was_shown_and_has_not_ended_can_be_an_agents() {
    let judge = |caller: Caller, now_unix| {
        let own = grants::own_authorities(&caller);
        ShownCertificate::judge(caller, &own, now_unix).map(drop)
    };
    assert_eq!(judge(stranger(), 0), Err(NoRight::NoCertificate));
    assert_eq!(judge(holder(), LATE), Err(NoRight::AgentExpired));
    assert_eq!(judge(holder(), 0), Ok(()));
}

#[test]
fn an_agent_passes_by_its_current_certificate_alone_and_is_judged_again_while_it_calls() {
    let standings = [
        (AgentStanding::Active, Ok(())),
        (AgentStanding::NotAttested, Err(NoRight::AgentNotAttested)),
        (AgentStanding::Banned, Err(NoRight::AgentBanned)),
        (AgentStanding::NotActive, Err(NoRight::AgentNotActive)),
        (AgentStanding::ActivatePending, Err(NoRight::AgentNotActive)),
    ];
    let agent = grants::authenticated(&id(), 7);
    assert_eq!((agent.id(), agent.serial()), (&id(), "7"));
    for (standing, outcome) in standings {
        assert_eq!(grants::shown(&id(), 7).authenticate(standing).map(drop), outcome, "{standing:?}");
        assert_eq!(agent.check_again(standing, 0), outcome, "{standing:?}");
        assert_eq!(agent.check_again(standing, LATE), Err(NoRight::AgentExpired));
    }
}

#[test]
fn a_certificate_that_another_ca_of_the_trust_domain_signed_makes_nobody_an_administrator_an_agent_or_a_server_below() {
    let elsewhere = grants::own_authorities(&holder());
    for own in [OwnAuthorities::default(), elsewhere] {
        let refused = Administrator::judge(holder(), honest(&own), |_| true, 0).map(drop);
        assert_eq!(refused, Err(NoRight::SignedElsewhere));
        let refused = DownstreamServer::judge(holder(), honest(&own), |_| Some(CaScope::Server), 0).map(drop);
        assert_eq!(refused, Err(NoRight::SignedElsewhere));
        assert_eq!(ShownCertificate::judge(holder(), &own, 0).map(drop), Err(NoRight::AgentSignedElsewhere));
    }
    // Who would be none of these is told that first.
    let own = OwnAuthorities::default();
    let refused = Administrator::judge(holder(), honest(&own), |_| false, 0).map(drop);
    assert_eq!(refused, Err(NoRight::NotAdministrator));
}

#[test]
fn an_svid_that_was_fetched_through_a_banned_agent_gives_no_rights() {
    let is_through_banned_agent = |serial: &str| serial == "1";
    let judge = |caller: Caller| {
        let own = grants::own_authorities(&caller);
        let provenance = Provenance { own: &own, is_through_banned_agent: &is_through_banned_agent };
        let administrator = Administrator::judge(caller.clone(), provenance, |_| true, 0).map(drop);
        let server = DownstreamServer::judge(caller, provenance, |_| Some(CaScope::Server), 0).map(drop);
        (administrator, server)
    };
    let banned = Err(NoRight::ThroughBannedAgent);
    assert_eq!(judge(holder()), (banned, banned));
    assert_eq!(judge(grants::shown(&id(), 2).caller().clone()), (Ok(()), Ok(())));
}
