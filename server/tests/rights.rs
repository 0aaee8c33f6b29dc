//! Every reason for which a caller has no right, and who has one.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::tls::TlsPeer;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::rights::{
    Administrator, AgentStanding, CaScope, Caller, DownstreamServer, NoRight, ShownCertificate,
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

fn holder() -> Caller {
    grants::shown(&id(), 1).caller().clone()
}

#[test]
fn only_whoever_an_entry_or_the_configuration_names_administers_and_only_while_its_certificate_lasts() {
    let judge = |caller, named: bool, now_unix| Administrator::judge(caller, |_| named, now_unix).map(drop);
    assert_eq!(judge(stranger(), true, 0), Err(NoRight::NotAdministrator));
    assert_eq!(judge(holder(), false, 0), Err(NoRight::NotAdministrator));
    assert_eq!(judge(holder(), true, LATE), Err(NoRight::AdministratorExpired));
    assert_eq!(judge(holder(), true, 0), Ok(()));
    assert_eq!(grants::administrator().caller().to_string(), "local");
}

#[test]
fn only_whoever_an_entry_names_is_a_server_below_and_only_while_its_certificate_lasts() {
    let judge = |caller, named: bool, now_unix| {
        DownstreamServer::judge(caller, |_| named.then_some(CaScope::Server), now_unix).map(drop)
    };
    assert_eq!(judge(stranger(), true, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(grants::administrator().caller().clone(), true, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(holder(), false, 0), Err(NoRight::NotDownstream));
    assert_eq!(judge(holder(), true, LATE), Err(NoRight::DownstreamExpired));
    assert_eq!(judge(holder(), true, 0), Ok(()));
    let server = DownstreamServer::judge(holder(), |named| (*named == id()).then_some(CaScope::Server), 0)
        .expect("its ID is asked for");
    assert_eq!(server.id(), &id());
}

#[test]
fn only_a_certificate_that_was_shown_and_has_not_ended_can_be_an_agents() {
    let judge = |caller, now_unix| ShownCertificate::judge(caller, now_unix).map(drop);
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
