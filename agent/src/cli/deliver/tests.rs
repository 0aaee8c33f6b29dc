//! What a delivery makes of what the agent says, and of clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use futures_util::{StreamExt, stream};
use ironroot_api::pb::workload::X509svidResponse;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use super::files::SetFile;
use super::source::Set;
use super::*;

/// An agent that says what comes in `said`, on one stream; each of its words is a set that is to be renewed in a day.
struct Said {
    words: std::sync::Mutex<Option<mpsc::Receiver<Result<(), Status>>>>,
    made: Arc<AtomicUsize>,
}

impl Source for Said {
    type Answer = X509svidResponse;

    async fn stream(&self, _: &Connection) -> Result<Streaming<X509svidResponse>, CommandError> {
        let words = self.words.lock().expect("sound").take().expect("one stream");
        // An empty message.
        let frame = |()| http_body::Frame::data(prost::bytes::Bytes::from_static(&[0; 5]));
        let frames = stream::unfold(words, |mut words| async { words.recv().await.map(|word| (word, words)) });
        let body = http_body_util::StreamBody::new(frames.map(move |word| word.map(frame)));
        Ok(Streaming::new_response(ProstDecoder::default(), Box::pin(body), http::StatusCode::OK, None, None))
    }

    async fn set(&mut self, _: &X509svidResponse, _: &Directory, _: &Connection) -> Result<Set, CommandError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let id = SpiffeId::parse("spiffe://td/web").expect("legal");
        let files = Box::new(|_: &Path| vec![SetFile::open("svid.pem", "of the test")]);
        Ok(Set { id, end: 0, renewal: Some(Duration::from_secs(86_400)), files })
    }

    fn told(&mut self, _: &Directory) -> Result<(), CommandError> {
        Ok(())
    }
}

struct Lab {
    delivery: Delivery<Said>,
    words: mpsc::Sender<Result<(), Status>>,
    made: Arc<AtomicUsize>,
    pauses: Pauses,
    _place: tempfile::TempDir,
}

fn lab() -> Lab {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        connection: Connection,
    }
    let place = tempfile::tempdir().expect("directory");
    let directory = Directory::open(place.path().join("identity"), FileOwner::default(), 0o600).expect("usable");
    let (words, said) = mpsc::channel(1);
    let made = Arc::<AtomicUsize>::default();
    let source = Said { words: std::sync::Mutex::new(Some(said)), made: made.clone() };
    let connection = Flags::parse_from(["test"]).connection;
    let delivery = Delivery { connection, source, directory, telling: Telling::default(), once: None };
    let mut pauses = Pauses::default();
    (0..9).for_each(|_| _ = pauses.next());
    Lab { delivery, words, made, pauses, _place: place }
}

impl Lab {
    /// Until the stream ends, beside what `story` does.
    async fn follow(&mut self, jumps: Jumps, story: impl Future<Output = ()>) {
        let (mut owed, mut complaints) = (Owed::at_the_start(), Complaints::default());
        let following = self.delivery.follow(&mut owed, &mut complaints, &mut self.pauses, jumps);
        let (followed, ()) = tokio::join!(following, story);
        followed.expect_err("the stream ended");
    }
}

fn gone() -> Result<(), Status> {
    Err(Status::unavailable("the agent is shutting down"))
}

#[tokio::test]
async fn the_agent_is_asked_again_soon_after_a_stream_that_brought_something_and_ever_later_after_others() {
    for (said, pause) in [(vec![gone()], LONGEST_PAUSE), (vec![Ok(()), gone()], SHORTEST_PAUSE)] {
        let mut lab = lab();
        let words = lab.words.clone();
        let story = async move {
            for word in said {
                words.send(word).await.expect("heard");
            }
        };
        lab.follow(Jumps::channel().1, story).await;
        assert_eq!(lab.pauses.next(), pause);
    }
}

#[tokio::test]
async fn once_the_clock_was_set_or_the_device_has_slept_it_is_looked_at_whether_another_certificate_is_due() {
    let mut lab = lab();
    let (jumping, jumps) = Jumps::channel();
    let (words, made) = (lab.words.clone(), lab.made.clone());
    let story = async move {
        words.send(Ok(())).await.expect("heard");
        for looks in 1..4 {
            while made.load(Ordering::Relaxed) < looks {
                tokio::task::yield_now().await;
            }
            jumping.send_replace(());
        }
        words.send(gone()).await.expect("heard");
    };
    lab.follow(jumps, story).await;
}
