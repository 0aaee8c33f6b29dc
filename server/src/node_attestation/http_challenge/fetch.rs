//! One question by HTTP to a host that somebody named who may be anybody: bounded in time, in size and in number, and never led on.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use ironroot_attest::node::http_challenge::{Claim, MAX_BODY_BYTES};
use ironroot_shell::dial;
use ironroot_shell::web::{WebAnswer, WebQuestion, WebQuestionError};
use thiserror::Error;

use super::questions::Questions;

/// Longest for one host: to find, to connect, to ask and to answer. Source: SPIRE.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a host did not answer. For this server's log.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error(transparent)]
    Answer(#[from] WebQuestionError),
    /// To a host that nobody has named.
    #[error("it redirects, and nobody is led on")]
    Redirect,
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it has not answered within {} s", DEADLINE.as_secs())]
    Late,
    #[error("it, or this server, is being asked too much at the moment")]
    Busy,
}

/// What the host answers.
pub(super) async fn fetch(claim: &Claim, questions: &Questions) -> Result<Bytes, FetchError> {
    fetch_within(DEADLINE, claim, questions).await
}

async fn fetch_within(deadline: Duration, claim: &Claim, questions: &Questions) -> Result<Bytes, FetchError> {
    let _place = questions.place(claim.host()).ok_or(FetchError::Busy)?;
    tokio::time::timeout(deadline, ask(claim, questions)).await.map_err(|_| FetchError::Late)?
}

async fn ask(claim: &Claim, questions: &Questions) -> Result<Bytes, FetchError> {
    let addresses = questions.addresses(claim.host(), claim.port()).await.map_err(FetchError::Connect)?;
    let tcp = dial::first_of(addresses).await.map_err(FetchError::Connect)?;
    let question = WebQuestion {
        authority: &format!("{}:{}", claim.host(), claim.port()),
        path: &claim.path(),
        accept: "*/*",
        user_agent: concat!("ironroot-server/", env!("CARGO_PKG_VERSION")),
        max_bytes: MAX_BODY_BYTES,
    };
    match question.ask(tcp).await? {
        WebAnswer::Document(bytes) => Ok(bytes),
        WebAnswer::Elsewhere(_) => Err(FetchError::Redirect),
        WebAnswer::Status(status) => Err(FetchError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of a host that answers so, and what it was asked.
    async fn of_host(answer: &'static str) -> (Result<Bytes, FetchError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let host = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("asked");
            let mut asked = vec![0; 1024];
            let read = stream.read(&mut asked).await.expect("read");
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        let claim = Claim::new("127.0.0.1", "default", port).expect("legal");
        let fetched = fetch(&claim, &Questions::default()).await;
        (fetched, host.await.expect("it ended"))
    }

    //= REG-04
    #[tokio::test]
    async fn a_host_is_asked_once_at_one_path_and_led_nowhere() {
        let (served, asked) = of_host("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").await;
        assert_eq!(served.expect("served"), "abc");
        assert!(
            asked.starts_with("GET /.well-known/spiffe/nodeattestor/http_challenge/default/challenge HTTP/1.1\r\n")
        );
        let redirect = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(of_host(redirect).await.0, Err(FetchError::Redirect)));
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(of_host(missing).await.0, Err(FetchError::Status(StatusCode::NOT_FOUND))));
    }

    #[tokio::test]
    async fn an_answer_that_is_long_or_none_is_refused() {
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n\
            aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert!(matches!(of_host(long).await.0, Err(FetchError::Answer(WebQuestionError::TooLong(_)))));
        assert!(matches!(of_host("SSH-2.0-OpenSSH\r\n").await.0, Err(FetchError::Answer(WebQuestionError::Http(_)))));
        let short = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab";
        assert!(matches!(of_host(short).await.0, Err(FetchError::Answer(WebQuestionError::BrokenOff(_)))));
        let claim = Claim::new("127.0.0.1", "default", 1).expect("legal");
        assert!(matches!(fetch(&claim, &Questions::default()).await, Err(FetchError::Connect(_))));
    }

    #[tokio::test]
    async fn a_host_that_drips_costs_no_more_than_the_deadline_and_one_that_is_asked_already_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let claim = Claim::new("127.0.0.1", "default", listener.local_addr().expect("bound").port()).expect("legal");
        let questions = Questions::default();
        let late = fetch_within(Duration::from_millis(50), &claim, &questions).await;
        assert!(matches!(late, Err(FetchError::Late)));
        let _asked =
            [(); super::super::questions::MAX_PER_HOST].map(|()| questions.place(claim.host()).expect("a place"));
        assert!(matches!(fetch(&claim, &questions).await, Err(FetchError::Busy)));
    }
}
