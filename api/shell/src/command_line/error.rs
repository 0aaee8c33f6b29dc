//! Why a command failed, and what the shell hears.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_text::FileError;
use nix::unistd::geteuid;
use thiserror::Error;
use tonic::Code;

use super::SocketError;
use crate::describe;
use crate::printable::{printable, shown};
use crate::settings::{ConfigErrors, format_duration};
use ironroot_api::unix_socket::UnixSocketError;

/// Exit code where the first word is no command, or there is none. Source: SPIRE's command line library, mitchellh/cli.
pub const EXIT_NO_COMMAND: u8 = 127;

/// Why a command failed.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum CommandError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// Which socket is meant is not clear.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Nobody answers.
    #[error("is it running? -socketPath says where it listens: one that was installed as a package at {packaged}")]
    Unreachable {
        #[source]
        cause: UnixSocketError,
        /// The socket of the package's.
        packaged: &'static str,
    },
    /// The other side said no.
    #[error("{} (code: {})", .0.message(), code_name(.0.code()))]
    Refused(#[from] tonic::Status),
    /// No answer in time.
    #[error("no answer within {}", format_duration(*.0))]
    Timeout(Duration),
    /// A file cannot be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file that was named as input cannot be read.
    #[error(transparent)]
    Input(#[from] FileError),
    /// What was read makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The daemon ended, or never started.
    #[error(transparent)]
    Run(Box<dyn Error + Send + Sync>),
}

impl CommandError {
    /// The daemon, or what it needs, failed.
    pub fn run(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Run(cause.into())
    }

    /// Nobody answers at the socket, which of the package's daemon is `packaged`.
    pub fn unreachable(packaged: &'static str) -> impl FnOnce(UnixSocketError) -> Self {
        move |cause| Self::Unreachable { cause, packaged }
    }

    /// What `who` was asked is whether it is well, and this is the answer. Source of the words: SPIRE's `healthcheck`.
    pub fn unhealthy(self, who: &str) -> Self {
        match self {
            Self::Malformed(says) if says.starts_with(who) => Self::Malformed(says),
            unknown => {
                Self::Malformed(format!("{who} is unhealthy: unable to determine health: {}", unknown.message()))
            }
        }
    }

    /// The whole story in one line, or one line per mistake of a configuration.
    pub fn message(&self) -> String {
        match self {
            Self::Unreachable { cause: cause @ UnixSocketError::NoWay { .. }, .. } => cause.to_string(),
            Self::Unreachable { cause, .. } => unreachable_because(cause, self),
            Self::Refused(_) => self.to_string(),
            _ => describe(self),
        }
    }

    /// The same for a terminal. What the other side said is one line.
    pub fn for_people(&self) -> String {
        match self {
            Self::Refused(_) => shown(self.message()).into_string(),
            _ => printable(&self.message()).into_owned(),
        }
    }
}

/// Only where nobody listens is it the question whether it runs.
fn unreachable_because(cause: &UnixSocketError, hint: &CommandError) -> String {
    let told = describe(cause);
    let path = match cause {
        UnixSocketError::Connect { path, .. } => path,
        _ => return format!("{told}: {hint}"),
    };
    if path.metadata().is_ok_and(|facts| !facts.file_type().is_socket()) {
        return format!("{cause}: it is not a socket; -socketPath says where the daemon listens");
    }
    match io_kind(cause) {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) | None => format!("{told}: {hint}"),
        Some(ErrorKind::PermissionDenied) => format!("{told}{}", whose(path)),
        Some(_) => told.to_string(),
    }
}

fn whose(socket: &Path) -> String {
    let Ok(facts) = socket.metadata() else { return String::new() };
    let (uid, gid, mode, asking) = (facts.uid(), facts.gid(), facts.mode() & 0o7777, geteuid());
    format!(": the socket is user {uid}'s and group {gid}'s (mode {mode:04o}), and this is user {asking}")
}

/// What the system said.
fn io_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => error.source().and_then(io_kind),
    }
}

/// A gRPC code in the spelling of SPIRE's messages.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    #[test]
    fn a_wrong_configuration_is_told_line_by_line() {
        let config = ConfigErrors::single(Path::new("x.conf"), Origin::Line(3), "a.b", "wrong");
        assert_eq!(CommandError::from(config).message(), "x.conf:3: a.b: wrong");
    }

    #[tokio::test]
    async fn whether_it_runs_is_asked_only_where_nobody_listens() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("api.sock");
        let refused = async || match ironroot_api::unix_socket::connect(&path).await {
            Ok(_) => panic!("nobody answers"),
            Err(error) => CommandError::unreachable("/run/x/api.sock")(error).message(),
        };
        let absent = refused().await;
        assert!(absent.contains("is it running?") && absent.ends_with("at /run/x/api.sock"), "{absent}");
        std::fs::write(&path, "no socket").expect("written");
        let no_socket = refused().await;
        assert!(no_socket.contains("it is not a socket") && !no_socket.contains("is it running?"), "{no_socket}");
        std::fs::remove_file(&path).expect("removed");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let dead = refused().await;
        assert!(dead.contains("is it running?"), "{dead}");
        // Root may connect to any: it is told what another user would be.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).expect("set");
        let (uid, source) = (geteuid(), io::Error::from(ErrorKind::PermissionDenied));
        let denied = UnixSocketError::Io { doing: "connect to", path: path.clone(), source };
        assert_eq!(io_kind(&denied), Some(ErrorKind::PermissionDenied));
        assert!(whose(&path).ends_with(&format!("(mode 0660), and this is user {uid}")), "{}", whose(&path));
    }

    #[test]
    fn whoever_cannot_be_asked_is_unhealthy() {
        let told = CommandError::Timeout(Duration::from_millis(1500)).unhealthy("server").message();
        assert_eq!(told, "server is unhealthy: unable to determine health: no answer within 1.5s");
        let told = CommandError::Malformed("server is unhealthy: its bundle is empty".into()).unhealthy("server");
        assert_eq!(told.message(), "server is unhealthy: its bundle is empty");
    }

    #[test]
    fn causes_are_told_once_from_the_outside_in() {
        let inner = io::Error::other("disk is on fire");
        let error = CommandError::File { doing: "read", path: "/x".into(), source: inner };
        assert_eq!(error.message(), "cannot read /x: disk is on fire");
        assert_eq!(CommandError::Run(Box::new(error)).message(), "cannot read /x: disk is on fire");
    }
}
