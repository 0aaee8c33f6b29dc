//! Why somebody is not let in, or not let do something.

use axum::http::StatusCode;
use thiserror::Error;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The name that the browser knows the console by is none of this machine's own: a name of somebody's that points here.
    #[error("this console is reached as 127.0.0.1 or localhost only")]
    Host,
    /// The link was opened already, is too old, or another was given since.
    #[error("this link was opened before, or is too old: press Enter where the console runs, and open the new one")]
    Link,
    /// The browser has not opened a link, or long ago.
    #[error("open the link that ironroot-server console has printed; press Enter where it runs for a new one")]
    NoSession,
    /// Nobody may change anything.
    #[error("this console only shows: start it with -write to approve and ban devices")]
    ReadOnly,
    /// The request comes from a page that is not the console's.
    #[error("this request does not come from a page of the console")]
    Origin,
    /// The form was not made for this session.
    #[error("this form was made for another session: go back, load the page anew, and send it again")]
    Form,
    /// What was typed is not the device's name.
    #[error("what you typed is not the name of the device: nothing was changed")]
    Unconfirmed,
}

impl Refused {
    /// The status of HTTP that says it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Link => StatusCode::GONE,
            Self::NoSession => StatusCode::UNAUTHORIZED,
            Self::ReadOnly | Self::Origin | Self::Form => StatusCode::FORBIDDEN,
            Self::Unconfirmed => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}
