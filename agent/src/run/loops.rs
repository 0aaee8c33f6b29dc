//! The ends of the servers' loops: what each tells and hears, and what of that is one to everybody else.

use std::path::PathBuf;
use std::sync::Arc;

use ironroot_api::directory::prepare_private;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::RunError;
use super::life::{Ends, Shared};
use crate::config::{AgentConfig, ServerConfig};
use crate::counted::Counted;
use crate::identities::Identities;
use crate::own_certificate::OwnCertificate;
use crate::report::{Report, Reports};
use crate::requests::Requests;
use crate::sealed_cache;
use crate::server_channel::Server;
use crate::sync::Wakes;
use crate::trusted_time::{Jumps, TrustedTime};
use crate::union::{Bans, Follower, Source};
use crate::upstreams::{Upstream, Upstreams};

/// See the module.
pub(super) struct Loops {
    /// For the loops, in the order of the servers.
    pub ends: Vec<Ends>,
    /// What the loops share.
    pub shared: Shared,
    /// What may be served, of all servers.
    pub identities: watch::Receiver<Arc<Identities>>,
    /// What each loop says of itself.
    pub reports: Reports,
    /// Asks each loop for what is its server's.
    pub requests: Requests,
    /// Where what workloads ask for is signed.
    pub upstreams: Upstreams,
    /// Wakes each loop.
    pub ask_now: Vec<Arc<Notify>>,
    /// The agent's certificates, in the order of the servers, each with what is known of the time by that server.
    pub certificates: Vec<(OwnCertificate, TrustedTime)>,
}

/// One loop, seen from outside.
struct Outside {
    source: Source,
    upstream: Upstream,
    ask_now: Arc<Notify>,
}

/// Makes the servers' directories, and begins to put together what several loops will publish. With one server there is nothing
/// between its loop and the endpoints.
pub(super) fn prepare(
    config: &AgentConfig,
    time: &TrustedTime,
    jumps: &Jumps,
    stopping: &watch::Receiver<bool>,
    background: &mut JoinSet<()>,
) -> Result<Loops, RunError> {
    let directories: Vec<PathBuf> = config.servers.iter().map(|server| server.directory(&config.data_dir)).collect();
    for directory in directories.iter().filter(|directory| **directory != config.data_dir) {
        directory.parent().into_iter().try_for_each(prepare_private)?;
        prepare_private(directory)?;
    }
    let is_one = config.servers.len() == 1;
    let ends = config
        .servers
        .iter()
        .map(|server| one(config, server, if is_one { time.clone() } else { time.fork() }, jumps, stopping));
    let (ends, outsides): (Vec<Ends>, Vec<Outside>) = ends.unzip();
    let bans = if is_one { Bans::default() } else { Bans::open(directories) };
    let shared = Shared { counted: Arc::<Counted>::default(), bans: bans.clone() };
    let reports = Reports::new(outsides.iter().map(|one| one.source.report.clone()).collect());
    let requests = Requests::of_all(outsides.iter().map(|one| &one.upstream.requests));
    let certificates = ends.iter().map(|ends| (ends.shown.clone(), ends.time.clone())).collect();
    let ask_now = outsides.iter().map(|one| one.ask_now.clone()).collect();
    let (sources, upstreams): (Vec<Source>, Vec<Upstream>) =
        outsides.into_iter().map(|one| (one.source, one.upstream)).unzip();
    let upstreams = Upstreams::of(upstreams).ok_or(RunError::NoServer)?;
    let identities = match <[Source; 1]>::try_from(sources) {
        Ok([only]) => only.identities,
        Err(several) => follow(config, several, (bans, time.clone(), jumps.clone()), background),
    };
    Ok(Loops { ends, shared, identities, reports, requests, upstreams, ask_now, certificates })
}

fn one(
    config: &AgentConfig,
    server: &ServerConfig,
    time: TrustedTime,
    jumps: &Jumps,
    stopping: &watch::Receiver<bool>,
) -> (Ends, Outside) {
    let (publisher, identities) = watch::channel(Arc::new(Identities::starting(config.trust_domain.clone())));
    let address = Server::new(&server.address, server.port, &config.trust_domain, time.clone()).address();
    let sealed = server.directory(&config.data_dir).join(sealed_cache::FILE_NAME);
    let has_unopened_cache = config.offline_cache.is_some() && sealed.exists();
    let (reporter, report) = watch::channel(Report { has_unopened_cache, ..Report::of(server.name.as_ref(), address) });
    let (link, linked) = watch::channel(None);
    let (local_tokens, offered) = watch::channel(None);
    let (requests, waiting) = Requests::channel();
    let ask_now = Arc::new(Notify::new());
    let wakes = Wakes::new(stopping.clone(), ask_now.clone(), waiting, jumps.clone());
    let source = Source::new(identities, report, &server.bootstrap, &config.trust_domain);
    let upstream = Upstream { link: linked, requests, time: time.clone(), local_tokens: offered };
    let shown = OwnCertificate::default();
    (
        Ends { identities: publisher, reporter, link, local_tokens, time, wakes, shown },
        Outside { source, upstream, ask_now },
    )
}

fn follow(
    config: &AgentConfig,
    sources: Vec<Source>,
    (bans, time, jumps): (Bans, TrustedTime, Jumps),
    background: &mut JoinSet<()>,
) -> watch::Receiver<Arc<Identities>> {
    let (publisher, identities) = watch::channel(Arc::new(Identities::starting(config.trust_domain.clone())));
    background.spawn(Follower::new(config.trust_domain.clone(), sources, bans, (time, jumps), publisher).run());
    identities
}
