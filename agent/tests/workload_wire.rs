//! The Workload API socket below gRPC: foreign clients, garbage, and callers that exit.

#[path = "support/served.rs"]
mod served;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Instant;

use ironroot_agent::endpoints::Limits;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use served::{Served, patiently};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

fn field(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x10, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value].concat()
}

/// A whole connection as gRPC-core opens it: preface, settings, FetchX509SVID with this `:authority` field.
fn request(authority: &[u8]) -> Vec<u8> {
    let fields = [
        field(":method", b"POST"),
        field(":scheme", b"http"),
        authority.to_vec(),
        field(":path", b"/SpiffeWorkloadAPI/FetchX509SVID"),
        field("te", b"trailers"),
        field("content-type", b"application/grpc"),
        field("workload.spiffe.io", b"true"),
    ];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [preface, frame(4, 0, 0, &[]), frame(HEADERS, 4, 1, &fields.concat()), frame(DATA, 1, 1, &[0; 5])].concat()
}

/// What comes back on stream 1: the first data, or the fact that it was reset.
async fn answer(stream: &mut UnixStream) -> Result<Vec<u8>, u8> {
    loop {
        let mut header = [0; 9];
        patiently(stream.read_exact(&mut header)).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        patiently(stream.read_exact(&mut payload)).await.expect("its payload");
        match header[3] {
            DATA => return Ok(payload),
            RST_STREAM => return Err(RST_STREAM),
            _ => {}
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_client_that_sends_the_sockets_path_as_authority_is_served() {
    let served = Served::ours();
    let path = served.socket().display().to_string().replace('/', "%2F");
    let plain = field(":authority", path.as_bytes());
    // "%2Ftmp%2Fa.sock" in HPACK's Huffman code, by static name index.
    let bits = "010101000101100001".to_owned()
        + "010011010011 01011"
        + "010101000101100001"
        + "00011 010111"
        + "01000 00111 00100 1110101";
    let bits: String = bits.chars().filter(|c| *c != ' ').collect();
    let padded = format!("{bits}{}", "1".repeat((8 - bits.len() % 8) % 8));
    let coded: Vec<u8> =
        (0..padded.len()).step_by(8).map(|i| u8::from_str_radix(&padded[i..i + 8], 2).expect("bits")).collect();
    let huffman = [&[0x41, 0x80 | coded.len() as u8][..], &coded].concat();
    for authority in
        [plain, huffman, field(":authority", b"unix:/tmp/x?y"), field(":authority", b"localhost"), Vec::new()]
    {
        for chunk in [1, 7, 4096] {
            let mut stream = UnixStream::connect(served.socket()).await.expect("connects");
            for part in request(&authority).chunks(chunk) {
                stream.write_all(part).await.expect("writes");
                tokio::task::yield_now().await;
            }
            let data = answer(&mut stream).await.expect("not reset");
            assert!(contains(&data, "spiffe://td/test"), "authority {authority:?} in chunks of {chunk}");
        }
    }
}

//= FLT-A10
#[tokio::test]
async fn garbage_tls_and_http1_end_their_connection_and_nothing_else() {
    let served = Served::ours();
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 600]].concat();
    let bomb = [&request(b"")[..24], &frame(HEADERS, 0, 1, &[0x41; 2000]), &frame(9, 0, 1, &[0xff; 16000])].concat();
    let junk: Vec<u8> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), tls, bomb, junk] {
        let mut stream = UnixStream::connect(served.socket()).await.expect("connects");
        // The server may close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let _ = patiently(stream.read_to_end(&mut Vec::new())).await;
    }
    assert!(served.fetch().await.is_ok());
}

//= FLT-A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_of_one_user_leave_the_socket_to_others() {
    let served = Served::new(Limits::default());
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let socket = served.socket();
    let flood = tokio::task::spawn_blocking(move || {
        let mut held = std::collections::VecDeque::new();
        for _ in 0..10_000 {
            held.push_back(StdUnixStream::connect(&socket).expect("waits for its turn"));
            if held.len() > 200 {
                held.pop_front();
            }
        }
        held
    });
    assert_eq!(served.told(61001).await, "spiffe://td/web", "during the flood");
    let held = patiently(flood).await.expect("ends");
    assert_eq!(served.told(61001).await, "spiffe://td/web", "while the last connections are held");
    drop(held);
}

/// Requests of a few bytes for nothing that is offered, one after the other, for as long as they are taken.
async fn ask_on_and_on(mut connection: OwnedWriteHalf) {
    // POST, http and "/", by their numbers in HPACK's table.
    let asks = |stream: u32| {
        let mut frame = frame(HEADERS, 5, 0, &[0x83, 0x86, 0x84]);
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame
    };
    let frames = (0..u32::from(u16::MAX)).map(|number| asks(2 * number + 1));
    let _ = connection.write_all(&frames.flatten().collect::<Vec<u8>>()).await;
}

/// Counts the answers.
async fn count(mut connection: OwnedReadHalf, answers: watch::Sender<u32>) {
    let mut header = [0; 9];
    while connection.read_exact(&mut header).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        connection.read_exact(&mut payload).await.expect("its payload");
        answers.send_modify(|answers| *answers += u32::from(header[3] == HEADERS));
    }
}

//= FLT-A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away_on_and_on_is_answered_no_more_often_than_its_share_and_others_are_served() {
    let served = Served::new(Limits::default());
    served.publish(vec![served.authority.issue("/web", 61001, 3600), served.authority.issue("/own", 0, 3600)]);
    let mut stream = UnixStream::connect(served.socket()).await.expect("connects");
    stream.write_all(&request(b"")[..24]).await.expect("writes the preface");
    stream.write_all(&frame(4, 0, 0, &[])).await.expect("writes our settings");
    let (reading, writing) = stream.into_split();
    let (answers, mut answered) = watch::channel(0);
    let began = Instant::now();
    let mut flood = JoinSet::new();
    flood.spawn(ask_on_and_on(writing));
    flood.spawn(count(reading, answers));
    patiently(answered.wait_for(|answers| *answers >= 400)).await.expect("is answered");
    assert_eq!(served.told(61001).await, "spiffe://td/web", "another user");
    assert!(served.fetch().await.is_ok(), "the same user's other connection");
    // At once its share, the connection's own and what is in one read; then a hundred a second, however slow this machine is.
    let (answers, seconds) = (*answered.borrow(), began.elapsed().as_secs() as u32 + 1);
    assert!(answers <= 600 + 110 * seconds, "{answers} in {seconds} s");
    patiently(answered.wait_for(|later| *later > answers)).await.expect("its turn comes");
}

//= FLT-A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_users_that_hold_every_connection_leave_room_for_another() {
    let served = Served::new(Limits::default());
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let mut crowd: Vec<_> = (61_010..61_018).map(|uid| served.start("hold 512", uid, Stdio::null())).collect();
    crowd.iter_mut().for_each(|workload| workload.says("512 held"));
    for _ in 0..5 {
        assert_eq!(served.told(61001).await, "spiffe://td/web");
    }
}

#[tokio::test]
async fn a_connection_ends_when_the_process_that_opened_it_exits_whoever_holds_it() {
    let served = Served::new(Limits::default());
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let ours = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let theirs: OwnedFd = ours.try_clone().expect("the same socket");
    let says = request(&field(":authority", b"x"));
    let mut workload = served.start_saying("connect-stdin", 61001, Stdio::from(theirs), &says);
    let ours = StdUnixStream::from(ours);
    patiently(async {
        while ours.peer_addr().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ours.set_nonblocking(true).expect("does not block");
    let mut ours = UnixStream::from_std(ours).expect("a stream");
    let data = answer(&mut ours).await.expect("not reset");
    assert!(contains(&data, "spiffe://td/web"), "the identity of the process that connected");
    workload.kill();
    let _ = patiently(ours.read_to_end(&mut Vec::new())).await;
    served.publish(vec![served.authority.issue("/web", 61001, 7200)]);
    assert!(ours.write_all(b"x").await.is_err(), "closed");
}
