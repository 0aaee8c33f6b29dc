//! `deliver`: an identity in files, for software that knows no SPIFFE.
//!
//! ```text
//!  Workload API ─stream─► this process's SVID ─► files.rs: a set of files, current in one step ─► telling.rs: command, signal
//! ```
//! Nothing here has more rights than any workload: the process gets what the agent's entries give it.

mod complaints;
mod files;
mod telling;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ironroot_api::SpiffeId;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on};
use ironroot_shell::process::{stop_asked, supervisor};
use tonic::Streaming;

use super::api::{WorkloadSvid, WorkloadSvids};
use super::connection::Connection;
use complaints::Complaints;
use files::{Delivered, Directory, FileOwner, key_mode};
use telling::{Telling, parse_signal};

/// Pause before the agent is asked again, or what failed is told again; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps this process's X.509-SVID in files for software that knows no SPIFFE, and tells that software of each change.
#[derive(Debug, Args)]
#[command(
    after_help = "DIRECTORY/current leads to the newest set of files, which changes as a whole: svid.pem (the certificate, then those above it),
svid.key, svid_and_key.pem (both, for software that wants one file), bundle.pem (what certificates of the trust domain are verified
with) and bundle.NAME.pem for each trust domain that it federates with. The set before stays until the next.

COMMAND is run once the set is there: at the start, and after each change. It is run again until it succeeds. If the identity
ends, the files stay as they are: the certificate in them has its own end.

Example: ironroot-agent deliver -directory /run/nginx-identity -group www-data -mode 0640 -- nginx -s reload
Example: ironroot-agent deliver -directory /run/mosquitto-identity -owner mosquitto -signal HUP -pidFile /run/mosquitto.pid
Example: ironroot-agent deliver -directory ./identity -once"
)]
pub(super) struct Deliver {
    #[command(flatten)]
    connection: Connection,
    /// Where the sets of files go; made if it is missing. Nobody but root and this user may be able to write there
    #[arg(long, value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Which identity, if this process has several; without the flag the first
    #[arg(long = "spiffeID", value_name = "SPIFFE ID", value_parser = SpiffeId::parse)]
    spiffe_id: Option<SpiffeId>,
    /// Whose the files are (needs root)
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Of which group the files are
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Mode of the files that hold the key, in octal; never for everybody
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = key_mode)]
    mode: u32,
    /// Send this signal to the process of -pidFile after each change
    #[arg(long, value_name = "NAME", requires = "pid_file", value_parser = parse_signal)]
    signal: Option<nix::sys::signal::Signal>,
    /// The file in which that process keeps its ID; read again each time
    #[arg(long = "pidFile", value_name = "PATH", requires = "signal")]
    pid_file: Option<PathBuf>,
    /// Deliver once and end; nothing is told again
    #[arg(long)]
    once: bool,
    /// Longest wait for the first identity with -once
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = ironroot_shell::settings::parse_duration)]
    timeout: Duration,
    /// Run this after each change, without a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Deliver {
    pub(super) fn execute(self) -> ExitCode {
        let delivered = self.open().and_then(|delivery| {
            block_on(async {
                let stopped = stop_asked().map_err(CommandError::run)?;
                tokio::select! {
                    delivered = delivery.run() => delivered,
                    () = stopped => Ok(()),
                }
            })
        });
        Reply::print(&delivered.map(|()| Reply::default()), Output::Pretty)
    }

    fn open(self) -> Result<Delivery, CommandError> {
        let owner = FileOwner::named(self.owner.as_deref(), self.group.as_deref())?;
        let directory = Directory::open(self.directory, owner, self.mode)?;
        let telling = Telling { command: self.command, signal: self.signal.zip(self.pid_file) };
        let once = self.once.then_some(self.timeout);
        Ok(Delivery { connection: self.connection, spiffe_id: self.spiffe_id, directory, telling, once })
    }
}

/// What a `deliver` needs while it lives.
struct Delivery {
    connection: Connection,
    spiffe_id: Option<SpiffeId>,
    directory: Directory,
    telling: Telling,
    /// How long to wait, if one delivery is all.
    once: Option<Duration>,
}

impl Delivery {
    async fn run(&self) -> Result<(), CommandError> {
        match self.once {
            None => self.keep().await,
            Some(patience) => {
                let timeout = CommandError::Timeout(patience);
                tokio::time::timeout(patience, self.deliver_once()).await.unwrap_or(Err(timeout))
            }
        }
    }

    async fn deliver_once(&self) -> Result<(), CommandError> {
        let ended = || CommandError::Malformed("the agent ended the stream without an answer".to_owned());
        let first = self.connection.x509_svids().await?.message().await?.ok_or_else(ended)?;
        self.put(&first)?;
        self.telling.tell().await
    }

    /// Never ends because the agent does, nor because a disk is full or a command fails: that may pass.
    async fn keep(&self) -> Result<(), CommandError> {
        let mut complaints = Complaints::default();
        // What this process told before it was started anew, nobody knows.
        let mut owed = Owed { telling: true, pause: SHORTEST_PAUSE };
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.follow(&mut owed, &mut complaints).await {
                Err(error @ CommandError::Socket(_)) => return Err(error),
                Err(error) => complaints.say(&error),
                Ok(()) => pause = SHORTEST_PAUSE,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Delivers what one stream brings, to its end.
    async fn follow(&self, owed: &mut Owed, complaints: &mut Complaints) -> Result<(), CommandError> {
        let mut stream = self.connection.x509_svids().await?;
        let mut last = None;
        while let Some(news) = next(&mut stream, last.is_some() && owed.telling, owed.pause).await? {
            if let News::Identity(response) = news {
                last = Some(response);
            }
            let Some(response) = &last else { continue };
            match self.deliver(response, owed).await {
                Ok(()) => complaints.end(),
                Err(error) => complaints.say(&error),
            }
        }
        Ok(())
    }

    async fn deliver(&self, response: &X509svidResponse, owed: &mut Owed) -> Result<(), CommandError> {
        // A set that could not be written is owed as one that was written and not told.
        let was_owed = std::mem::replace(&mut owed.telling, true);
        owed.pause = (owed.pause * 2).min(LONGEST_PAUSE);
        if self.put(response)? == Delivered::AsItWas && !was_owed {
            *owed = Owed::nothing();
            return Ok(());
        }
        self.telling.tell().await?;
        *owed = Owed::nothing();
        supervisor::started(&format!("delivering into {}", self.directory.path().display()));
        Ok(())
    }

    fn put(&self, response: &X509svidResponse) -> Result<Delivered, CommandError> {
        let svids = WorkloadSvids::verified(response, wall_unix())?;
        let svid = self.chosen(&svids)?;
        let delivered = self.directory.put(&files::of(svid, &svids.federated)?)?;
        if let Delivered::New(set) = &delivered {
            say(&format!("{} until {} is in {}\n", svid.id, ironroot_api::utc(svid.end()), set.display()));
        }
        Ok(delivered)
    }

    fn chosen<'a>(&self, svids: &'a WorkloadSvids) -> Result<&'a WorkloadSvid, CommandError> {
        let chosen = match &self.spiffe_id {
            None => svids.svids.first(),
            Some(wanted) => svids.svids.iter().find(|svid| svid.id == *wanted),
        };
        chosen.ok_or_else(|| {
            let wanted = self.spiffe_id.as_ref().map_or("an identity".to_owned(), ToString::to_string);
            let held: Vec<String> = svids.svids.iter().map(|svid| svid.id.to_string()).collect();
            CommandError::Malformed(format!("{wanted} is none of this process's identities: {}", held.join(", ")))
        })
    }
}

/// What is to be told again, and when.
struct Owed {
    telling: bool,
    pause: Duration,
}

impl Owed {
    fn nothing() -> Self {
        Self { telling: false, pause: SHORTEST_PAUSE }
    }
}

enum News {
    Identity(X509svidResponse),
    /// What is owed is due again.
    Due,
}

/// The stream's next message; or, if something is owed, that it is due.
async fn next(
    stream: &mut Streaming<X509svidResponse>,
    owed: bool,
    pause: Duration,
) -> Result<Option<News>, CommandError> {
    tokio::select! {
        message = stream.message() => Ok(message?.map(News::Identity)),
        () = tokio::time::sleep(pause), if owed => Ok(Some(News::Due)),
    }
}

fn say(text: &str) {
    Reply::print(&Ok(Reply { text: text.to_owned(), ..Reply::default() }), Output::Pretty);
}
