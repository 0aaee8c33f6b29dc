//! `api fetch`, `api validate`, `api watch` and `api explain`.

mod explain;
mod jwt;
mod svid;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on};
use ironroot_shell::settings::parse_timeout;
use serde_json::Value;

use super::connection::Connection;
use explain::Explain;
use jwt::{FetchJwt, Validate};
use svid::to_json;
pub(super) use svid::{WorkloadSvid, WorkloadSvids, read_federated};

#[derive(Debug, Subcommand)]
pub(super) enum Api {
    Fetch(Fetch),
    Validate(Validate),
    Watch(Watch),
    Explain(Explain),
}

impl Api {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Fetch(fetch) => fetch.execute(),
            Self::Validate(validate) => validate.execute(),
            Self::Watch(watch) => watch.execute(),
            Self::Explain(explain) => explain.execute(),
        }
    }
}

/// Fetches this process's identities.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Example: ironroot-agent api fetch x509 -write .
Example: ironroot-agent api fetch jwt -audience https://example.org")]
pub(super) struct Fetch {
    #[command(subcommand)]
    kind: Option<FetchKind>,
    #[command(flatten)]
    x509: FetchX509,
}

#[derive(Debug, Subcommand)]
enum FetchKind {
    X509(FetchX509),
    Jwt(FetchJwt),
}

impl Fetch {
    fn execute(self) -> ExitCode {
        match self.kind {
            Some(FetchKind::X509(x509)) => x509.execute(),
            Some(FetchKind::Jwt(jwt)) => jwt.execute(),
            None => self.x509.execute(),
        }
    }
}

/// Fetches this process's X.509-SVIDs.
#[derive(Debug, Args)]
#[command(after_help = "With -write: svid.N.pem, svid.N.key (mode 0600) and bundle.N.pem for each SVID.

Example: ironroot-agent api fetch x509 -write /tmp
Example: ironroot-agent api fetch x509 -timeout 30s -output json")]
struct FetchX509 {
    #[command(flatten)]
    connection: Connection,
    /// Print nothing
    #[arg(long)]
    silent: bool,
    /// Write them into this directory, which must be there; they are printed all the same, unless -silent is there
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
    /// Longest wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl FetchX509 {
    fn execute(self) -> ExitCode {
        Reply::print(&self.fetch(), self.output)
    }

    fn fetch(&self) -> Result<Reply, CommandError> {
        let start = Instant::now();
        let response = block_on(self.first())?;
        let waited = start.elapsed();
        if self.output == Output::Json && self.write.is_none() {
            return Ok(Reply::new(to_json(&response), ""));
        }
        let now = wall_unix();
        let svids = WorkloadSvids::verified(&response, now)?;
        let mut text = if self.silent { String::new() } else { svids.describe(waited) };
        if let Some(directory) = &self.write {
            let written = write::write(&svids, directory)?;
            if !self.silent {
                text.push_str(&written);
            }
        }
        Ok(Reply { notes: svids.early_clock(now), ..Reply::new(to_json(&response), text) })
    }

    async fn first(&self) -> Result<X509svidResponse, CommandError> {
        let answer = async {
            let first = self.connection.x509_svids().await?.message().await?;
            first.ok_or_else(|| CommandError::Malformed("the agent ended the stream without an answer".to_owned()))
        };
        let timeout = CommandError::Timeout(self.timeout);
        tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(timeout))
    }
}

/// Prints this process's X.509-SVIDs now and at each change, until interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent api watch")]
pub(super) struct Watch {
    #[command(flatten)]
    connection: Connection,
}

/// Pause before the agent is asked again; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Watch {
    fn execute(self) -> ExitCode {
        let watched = block_on(async {
            tokio::select! {
                watched = self.watch() => watched,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        });
        Reply::print(&watched.map(|()| Reply::default()), Output::Pretty)
    }

    /// Never ends because the agent does: it may be restarted. Source: SPIFFE Workload API §5.
    async fn watch(&self) -> Result<(), CommandError> {
        let mut pause = SHORTEST_PAUSE;
        let mut last = Instant::now();
        loop {
            match self.follow(&mut last).await {
                // Which socket is meant does not become clearer by waiting.
                Err(error @ CommandError::Socket(_)) => return Err(error),
                Err(error) => complain(&error),
                Ok(()) => pause = SHORTEST_PAUSE,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Shows what one stream brings, to its end.
    async fn follow(&self, last: &mut Instant) -> Result<(), CommandError> {
        let mut stream = self.connection.x509_svids().await?;
        while let Some(response) = stream.message().await? {
            show(&response, last.elapsed());
            *last = Instant::now();
        }
        Ok(())
    }
}

fn show(response: &X509svidResponse, waited: Duration) {
    //= WLA-04 SPIFFE Workload API 4.4: "non-default or non-empty values MUST NOT be retained by a client"
    let now = wall_unix();
    let shown = WorkloadSvids::verified(response, now);
    let reply =
        shown.map(|svids| Reply { notes: svids.early_clock(now), ..Reply::new(Value::Null, svids.describe(waited)) });
    Reply::print(&reply, Output::Pretty);
}

fn complain(error: &CommandError) {
    let complaints = format!("{}\n", error.for_people());
    Reply::print(&Ok(Reply { complaints, ..Reply::default() }), Output::Pretty);
}
