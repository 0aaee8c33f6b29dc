//! An error and its causes in one line.

use std::error::Error;

use tonic::Status;

/// What tonic's own layer says, which is nothing.
const EMPTY_WORDS: &str = "transport error";

/// `error` and its causes, from the outside in, each told once: `cannot open the store: database is locked`.
///
/// A gRPC status counts by its message: its own Display would tell code, message and cause once more.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = words(error);
        if next != EMPTY_WORDS && !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn words(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref::<Status>().map_or_else(|| error.to_string(), |status| status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;
    use tonic::Code;

    use super::*;

    #[derive(Debug, Error)]
    enum Outer {
        #[error("cannot attest")]
        Plain(#[source] Box<Outer>),
        #[error("the server refused: {}", .0.message())]
        Server(#[source] Status),
        #[error(transparent)]
        Transparent(Box<Outer>),
        #[error("the disk failed")]
        Io(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_told_once_from_the_outside_in() {
        let io = || Outer::Io(io::Error::other("full"));
        assert_eq!(describe(&io()), "the disk failed: full");
        assert_eq!(describe(&Outer::Transparent(Box::new(io()))), "the disk failed: full");
        assert_eq!(describe(&Outer::Plain(Box::new(io()))), "cannot attest: the disk failed: full");
    }

    #[test]
    fn a_servers_refusal_is_told_once() {
        let status = || Status::new(Code::PermissionDenied, "device 5f1c is not enrolled");
        let text = describe(&Outer::Plain(Box::new(Outer::Server(status()))));
        assert_eq!(text, "cannot attest: the server refused: device 5f1c is not enrolled");
        assert_eq!(describe(&status()), "device 5f1c is not enrolled");
    }

    #[test]
    fn what_broke_a_connection_is_told_though_tonic_says_nothing_itself() {
        let status =
            Status::from_error(Box::new(io::Error::new(io::ErrorKind::ConnectionRefused, "refused by 10.0.0.1")));
        let text = describe(&Outer::Server(status));
        assert_eq!(text.matches("refused by 10.0.0.1").count(), 1, "{text}");
    }
}
