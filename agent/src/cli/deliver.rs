//! `deliver`: an identity in files, for software that knows no SPIFFE.
//!
//! ```text
//!  Workload API ─stream─► this process's SVID ──────┐
//!                                     (source.rs)  ├─► files.rs: a set of files, current in one step ─► telling.rs: command, signal
//!  a key in hardware, certified (in_hardware.rs) ──────┘
//! ```
//! Nothing here has more rights than any workload: the process gets what the agent's entries give it.

mod complaints;
mod files;
mod in_hardware;
mod named_process;
mod newest;
mod source;
mod telling;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ironroot_api::SpiffeId;
use ironroot_attest::tpm::TpmAddress;
use ironroot_hsm::TokenUri;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on};
use ironroot_shell::process::{stop_asked, supervisor};

use super::connection::Connection;
use crate::trusted_time::{Jumps, Listener};
use complaints::Complaints;
use files::{Delivered, Directory, FileOwner, key_mode};
use in_hardware::InHardware;
use newest::{Newest, News};
use source::{HandedOut, Source};
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

COMMAND is run once the set is there: at the start, and after each change. It is run again until it succeeds. A unit of Type=notify
counts as started once the set is there. If the identity ends, the files stay as they are: the certificate in them has its own end.

With -pkcs11 the key is made in a token and stays there, a new one for each certificate: svid.key says to OpenSSL's pkcs11-provider which
it is, svid.uri to others, nginx_engine.conf to an nginx with libp11's engine. The URI names the token, its module and its PIN file. With -tpm svid.key is a TSS2
PRIVATE KEY, which OpenSSL's provider tpm2 reads and this TPM alone can use.

Example: ironroot-agent deliver -directory /run/nginx-identity -group www-data -mode 0640 -- nginx -s reload
Example: ironroot-agent deliver -directory /run/mosquitto-identity -owner mosquitto -signal HUP -pidFile /run/mosquitto.pid
Example: ironroot-agent deliver -directory /var/lib/nginx-identity \\
  -pkcs11 'pkcs11:token=web?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/web.pin' -- nginx -s reload
Example: ironroot-agent deliver -directory /var/lib/nginx-identity -tpm /dev/tpmrm0 -group www-data -mode 0640 -- nginx -s reload
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
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = key_mode, conflicts_with = "pkcs11")]
    mode: u32,
    /// Keep the key in this PKCS#11 token, of which the files say where it is. The entry asks for it, with the selector ironroot:hardware_key
    #[arg(long, value_name = "URI", value_parser = TokenUri::parse)]
    pkcs11: Option<TokenUri>,
    /// What the keys in the token are called; without the flag by the directory. Two deliveries into one token never have the same
    #[arg(long = "keyName", value_name = "NAME", requires = "pkcs11")]
    key_name: Option<String>,
    /// Keep the key in the TPM at this address (/dev/tpmrm0, or a TCTI); the files hold it as the TPM has wrapped it. The entry asks for it likewise
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pkcs11")]
    tpm: Option<TpmAddress>,
    /// Send this signal to the process of -pidFile after each change
    #[arg(long, value_name = "NAME", requires = "pid_file", value_parser = parse_signal)]
    signal: Option<nix::sys::signal::Signal>,
    /// The file in which that process keeps its ID, on the first line; read again each time
    #[arg(long = "pidFile", value_name = "PATH", requires = "signal")]
    pid_file: Option<PathBuf>,
    /// Deliver once and end; nothing is told again
    #[arg(long)]
    once: bool,
    /// Longest wait for the first identity with -once
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = ironroot_shell::settings::parse_timeout)]
    timeout: Duration,
    /// Run this after each change, without a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Deliver {
    pub(super) fn execute(self) -> ExitCode {
        let delivered = match (self.pkcs11.clone(), self.tpm.clone()) {
            (None, None) => self.delivered(|flags, _| Ok(HandedOut { spiffe_id: flags.spiffe_id.clone() })),
            (Some(uri), _) => self.delivered(|flags, directory| {
                InHardware::token(uri, flags.key_name.clone(), directory, flags.spiffe_id.clone())
            }),
            (None, Some(address)) => self.delivered(|flags, _| Ok(InHardware::chip(address, flags.spiffe_id.clone()))),
        };
        Reply::print(&delivered.map(|()| Reply::default()), Output::Pretty)
    }

    fn delivered<S: Source>(
        self,
        source: impl FnOnce(&Self, &Path) -> Result<S, CommandError>,
    ) -> Result<(), CommandError> {
        let mut delivery = self.open(source)?;
        block_on(async {
            let stopped = stop_asked().map_err(CommandError::run)?;
            let (listener, jumps) = Listener::begin().map_err(CommandError::run)?;
            tokio::select! {
                delivered = delivery.run(jumps) => delivered,
                Err(error) = listener.follow() => Err(CommandError::run(error)),
                () = stopped => Ok(()),
            }
        })
    }

    fn open<S: Source>(
        self,
        source: impl FnOnce(&Self, &Path) -> Result<S, CommandError>,
    ) -> Result<Delivery<S>, CommandError> {
        let owner = FileOwner::named(self.owner.as_deref(), self.group.as_deref())?;
        let failed = |source| CommandError::File { doing: "find", path: self.directory.clone(), source };
        let path = std::path::absolute(&self.directory).map_err(failed)?;
        let source = source(&self, &path)?;
        let directory = Directory::open(path, owner, self.mode)?;
        let telling = Telling { command: self.command, signal: self.signal.zip(self.pid_file) };
        let once = self.once.then_some(self.timeout);
        Ok(Delivery { connection: self.connection, source, directory, telling, once })
    }
}

/// What a `deliver` needs while it lives.
struct Delivery<S> {
    connection: Connection,
    source: S,
    directory: Directory,
    telling: Telling,
    /// How long to wait, if one delivery is all.
    once: Option<Duration>,
}

impl<S: Source> Delivery<S> {
    async fn run(&mut self, jumps: Jumps) -> Result<(), CommandError> {
        match self.once {
            None => self.keep(jumps).await,
            Some(patience) => {
                let first = self.first(Instant::now() + patience).await?;
                let delivered = async {
                    self.put(&first).await?;
                    self.tell().await
                };
                tokio::time::timeout(patience, delivered).await.unwrap_or(Err(CommandError::Timeout(patience)))
            }
        }
    }

    /// The first answer until `end`: an agent that starts beside this one may have no socket yet, and no identity. Then why there was none.
    async fn first(&mut self, end: Instant) -> Result<S::Answer, CommandError> {
        let ended = || CommandError::Malformed("the agent ended the stream without an answer".to_owned());
        let mut last = None;
        loop {
            let asked = async { self.source.stream(&self.connection).await?.message().await?.ok_or_else(ended) };
            let rest = end.saturating_duration_since(Instant::now());
            let error = match tokio::time::timeout(rest, asked).await {
                Ok(Ok(first)) => return Ok(first),
                Ok(Err(error @ CommandError::Socket(_))) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or(CommandError::Timeout(self.once.unwrap_or_default()))),
            };
            if end.saturating_duration_since(Instant::now()) <= SHORTEST_PAUSE {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(SHORTEST_PAUSE).await;
        }
    }

    /// Never ends because the agent does, nor because a disk is full or a command fails: that may pass.
    async fn keep(&mut self, jumps: Jumps) -> Result<(), CommandError> {
        let mut complaints = Complaints::default();
        let (mut owed, mut pauses) = (Owed::at_the_start(), Pauses::default());
        loop {
            match self.follow(&mut owed, &mut complaints, &mut pauses, jumps.clone()).await {
                Err(error @ CommandError::Socket(_)) => return Err(error),
                Err(error) => complaints.say(&error),
                Ok(()) => pauses = Pauses::default(),
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Delivers what one stream brings, to its end. One that brought something was none in vain.
    async fn follow(
        &mut self,
        owed: &mut Owed,
        complaints: &mut Complaints,
        pauses: &mut Pauses,
        jumps: Jumps,
    ) -> Result<(), CommandError> {
        let mut newest = Newest::of(self.source.stream(&self.connection).await?, jumps);
        let mut last = None;
        while let Some(news) = newest.next(last.as_ref().and_then(|_| owed.due())).await? {
            if let News::Answer(answer) = news {
                last = Some(answer);
            }
            let Some(answer) = &last else { continue };
            match newest.during(self.deliver(answer, owed)).await {
                Ok(()) => {
                    complaints.end();
                    *pauses = Pauses::default();
                }
                Err(error) => complaints.say(&error),
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, answer: &S::Answer, owed: &mut Owed) -> Result<(), CommandError> {
        // A set that could not be written is owed as one that was written and not told.
        let was_owed = owed.begin();
        let (delivered, renewal) = self.put(answer).await?;
        if delivered == Delivered::New || was_owed {
            // Before anybody is told: who is told may be a unit that starts after this one, and wait for it.
            supervisor::started(&format!("delivering into {}", self.directory.path().display()));
            self.tell().await?;
        }
        *owed = Owed::nothing_before(renewal);
        Ok(())
    }

    async fn put(&mut self, answer: &S::Answer) -> Result<(Delivered, Option<Instant>), CommandError> {
        self.directory.hold()?;
        let set = self.source.set(answer, &self.directory, &self.connection).await?;
        let delivered = self.directory.put(&*set.files)?;
        if delivered == Delivered::New {
            let place = self.directory.current().unwrap_or_else(|| self.directory.path().to_owned());
            say(&format!("{} until {} is in {}\n", set.id, ironroot_api::utc(set.end), place.display()));
        }
        Ok((delivered, set.renewal.map(|renewal| Instant::now() + renewal)))
    }

    async fn tell(&mut self) -> Result<(), CommandError> {
        self.telling.tell().await?;
        self.source.told(&self.directory)
    }
}

/// Before the agent is asked again, since it was in vain.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(SHORTEST_PAUSE)
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let longer = (self.0 * 2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.0, longer)
    }
}

/// What is to be done though the agent says nothing, and when.
struct Owed {
    /// Others are to be told, or a set is to be written that could not be.
    again: bool,
    pause: Duration,
    renewal: Option<Instant>,
}

impl Owed {
    /// What this process told before it was started anew, nobody knows.
    fn at_the_start() -> Self {
        Self { again: true, pause: SHORTEST_PAUSE, renewal: None }
    }

    fn nothing_before(renewal: Option<Instant>) -> Self {
        Self { again: false, pause: SHORTEST_PAUSE, renewal }
    }

    /// Begins to do it; whether it was owed before.
    fn begin(&mut self) -> bool {
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.again, true)
    }

    fn due(&self) -> Option<Duration> {
        match self.again {
            true => Some(self.pause),
            false => self.renewal.map(|at| at.saturating_duration_since(Instant::now())),
        }
    }
}

fn say(text: &str) {
    Reply::print(&Ok(Reply { text: text.to_owned(), ..Reply::default() }), Output::Pretty);
}

#[cfg(test)]
mod tests;
