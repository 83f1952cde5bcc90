//! Clients scripted message by message: honest ones, hostile ones, and ones that disappear.

use super::test_device::TestDevice;
use super::test_server::TestServer;
use super::{Address, Export, Server};
use nbd::reply::{
    CHUNK_BYTES, ChunkKind, ErrorChunk, Extent, Header, SIMPLE_BYTES, decode_block_status,
    decode_error,
};
use nbd::{
    CONTEXT_ALLOCATION, CONTEXT_INTEGRITY, ClientHandshake, Command, CommandFlags, Errno, Request,
    TransmissionFlags,
};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use units::{BlockSize, usize_of};

const MIB: u64 = 1 << 20;

/// A client that does what it is told.
struct Peer {
    stream: UnixStream,
    flags: TransmissionFlags,
    cookie: u64,
}

/// One reply: the chunks of a structured one, or what a simple one says.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    data: Vec<(u64, Vec<u8>)>,
    statuses: Vec<(u32, Vec<Extent>)>,
    error: Option<ErrorChunk>,
}

impl Peer {
    fn connect(server: &TestServer) -> Self {
        let Address::Unix(path) = &server.address else { panic!("a Unix socket") };
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, flags: TransmissionFlags::default(), cookie: 0 }
    }

    /// With structured replies and `base:allocation`, as our own client asks for.
    fn structured(server: &TestServer) -> Self {
        let mut peer = Self::connect(server);
        let mut handshake = ClientHandshake::new("volume");
        let mut input = Vec::new();
        loop {
            let step = handshake.step(&input).unwrap();
            input.drain(..step.consumed);
            peer.stream.write_all(&step.request).unwrap();
            if let Some(negotiated) = step.negotiated {
                assert!(input.is_empty() && negotiated.structured);
                peer.flags = negotiated.flags;
                return peer;
            }
            if step.consumed == 0 {
                let mut byte = [0];
                peer.stream.read_exact(&mut byte).unwrap();
                input.push(byte[0]);
            }
        }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut message = b"IHAVEOPT".to_vec();
        message.extend_from_slice(&option.to_be_bytes());
        message.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        message.extend_from_slice(data);
        self.stream.write_all(&message).unwrap();
        let mut replies = Vec::new();
        loop {
            let head = self.bytes(20);
            assert_eq!(head[8..12], option.to_be_bytes());
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let length = u32::from_be_bytes(head[16..20].try_into().unwrap());
            replies.push((kind, self.bytes(usize_of(length.into()))));
            if kind == 1 || kind >> 31 == 1 {
                return replies;
            }
        }
    }

    fn greeted(server: &TestServer) -> Self {
        let mut peer = Self::connect(server);
        assert_eq!(peer.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
        peer.stream.write_all(&[0, 0, 0, 3]).unwrap();
        peer
    }

    /// With both contexts; they are numbered 1 and 2.
    fn with_contexts(server: &TestServer) -> Self {
        let mut peer = Self::greeted(server);
        peer.option(8, &[]);
        let mut data = b"\0\0\0\x06volume\0\0\0\x02".to_vec();
        for context in [CONTEXT_ALLOCATION, CONTEXT_INTEGRITY] {
            data.extend_from_slice(&u32::try_from(context.len()).unwrap().to_be_bytes());
            data.extend_from_slice(context.as_bytes());
        }
        assert_eq!(peer.option(10, &data).len(), 3);
        peer.option(7, b"\0\0\0\x06volume\0\0");
        peer
    }

    /// By the oldest way in, with simple replies.
    fn simple(server: &TestServer) -> Self {
        let mut peer = Self::greeted(server);
        peer.stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
        let reply = peer.bytes(10);
        peer.flags = TransmissionFlags(u16::from_be_bytes([reply[8], reply[9]]));
        peer
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn request(&mut self, command: Command, flags: CommandFlags, offset: u64, length: u32) -> u64 {
        self.cookie += 1;
        let request = Request { flags, command, cookie: self.cookie, offset, length };
        self.stream.write_all(&request.encode()).unwrap();
        self.cookie
    }

    fn ask(&mut self, command: Command, flags: CommandFlags, offset: u64, length: u32) -> Reply {
        let cookie = self.request(command, flags, offset, length);
        self.reply(cookie)
    }

    fn write(&mut self, flags: CommandFlags, offset: u64, data: &[u8]) -> Reply {
        let length = u32::try_from(data.len()).unwrap();
        let cookie = self.request(Command::Write, flags, offset, length);
        self.stream.write_all(data).unwrap();
        self.reply(cookie)
    }

    /// The next reply, which has to be to `cookie`.
    fn reply(&mut self, cookie: u64) -> Reply {
        let (found, reply) = self.any_reply();
        assert_eq!(found, cookie);
        reply
    }

    fn any_reply(&mut self) -> (u64, Reply) {
        let mut reply = Reply::default();
        loop {
            let mut head = self.bytes(SIMPLE_BYTES);
            if head[..4] == [0x66, 0x8e, 0x33, 0xef] {
                head.extend(self.bytes(CHUNK_BYTES - SIMPLE_BYTES));
            }
            let (header, _) = Header::decode(&head).unwrap().unwrap();
            let (cookie, done, kind, length) = match header {
                Header::Simple { cookie, error } => {
                    let message = String::new();
                    reply.error = error.map(|error| ErrorChunk { error, message, offset: None });
                    return (cookie, reply);
                }
                Header::Chunk { cookie, done, kind, length } => (cookie, done, kind, length),
            };
            let payload = self.bytes(usize_of(length.into()));
            match kind {
                ChunkKind::None => {}
                ChunkKind::OffsetData => {
                    let offset = u64::from_be_bytes(payload[..8].try_into().unwrap());
                    reply.data.push((offset, payload[8..].to_vec()));
                }
                ChunkKind::BlockStatus => {
                    reply.statuses.push(decode_block_status(&payload).unwrap());
                }
                _ => reply.error = Some(decode_error(kind, &payload).unwrap()),
            }
            if done {
                return (cookie, reply);
            }
        }
    }

    /// The server has hung up: nothing more comes.
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

fn plain() -> TestDevice {
    TestDevice::new(4 * MIB / 512, BlockSize::B4096, |_| {})
}

fn none() -> CommandFlags {
    CommandFlags::NONE
}

fn errno(reply: &Reply) -> Option<Errno> {
    reply.error.as_ref().map(|chunk| chunk.error)
}

#[test]
fn what_was_written_is_read_back_by_both_kinds_of_reply() {
    let server = TestServer::start(plain);
    let mut structured = Peer::structured(&server);
    let mut simple = Peer::simple(&server);
    assert!(structured.flags.contains(TransmissionFlags::SEND_DF));
    assert!(!simple.flags.contains(TransmissionFlags::SEND_DF));
    assert_eq!(structured.write(CommandFlags::FUA, 4095, b"across"), Reply::default());
    let reply = structured.ask(Command::Read, none(), 4094, 8);
    assert_eq!(reply.data, [(4094, b"\0across\0".to_vec())]);
    let cookie = simple.request(Command::Read, none(), 4095, 6);
    assert_eq!(simple.reply(cookie), Reply::default());
    assert_eq!(simple.bytes(6), b"across");
    // Sizes that do not fit in a receive, aligned and not.
    let large: Vec<u8> = (0..3 * MIB + 5).map(|n| n.to_le_bytes()[1] ^ 0x5a).collect();
    for offset in [0, 8192, 77] {
        assert_eq!(structured.write(none(), offset, &large), Reply::default());
        let length = u32::try_from(large.len()).unwrap();
        let reply = structured.ask(Command::Read, CommandFlags::DF, offset, length);
        assert_eq!(reply.data.len(), 1);
        assert!(reply.data[0].1 == large);
    }
    assert_eq!(structured.ask(Command::Flush, none(), 0, 0), Reply::default());
}

#[test]
fn requests_without_length_do_nothing_and_succeed() {
    let server = TestServer::start(plain);
    let mut peer = Peer::structured(&server);
    for command in [Command::Read, Command::Write, Command::Trim, Command::WriteZeroes] {
        assert_eq!(peer.ask(command, none(), 4 * MIB, 0), Reply::default(), "{command:?}");
    }
    let mut peer = Peer::simple(&server);
    assert_eq!(peer.ask(Command::Read, none(), 0, 0), Reply::default());
}

#[test]
fn what_cannot_be_done_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start(plain);
    let (mut a, mut b) = (Peer::structured(&server), Peer::simple(&server));
    for peer in [&mut a, &mut b] {
        let end = 4 * MIB;
        assert_eq!(errno(&peer.ask(Command::Read, none(), end, 1)), Some(Errno::EINVAL));
        assert_eq!(errno(&peer.write(none(), end - 1, b"xx")), Some(Errno::ENOSPC));
        assert_eq!(errno(&peer.ask(Command::Unknown(99), none(), 0, 1)), Some(Errno::EINVAL));
        assert_eq!(errno(&peer.ask(Command::Trim, CommandFlags::DF, 0, 1)), Some(Errno::EINVAL));
        // More than can be accepted at once is not stored, and the stream stays in frame.
        let huge = vec![7; usize_of(33 * MIB)];
        assert!(errno(&peer.write(none(), 0, &huge)).is_some());
        assert_eq!(peer.ask(Command::Flush, none(), 0, 0), Reply::default());
    }
    assert_eq!(errno(&b.ask(Command::BlockStatus, none(), 0, 1)), Some(Errno::EINVAL));
}

#[test]
fn a_read_only_export_cannot_be_changed() {
    let server = TestServer::start_with(None, 0, true, plain);
    let mut peer = Peer::structured(&server);
    assert!(peer.flags.contains(TransmissionFlags::READ_ONLY));
    assert_eq!(errno(&peer.write(none(), 0, b"x")), Some(Errno::EPERM));
    assert_eq!(errno(&peer.ask(Command::WriteZeroes, none(), 0, 1)), Some(Errno::EPERM));
    assert_eq!(peer.ask(Command::Read, none(), 0, 1).data, [(0, vec![0])]);
}

#[test]
fn damage_is_told_with_its_place_and_the_rest_is_served() {
    let server = TestServer::start(|| {
        let device = TestDevice::new(4 * MIB / 512, BlockSize::B512, |l| l.verified = true);
        device.bytes().fill(9);
        device.damage([20, 21, 40]);
        device
    });
    let mut peer = Peer::structured(&server);
    let reply = peer.ask(Command::Read, none(), 5000, 30000);
    let error = reply.error.clone().unwrap();
    assert_eq!((error.error, error.offset), (Errno::EIO, Some(20 * 512)));
    assert_eq!(error.message, "protection error at sector 20");
    let good: usize = reply.data.iter().map(|(_, data)| data.len()).sum();
    assert_eq!(good, 30000 - 3 * 512);
    assert!(reply.data.iter().all(|(_, data)| data.iter().all(|&b| b == 9)));

    let reply = peer.ask(Command::Read, CommandFlags::DF, 5000, 30000);
    assert!(reply.data.is_empty());
    assert_eq!(reply.error.unwrap().offset, Some(20 * 512));
    let reply = Peer::simple(&server).ask(Command::Read, none(), 5000, 30000);
    assert_eq!(errno(&reply), Some(Errno::EIO));

    // A write to a part of a damaged sector would have to invent the rest.
    let reply = peer.write(none(), 20 * 512 + 1, b"x");
    assert_eq!(reply.error.unwrap().offset, Some(20 * 512 + 1));
    assert_eq!(peer.write(none(), 20 * 512, &[9; 1024]), Reply::default());
    assert_eq!(peer.ask(Command::Read, none(), 20 * 512, 512).error, None);
}

#[test]
fn zeroes_are_fast_or_said_not_to_be() {
    let server = TestServer::start(plain);
    let mut peer = Peer::structured(&server);
    peer.write(none(), 0, &[1; 16384]);
    assert_eq!(peer.ask(Command::WriteZeroes, CommandFlags::FAST_ZERO, 4096, 4096).error, None);
    let flags = CommandFlags::FAST_ZERO | CommandFlags::NO_HOLE;
    let reply = peer.ask(Command::WriteZeroes, flags, 1, 4096);
    assert_eq!(errno(&reply), Some(Errno::ENOTSUP), "parts of blocks are plain writes");
    let reply = peer.ask(Command::WriteZeroes, CommandFlags::NO_HOLE, 8191, 2);
    assert_eq!(reply.error, None);
    let reply = peer.ask(Command::Read, none(), 0, 16384);
    let data = &reply.data[0].1;
    let zeroes: Vec<usize> = (0..data.len()).filter(|&i| data[i] == 0).collect();
    assert_eq!(zeroes, (4096..8193).collect::<Vec<_>>());

    let server = TestServer::start(|| {
        TestDevice::new(8192, BlockSize::B4096, |limits| {
            limits.fast_zeroes = false;
            limits.discard = false;
        })
    });
    let mut peer = Peer::structured(&server);
    assert!(!peer.flags.contains(TransmissionFlags::SEND_TRIM));
    let reply = peer.ask(Command::WriteZeroes, CommandFlags::FAST_ZERO, 0, 4096);
    assert_eq!(errno(&reply), Some(Errno::ENOTSUP));
    assert_eq!(errno(&peer.ask(Command::Trim, none(), 0, 4096)), Some(Errno::EINVAL));
    assert_eq!(peer.ask(Command::WriteZeroes, none(), 0, 4096).error, None);
    assert_eq!(peer.ask(Command::Cache, none(), 1, (4 << 20) - 1).error, None);
}

#[test]
fn states_are_told_by_context() {
    let server = TestServer::start(|| {
        let device = TestDevice::new(4 * MIB / 512, BlockSize::B512, |l| l.verified = true);
        device.damage([100, 101, 300]);
        device
    });
    let mut peer = Peer::with_contexts(&server);
    peer.write(none(), 1024, &[1; 1024]);
    let extent = |length, state| Extent { length, state };
    let reply = peer.ask(Command::BlockStatus, none(), 100, 200_000);
    let wanted = vec![extent(924, 3), extent(1024, 0), extent(198_052, 3)];
    assert_eq!(reply.statuses[0], (1, wanted));
    let wanted = vec![
        extent(51_100, 0),
        extent(1024, 1),
        extent(101_376, 0),
        extent(512, 1),
        extent(200_100 - 301 * 512, 0),
    ];
    assert_eq!(reply.statuses[1], (2, wanted));
    let reply = peer.ask(Command::BlockStatus, CommandFlags::REQ_ONE, 51_200, 10_000);
    assert_eq!(reply.statuses, [(1, vec![extent(10_000, 3)]), (2, vec![extent(1024, 1)])]);
}

#[test]
fn without_tags_nothing_is_known_and_nothing_is_read() {
    let server = TestServer::start(|| {
        let device = plain();
        device.damage([0]);
        device
    });
    let mut peer = Peer::with_contexts(&server);
    let reply = peer.ask(Command::BlockStatus, none(), 0, 1 << 20);
    assert_eq!(reply.statuses[1], (2, vec![Extent { length: 1 << 20, state: 0 }]));
}

#[test]
fn requests_overlap_and_are_answered_as_they_end() {
    let server = TestServer::start(|| {
        let device = plain();
        device.yield_times(5);
        device
    });
    let mut peer = Peer::structured(&server);
    let mut batch = Vec::new();
    for cookie in 0..2000u64 {
        let request = Request {
            flags: none(),
            command: Command::Read,
            cookie,
            offset: cookie * 512,
            length: 512,
        };
        batch.extend_from_slice(&request.encode());
    }
    let mut sender = peer.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&batch).unwrap());
    let mut seen = vec![false; 2000];
    for _ in 0..2000 {
        let (cookie, reply) = peer.any_reply();
        assert!(!std::mem::replace(&mut seen[usize_of(cookie)], true));
        assert_eq!(reply.data[0].0, cookie * 512);
    }
    sending.join().unwrap();
    assert!(seen.into_iter().all(|seen| seen));
}

#[test]
fn hostile_clients_cost_only_their_own_connection() {
    let server = TestServer::start(plain);
    let mut honest = Peer::structured(&server);

    let mut garbage = Peer::connect(&server);
    garbage.stream.write_all(&[0xff; 1000]).unwrap();
    garbage.bytes(18);
    garbage.expect_end();

    let mut garbage = Peer::structured(&server);
    garbage.stream.write_all(&[0x42; 1 << 20]).ok();
    garbage.expect_end();

    // Half a request, half a payload, half an option, and gone.
    let mut gone = Peer::structured(&server);
    gone.stream.write_all(&[0x25, 0x60]).unwrap();
    drop(gone);
    let mut gone = Peer::structured(&server);
    gone.request(Command::Write, none(), 0, 32 << 20);
    gone.stream.write_all(&[1; 100_000]).unwrap();
    drop(gone);
    let mut gone = Peer::greeted(&server);
    gone.stream.write_all(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff").unwrap();
    drop(gone);
    // A thousand replies that nobody reads, and gone.
    let mut gone = Peer::structured(&server);
    let request =
        Request { flags: none(), command: Command::Read, cookie: 0, offset: 0, length: 1 << 20 };
    gone.stream.write_all(&request.encode().repeat(1000)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    // A lying length that never comes.
    let mut liar = Peer::structured(&server);
    liar.request(Command::Write, none(), 0, u32::MAX);

    assert_eq!(honest.write(none(), 0, b"still here"), Reply::default());
    assert_eq!(honest.ask(Command::Read, none(), 0, 10).data, [(0, b"still here".to_vec())]);
}

#[test]
fn a_write_whose_client_disappears_before_its_last_byte_is_not_done() {
    let server = TestServer::start(plain);
    let mut gone = Peer::structured(&server);
    gone.request(Command::Write, none(), 0, 8192);
    gone.stream.write_all(&[1; 8191]).unwrap();
    gone.stream.shutdown(std::net::Shutdown::Write).unwrap();
    gone.expect_end();
    let reply = Peer::structured(&server).ask(Command::Read, none(), 0, 8192);
    assert!(reply.data[0].1.iter().all(|&b| b == 0));
}

#[test]
fn a_goodbye_is_answered_by_what_was_asked_before() {
    let server = TestServer::start(|| {
        let device = plain();
        device.yield_times(20);
        device
    });
    let mut peer = Peer::structured(&server);
    for n in 0..50 {
        peer.request(Command::Read, none(), n * 4096, 4096);
    }
    peer.request(Command::Disconnect, none(), 0, 0);
    for _ in 0..50 {
        assert_eq!(peer.any_reply().1.error, None);
    }
    peer.expect_end();
}

#[test]
fn the_budget_bounds_what_is_held_and_starves_nobody() {
    // 80 MiB for 8 clients that each want 32 MiB several times over, reading and writing.
    let server = TestServer::start_with(None, 1, false, || {
        TestDevice::new(64 * MIB / 512, BlockSize::B4096, |_| {})
    });
    let clients: Vec<_> = (0..8u64)
        .map(|n| {
            let mut peer = Peer::structured(&server);
            std::thread::spawn(move || {
                let data = vec![1; 32 << 20];
                for round in 0..3 {
                    let (offset, length) = ((n + round) * MIB, 32 << 20);
                    if (n + round) % 2 == 0 {
                        assert_eq!(peer.write(none(), offset + n % 3, &data), Reply::default());
                        continue;
                    }
                    let cookies: Vec<_> = (0..3)
                        .map(|_| peer.request(Command::Read, none(), offset + n % 3, length))
                        .collect();
                    for _ in cookies {
                        assert_eq!(peer.any_reply().1.data[0].1.len(), 32 << 20);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_client_that_holds_the_buffers_and_stops_is_cut_off() {
    let server = TestServer::start_with(None, 1, false, || {
        TestDevice::new(64 * MIB / 512, BlockSize::B4096, |_| {})
    });
    let mut idle = Peer::structured(&server);
    // Two that announce more than they send take most of 80 MiB; one does not take its reply.
    let mut stuck: Vec<Peer> = (0..2).map(|_| Peer::structured(&server)).collect();
    for peer in &mut stuck {
        peer.request(Command::Write, none(), 0, 32 << 20);
    }
    let mut deaf = Peer::structured(&server);
    deaf.request(Command::Read, none(), 0, 14 << 20);
    std::thread::sleep(Duration::from_millis(200));
    // Nobody is cut off while nobody else needs the buffers, however long that is.
    let mut wanting = Peer::structured(&server);
    let reply = wanting.ask(Command::Read, none(), 0, 32 << 20);
    assert_eq!(reply.data[0].1.len(), 32 << 20);
    stuck.iter_mut().for_each(Peer::expect_end);
    // Who was only idle is still there.
    assert_eq!(idle.ask(Command::Read, none(), 0, 1).data.len(), 1);
}

#[test]
fn a_client_that_does_not_shake_hands_is_cut_off() {
    let server = TestServer::start(plain);
    let mut silent = Peer::connect(&server);
    silent.bytes(18);
    silent.expect_end();
}

#[test]
fn stopping_finishes_what_is_under_way_and_takes_nothing_new() {
    let server = TestServer::start(|| {
        let device = plain();
        device.yield_times(1000);
        device
    });
    let mut idle = Peer::structured(&server);
    let half = Peer::structured(&server);
    (&half.stream).write_all(&[0x25, 0x60]).unwrap();
    let mut busy = Peer::structured(&server);
    let cookie = busy.request(Command::Read, none(), 0, 4096);
    std::thread::sleep(Duration::from_millis(20));
    server.stop();
    assert_eq!(busy.reply(cookie).error, None);
    busy.expect_end();
    idle.expect_end();
    let Address::Unix(path) = server.address.clone() else { panic!() };
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_second_server_is_told_who_is_there() {
    let server = TestServer::start(plain);
    let error = Server::bind(&server.address).err().unwrap();
    assert_eq!(error.to_string(), format!("{} is in use by a running server", server.address));
    let _: Export = Export::default();
    Peer::structured(&server);
}
