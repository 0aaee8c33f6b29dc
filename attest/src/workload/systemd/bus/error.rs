//! Why the bus gave no answer.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the bus, or who was asked there, gave no answer.
#[derive(Debug, Error)]
pub enum BusError {
    /// There is no bus, it is not ours to use, or it is full.
    #[error("cannot connect to the system bus {path}")]
    Connect {
        /// The socket that was dialled.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The bus takes nobody of this user, or no descriptors.
    #[error("the system bus answered {0:?} to the greeting")]
    Greeting(String),
    /// Who was asked, or the bus, is busy or stuck.
    #[error("the answer did not come in time")]
    TimedOut,
    /// The bus hung up.
    #[error("the connection to the system bus broke")]
    Broken(#[source] io::Error),
    /// An error came back.
    #[error("the answer was the error {name}")]
    Refused {
        /// Such as `org.freedesktop.DBus.Error.AccessDenied`.
        name: String,
    },
    /// The answer is not what the specification says.
    #[error("the answer cannot be read")]
    Malformed(#[source] zbus::Error),
}
