//! What a unix socket of ours promises before the first byte of gRPC.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use ironroot_api::directory::DirectoryError;
use ironroot_api::unix_socket::{SocketListener, Tolerant, UnixSocketError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").mode() & 0o7777
}

#[tokio::test]
async fn binds_with_the_mode_asked_for_and_removes_its_file_at_the_end() {
    let dir = directory();
    let path = dir.path().join("made/on/the/way/api.sock");
    for bits in [0o777, 0o770, 0o700] {
        let listener = SocketListener::bind(&path, bits).expect("binds");
        assert_eq!(mode(&path), bits);
        drop(listener);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_second_server_on_one_socket_is_told_so() {
    let dir = directory();
    let path = dir.path().join("api.sock");
    let first = SocketListener::bind(&path, 0o777).expect("binds");
    let second = SocketListener::bind(&path, 0o777).expect_err("already served");
    assert!(matches!(second, UnixSocketError::InUse(_)), "{second}");
    drop(first);
    SocketListener::bind(&path, 0o777).expect("free again");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_an_answering_one_is_not() {
    let dir = directory();
    let path = dir.path().join("api.sock");
    let foreign = StdUnixListener::bind(&path).expect("binds");
    let error = SocketListener::bind(&path, 0o777).expect_err("somebody answers");
    assert!(matches!(error, UnixSocketError::InUse(_)), "{error}");
    drop(foreign);
    assert!(path.exists(), "left behind, as after kill -9");
    let _listener = SocketListener::bind(&path, 0o777).expect("replaces it");
    StdUnixStream::connect(&path).expect("reaches the new one");
}

#[tokio::test]
async fn leaves_alone_what_is_not_a_socket() {
    let dir = directory();
    let path = dir.path().join("api.sock");
    fs::write(&path, "precious").expect("writes");
    assert!(matches!(SocketListener::bind(&path, 0o777), Err(UnixSocketError::NotASocket(_))));
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1, "no lock is left beside it");
    fs::remove_file(&path).expect("removes");
    symlink("elsewhere", &path).expect("links");
    assert!(matches!(SocketListener::bind(&path, 0o777), Err(UnixSocketError::NotASocket(_))));
    assert!(fs::symlink_metadata(&path).is_ok());
}

//= FLT-A19
#[tokio::test]
async fn refuses_a_directory_that_others_can_write() {
    let dir = directory();
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("creates");
    let path = open.join("sub/api.sock");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("opens it");
    let error = SocketListener::bind(&path, 0o777).expect_err("anybody could replace it");
    assert!(matches!(error, UnixSocketError::Directory(DirectoryError::Unsafe { .. })), "{error}");
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).expect("makes it sticky");
    SocketListener::bind(&path, 0o777).expect("sticky, as /tmp");
}

//= FLT-A19
#[tokio::test]
async fn refuses_a_way_through_another_users_link_or_directory() {
    assert!(nix::unistd::geteuid().is_root(), "this test gives files to another user: run it as root");
    let dir = directory();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).expect("creates");
    symlink(&real, &link).expect("links");
    SocketListener::bind(&link.join("api.sock"), 0o777).expect("our own link is fine");
    std::os::unix::fs::lchown(&link, Some(4242), None).expect("gives the link away");
    assert!(matches!(
        SocketListener::bind(&link.join("api.sock"), 0o777),
        Err(UnixSocketError::Directory(DirectoryError::Unsafe { .. }))
    ));
    chown(&real, Some(4242), None).expect("gives the directory away");
    assert!(matches!(
        SocketListener::bind(&real.join("api.sock"), 0o777),
        Err(UnixSocketError::Directory(DirectoryError::Unsafe { .. }))
    ));
}

//= FLT-A19
#[tokio::test]
async fn leaves_another_users_socket_and_lock_alone() {
    assert!(nix::unistd::geteuid().is_root(), "this test gives files to another user: run it as root");
    let dir = directory();
    let path = dir.path().join("api.sock");
    drop(StdUnixListener::bind(&path).expect("binds"));
    chown(&path, Some(4242), None).expect("gives it away");
    assert!(matches!(SocketListener::bind(&path, 0o777), Err(UnixSocketError::OtherOwner { uid: 4242, .. })));
    fs::remove_file(&path).expect("removes");
    chown(dir.path().join("api.sock.lock"), Some(4242), None).expect("gives it away");
    assert!(matches!(SocketListener::bind(&path, 0o777), Err(UnixSocketError::OtherOwner { uid: 4242, .. })));
}

#[tokio::test]
async fn refuses_paths_that_cannot_be_a_socket() {
    for path in ["api.sock".to_owned(), "/".to_owned(), format!("/tmp/{}", "x".repeat(120))] {
        assert!(matches!(SocketListener::bind(Path::new(&path), 0o777), Err(UnixSocketError::Path(_))), "{path}");
    }
}

/// A HEADERS frame whose Huffman-coded `:authority` is `%2F%2F%2F`.
fn request(authority: &[u8]) -> Vec<u8> {
    let block = [&[0x01, 0x80 | authority.len() as u8], authority].concat();
    let head = [0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1];
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &head, &block].concat()
}

#[tokio::test]
async fn a_reader_of_any_size_sees_the_whole_corrected_stream() {
    // "%2F%2F%2F" and "-2F-2F-2F": 010101|00010|1100001 and 010110|00010|1100001, three times, then padding.
    let (dirty, clean) = ([0x54, 0x58, 0x55, 0x16, 0x15, 0x45, 0x87], [0x58, 0x58, 0x56, 0x16, 0x15, 0x85, 0x87]);
    for room in (1..20).chain([63, 64, 65, 4096]) {
        let (mut client, server) = tokio::net::UnixStream::pair().expect("a pair");
        let mut server = Tolerant::new(server);
        let sent = request(&dirty);
        let writer = tokio::spawn(async move {
            for byte in sent {
                client.write_all(&[byte]).await.expect("writes");
                tokio::task::yield_now().await;
            }
        });
        let mut seen = Vec::new();
        let mut buffer = vec![0; room];
        loop {
            match server.read(&mut buffer).await.expect("reads") {
                0 => break,
                n => seen.extend_from_slice(&buffer[..n]),
            }
        }
        writer.await.expect("wrote");
        assert_eq!(seen, request(&clean), "room for {room}");
    }
}

#[tokio::test]
async fn bytes_held_back_at_the_end_of_the_stream_are_delivered() {
    let (mut client, server) = tokio::net::UnixStream::pair().expect("a pair");
    let mut sent = request(&[0x54, 0x58, 0x55]);
    sent.truncate(sent.len() - 2);
    client.write_all(&sent).await.expect("writes");
    drop(client);
    let mut seen = Vec::new();
    Tolerant::new(server).read_to_end(&mut seen).await.expect("reads");
    assert_eq!(seen.len(), sent.len());
}
