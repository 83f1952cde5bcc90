use super::*;
use crate::reactor::tests::on_both;
use crate::{join_all, spawn, yield_now};
use std::os::unix::fs::PermissionsExt;

async fn pair(directory: &Path) -> (Stream, Stream) {
    let path = directory.join("socket");
    let listener = Listener::bind_unix(&path).unwrap();
    let client = spawn(async move { Stream::connect_unix(&path).await.unwrap() });
    let server = listener.accept().await.unwrap();
    (client.await, server)
}

async fn tcp_pair() -> (Stream, Stream) {
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.tcp_address().unwrap();
    let client = spawn(async move { Stream::connect_tcp(address).await.unwrap() });
    let server = listener.accept().await.unwrap();
    (client.await, server)
}

fn counted(length: usize) -> Buf {
    let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
    Buf::copy_of(&bytes)
}

#[test]
fn a_stream_echoes_what_was_sent_in_pieces() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        for (client, server) in [pair(directory.path()).await, tcp_pair().await] {
            let echo = spawn(async move {
                loop {
                    let (count, mut buf) = server.recv(Buf::alloc(1000)).await;
                    let count = count.unwrap();
                    if count == 0 {
                        break;
                    }
                    drop(buf.split_off(count));
                    server.send_all(buf).await.unwrap();
                }
            });
            let sender = client.clone();
            let sent = spawn(async move {
                let data = vec![counted(5), Buf::alloc(0), counted(70_000), counted(1)];
                sender.send_all(data).await.unwrap();
                sender.shutdown_send().unwrap();
            });
            let (result, buf) = client.recv_exact(Buf::alloc(70_006)).await;
            result.unwrap();
            sent.await;
            echo.await;
            assert_eq!(&buf.as_slice()[5..70_005], counted(70_000).as_slice());
            let (result, _) = client.recv(Buf::alloc(1)).await;
            assert_eq!(result.unwrap(), 0);
        }
    });
}

#[test]
fn megabytes_go_both_ways_at_once_through_partial_sends() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = pair(directory.path()).await;
        let length = 8 << 20;
        let tasks = [a, b].map(|stream| {
            let receiver = stream.clone();
            let received = spawn(async move {
                let (result, buf) = receiver.recv_exact(Buf::alloc(length)).await;
                result.unwrap();
                assert_eq!(buf.as_slice(), counted(length).as_slice());
            });
            let sent = spawn(async move {
                let mut data = counted(length);
                let mut pieces = Segments::default();
                // More pieces than one call takes, none of them joined to the one before.
                for _ in 0..1500 {
                    let rest = data.split_off(1001);
                    pieces = pieces.into_iter().chain([data]).collect();
                    data = rest;
                }
                let pieces: Segments = pieces.into_iter().chain([data]).collect();
                stream.send_all(pieces).await.unwrap();
            });
            spawn(async {
                received.await;
                sent.await;
            })
        });
        join_all(tasks).await;
    });
}

#[test]
fn sending_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = pair(directory.path()).await;
        drop(b);
        let error = a.send_all(counted(10)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let (result, _) = a.recv_exact(Buf::alloc(1)).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn shutdown_ends_a_receive_that_waits() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (a, _b) = pair(directory.path()).await;
        let receiver = a.clone();
        let waiting = spawn(async move { receiver.recv(Buf::alloc(10)).await.0 });
        for _ in 0..10 {
            yield_now().await;
        }
        a.shutdown().unwrap();
        assert_eq!(waiting.await.unwrap(), 0);
    });
}

#[test]
fn a_unix_socket_is_private_replaces_a_dead_one_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::bind_unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let refused = Listener::bind_unix(&path).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "a file").unwrap();
    let refused = Listener::bind_unix(&path).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[test]
fn connecting_to_nobody_is_an_error() {
    on_both(|| async {
        let missing = Stream::connect_unix(Path::new("/nowhere/at/all")).await.err().unwrap();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.tcp_address().unwrap();
        drop(listener);
        let refused = Stream::connect_tcp(address).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}
