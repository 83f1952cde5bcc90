//! Against servers that people have, and against one that is scripted and lies.

use super::*;
use nbd::Request;
use nbd::reply::{self, Extent};
use runtime::{Runtime, spawn};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::thread::JoinHandle;

const MIB: usize = 1 << 20;

fn uri(socket: &Path, export: &str) -> Uri {
    Uri::Unix { socket: socket.to_owned(), export: export.to_owned() }
}

fn on_runtime<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    Runtime::new().unwrap().block_on(future)
}

/// A server program, ended with the test.
struct Program {
    child: Child,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Program {
    fn start(name: &str, package: &str, arguments: impl Fn(&Path, &Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let arguments = arguments(&socket, folder.path());
        let child = match Process::new(name).args(arguments).spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name} does not start ({error}): apt-get install {package}"),
        };
        for _ in 0..500 {
            if UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, socket, folder }
    }

    fn nbdkit(plugin: &[&str]) -> Self {
        Self::start("nbdkit", "nbdkit", |socket, _| {
            let socket = socket.to_str().unwrap();
            let mut all = vec!["-f", "-U", socket];
            all.extend(plugin);
            all.into_iter().map(str::to_owned).collect()
        })
    }

    /// QEMU's server over a file of 64 MiB, all of it a hole.
    fn qemu_nbd() -> Self {
        Self::start("qemu-nbd", "qemu-utils", |socket, folder| {
            let file = folder.join("disk");
            std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
            let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
            let fixed = ["--persistent", "-f", "raw", "-x", "disk", "--discard=unmap", "-k"];
            fixed.into_iter().chain([socket, file]).map(str::to_owned).collect()
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Every operation, at sizes from a sector to more than one request takes.
async fn exercise(device: bio::Device) {
    let noise = |length: usize, seed: usize| {
        let mut buf = Buf::alloc(length);
        for (index, byte) in buf.as_mut_slice().iter_mut().enumerate() {
            *byte = u8::try_from((index * 31 + index / 251 + seed) % 251).unwrap();
        }
        buf
    };
    for (round, sectors) in [1u64, 8, 100, 2048, 100_000].into_iter().enumerate() {
        let data = noise(usize_of(sectors * 512), round);
        let wanted = data.as_slice().to_vec();
        let sector = Sector(sectors % 7 * 8);
        device.write(sector, data).await.unwrap();
        assert!(device.read(sector, sectors).await.unwrap().as_slice() == wanted);
        // The same into many small buffers.
        let pieces: Segments = (0..sectors.min(3000)).map(|_| Buf::alloc(512)).collect();
        let mut bio = Bio::read_into(sector, pieces);
        device.submit(&mut bio).await.unwrap();
        let length = bio.data.len_bytes();
        assert!(bio.data.to_single().as_slice() == &wanted[..length]);
    }
    device.submit(&mut Bio::write_fua(Sector(0), noise(4096, 9))).await.unwrap();
    device.submit(&mut Bio::write_zeroes(Sector(8), 8, false)).await.unwrap();
    device.flush().await.unwrap();
    let read = device.read(Sector(0), 16).await.unwrap();
    assert_eq!(read.as_slice()[..4096], *noise(4096, 9).as_slice());
    assert!(read.as_slice()[4096..].iter().all(|&b| b == 0));
    if device.limits().discard {
        device.submit(&mut Bio::discard(Sector(1024), 65536)).await.unwrap();
        let read = device.read(Sector(1024), 65536).await.unwrap();
        assert!(read.as_slice().iter().all(|&b| b == 0));
    }
    let tasks: Vec<_> = (0..500u64)
        .map(|n| {
            let device = device.clone();
            spawn(async move {
                let data = Buf::copy_of(&[u8::try_from(n % 256).unwrap(); 4096]);
                device.write(Sector(n * 8), data).await.unwrap();
                let read = device.read(Sector(n * 8), 8).await.unwrap();
                assert!(read.as_slice().iter().all(|&b| u64::from(b) == n % 256));
            })
        })
        .collect();
    join_all(tasks).await;
}

#[test]
fn nbdkit_is_a_member() {
    let server = Program::nbdkit(&["memory", "64M"]);
    let uri = uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        let limits = device.limits();
        assert_eq!((limits.sectors, limits.logical_block), (131_072, BlockSize::B512));
        assert!(limits.discard && !limits.read_only && !limits.verified);
        let runs = device.allocation(Sector(0), 131_072).await.unwrap();
        assert_eq!(runs, [Allocation { sectors: 131_072, hole: true }]);
        exercise(device.clone()).await;
        let runs = device.allocation(Sector(0), 131_072).await.unwrap();
        assert!(runs.len() > 1 && !runs[0].hole, "{runs:?}");
    });
}

#[test]
fn qemu_nbd_is_a_member() {
    let server = Program::qemu_nbd();
    assert!(server.folder.path().exists());
    let uri = uri(&server.socket, "disk");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        exercise(device).await;
    });
}

#[test]
fn a_server_with_as_little_as_possible_is_a_member() {
    let server = Program::nbdkit(&["--no-sr", "--filter=nozero", "memory", "64M"]);
    let uri = uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        assert!(!device.limits().discard && !device.limits().fast_zeroes);
        let runs = device.allocation(Sector(5), 100).await.unwrap();
        assert_eq!(runs, [Allocation { sectors: 100, hole: false }]);
        exercise(device).await;
    });
}

#[test]
fn errors_of_the_server_are_the_members() {
    let server = Program::nbdkit(&["--filter=error", "memory", "64M", "error-pread-rate=100%"]);
    let uri = uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        assert_eq!(device.read(Sector(8), 8).await.unwrap_err().kind, IoErrorKind::Medium);
        device.write(Sector(8), Buf::zeroed(4096)).await.unwrap();
    });
    let server = Program::nbdkit(&["-r", "memory", "64M"]);
    let uri = self::uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        assert!(device.limits().read_only);
        let error = device.write(Sector(8), Buf::zeroed(4096)).await.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::ReadOnly);
    });
}

#[test]
fn a_server_that_dies_leaves_everybody_unavailable() {
    let server = Program::nbdkit(&["--filter=delay", "memory", "64M", "rdelay=60"]);
    let uri = uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        let waiting: Vec<_> = (0..10u64)
            .map(|n| {
                let device = device.clone();
                spawn(async move { device.read(Sector(n), 1).await.unwrap_err().kind })
            })
            .collect();
        runtime::sleep(Duration::from_millis(50)).await;
        drop(server);
        let kinds = join_all(waiting).await;
        assert!(kinds.iter().all(|&kind| kind == IoErrorKind::Unavailable));
        assert_eq!(device.flush().await.unwrap_err().kind, IoErrorKind::Unavailable);
        let error = device.write(Sector(8), Buf::zeroed(512)).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Unavailable.at(Sector(8)));
    });
}

#[test]
fn what_is_not_there_is_said_not_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = uri(&folder.path().join("nobody"), "");
    let error = on_runtime(async move { NbdDevice::connect(&nobody).await.err().unwrap() });
    assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
    let nowhere = Uri::parse("nbd://no-such-host.invalid/").unwrap();
    let error = on_runtime(async move { NbdDevice::connect(&nowhere).await.err().unwrap() });
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
    let server = Program::qemu_nbd();
    let other = uri(&server.socket, "other");
    let error = on_runtime(async move { NbdDevice::connect(&other).await.err().unwrap() });
    assert!(error.to_string().contains("export unknown"), "{error}");
}

/// A server for one client that follows a script after the handshake, with structured replies and
/// `base:allocation` as number 1.
struct Scripted {
    uri: Uri,
    thread: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Scripted {
    fn start(script: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        Self::start_with(0x0ffd, script)
    }

    fn start_with(flags: u16, script: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            shake_hands(&mut stream, flags);
            script(&mut stream);
        });
        Self { uri: uri(&socket, "volume"), thread, _folder: folder }
    }

    /// Runs `client` against it.
    fn serve<F: Future<Output = ()> + 'static>(
        self,
        client: impl FnOnce(bio::Device) -> F + 'static,
    ) {
        let uri = self.uri.clone();
        on_runtime(async move {
            let device = NbdDevice::connect(&uri).await.unwrap();
            client(bio::Device::new(device)).await;
        });
        self.thread.join().unwrap();
    }
}

fn shake_hands(stream: &mut UnixStream, flags: u16) {
    let export = nbd::Export {
        name: "volume".to_owned(),
        description: String::new(),
        size: 1 << 20,
        flags: TransmissionFlags(flags),
        sizes: nbd::BlockSizes::DEFAULT,
        contexts: vec![nbd::CONTEXT_ALLOCATION.to_owned()],
    };
    let mut handshake = nbd::ServerHandshake::new(Rc::new([export]));
    stream.write_all(&handshake.greeting()).unwrap();
    let mut input = Vec::new();
    loop {
        let step = handshake.step(&input).unwrap();
        input.drain(..step.consumed);
        stream.write_all(&step.reply).unwrap();
        match step.next {
            nbd::ServerNext::Transmit(_) => return,
            nbd::ServerNext::Receive => {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                input.push(byte[0]);
            }
            _ => {}
        }
    }
}

fn next(stream: &mut UnixStream) -> Request {
    let mut bytes = [0; Request::BYTES];
    stream.read_exact(&mut bytes).unwrap();
    Request::decode(&bytes).unwrap()
}

fn data(stream: &mut UnixStream, cookie: u64, done: bool, offset: u64, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap();
    // A client that hangs up at the header does not wait for the rest.
    stream.write_all(&reply::offset_data(cookie, done, offset, length)).unwrap();
    drop(stream.write_all(data));
}

#[test]
fn content_may_come_in_any_order_and_replies_too() {
    let server = Scripted::start(|stream| {
        let (a, b) = (next(stream), next(stream));
        data(stream, b.cookie, false, b.offset + 512, &[2; 512]);
        data(stream, a.cookie, true, a.offset, &[7; 1024]);
        let mut hole = Vec::new();
        reply::offset_hole(&mut hole, b.cookie, false, b.offset, 512);
        stream.write_all(&hole).unwrap();
        stream.write_all(&reply::none(b.cookie)).unwrap();
        assert_eq!(next(stream).command, Command::Disconnect);
    });
    server.serve(|device| async move {
        let other = device.clone();
        let a = spawn(async move { other.read(Sector(0), 2).await.unwrap() });
        let other = device.clone();
        let b = spawn(async move { other.read(Sector(4), 2).await.unwrap() });
        assert_eq!(a.await.as_slice(), [7; 1024]);
        assert_eq!(b.await.as_slice(), [[0; 512], [2; 512]].as_flattened());
        // The goodbye is sent by a task of its own.
        drop(device);
        runtime::sleep(Duration::from_millis(50)).await;
    });
}

#[test]
fn an_error_carries_its_place() {
    let server = Scripted::start(|stream| {
        let request = next(stream);
        data(stream, request.cookie, false, 4096, &[1; 1024]);
        let mut last = Vec::new();
        reply::error_offset(&mut last, request.cookie, Errno::EIO, "bad sector", 5120);
        stream.write_all(&last).unwrap();
        let request = next(stream);
        stream.read_exact(&mut [0; 512]).unwrap();
        stream.write_all(&reply::simple(request.cookie, Some(Errno::ENOSPC))).unwrap();
        let request = next(stream);
        let extents = [(100, 3), (1000, 0), (3000, 3), (500, 2)];
        let extents = extents.map(|(length, state)| Extent { length, state });
        let mut status = Vec::new();
        reply::block_status(&mut status, request.cookie, true, 1, &extents);
        stream.write_all(&status).unwrap();
    });
    server.serve(|device| async move {
        let error = device.read(Sector(8), 8).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Medium.at(Sector(10)));
        let error = device.write(Sector(8), Buf::zeroed(512)).await.unwrap_err();
        assert_eq!(error, IoErrorKind::NoSpace.at(Sector(8)));
        let runs = device.allocation(Sector(0), 100).await.unwrap();
        let run = |sectors, hole| Allocation { sectors, hole };
        assert_eq!(runs, [run(3, false), run(5, true), run(1, false)]);
    });
}

#[test]
fn without_fua_a_flush_makes_a_write_durable() {
    let without_fua = 0x0ffd & !TransmissionFlags::SEND_FUA.0;
    let server = Scripted::start_with(without_fua, |stream| {
        let request = next(stream);
        assert_eq!((request.command, request.flags), (Command::Write, CommandFlags::NONE));
        stream.read_exact(&mut [0; 512]).unwrap();
        stream.write_all(&reply::simple(request.cookie, None)).unwrap();
        let request = next(stream);
        assert_eq!(request.command, Command::Flush);
        stream.write_all(&reply::simple(request.cookie, None)).unwrap();
    });
    server.serve(|device| async move {
        device.submit(&mut Bio::write_fua(Sector(0), Buf::zeroed(512))).await.unwrap();
    });
}

/// Every lie ends the connection, and the reader has its buffers back with an error.
#[test]
fn lies_end_the_connection() {
    type Lie = fn(&mut UnixStream, Request);
    let lies: [(&str, Lie); 12] = [
        ("garbage", |stream, _| drop(stream.write_all(&[0x55; 100]))),
        ("a stranger", |stream, r| drop(stream.write_all(&reply::none(r.cookie + 1)))),
        ("a simple reply to a read", |stream, r| {
            drop(stream.write_all(&reply::simple(r.cookie, None)));
        }),
        ("too little", |stream, r| data(stream, r.cookie, true, r.offset, &[1; 512])),
        ("nothing", |stream, r| drop(stream.write_all(&reply::none(r.cookie)))),
        ("before", |stream, r| data(stream, r.cookie, true, r.offset - 512, &[1; 1024])),
        ("beyond", |stream, r| data(stream, r.cookie, true, r.offset + 512, &[1; 1024])),
        ("far beyond", |stream, r| data(stream, r.cookie, true, u64::MAX - 1, &[1; 1024])),
        ("twice", |stream, r| {
            data(stream, r.cookie, false, r.offset, &[1; 1024]);
            data(stream, r.cookie, true, r.offset, &[1; 1024]);
        }),
        ("states", |stream, r| {
            let mut status = Vec::new();
            let extents = [Extent { length: 1, state: 0 }];
            reply::block_status(&mut status, r.cookie, true, 1, &extents);
            stream.write_all(&status).unwrap();
        }),
        ("an error elsewhere", |stream, r| {
            let mut last = Vec::new();
            reply::error_offset(&mut last, r.cookie, Errno::EIO, "", 0);
            stream.write_all(&last).unwrap();
        }),
        ("half of it", |stream, r| {
            stream.write_all(&reply::offset_data(r.cookie, true, r.offset, 1024)).unwrap();
            stream.write_all(&[1; 100]).unwrap();
        }),
    ];
    for (name, lie) in lies {
        let server = Scripted::start(move |stream| {
            let request = next(stream);
            lie(stream, request);
            drop(stream.shutdown(std::net::Shutdown::Write));
        });
        server.serve(move |device| async move {
            let mut bio = Bio::read(Sector(8), 2);
            let error = device.submit(&mut bio).await.unwrap_err();
            assert_eq!(error.kind, IoErrorKind::Unavailable, "{name}");
            assert_eq!(bio.data.len_bytes(), 1024, "{name}");
            assert!(device.read(Sector(0), 1).await.is_err(), "{name}");
        });
    }
}

#[test]
fn a_read_in_pieces_is_put_together_in_order() {
    let server = Program::nbdkit(&["pattern", "256M"]);
    let uri = uri(&server.socket, "");
    on_runtime(async move {
        let device = bio::Device::new(NbdDevice::connect(&uri).await.unwrap());
        let read = device.read(Sector(3), u64_of(80 * MIB) / 512).await.unwrap();
        for (index, word) in read.as_slice().as_chunks().0.iter().enumerate() {
            assert_eq!(u64::from_be_bytes(*word), u64_of(index * 8) + 3 * 512);
        }
    });
}

#[test]
fn runs_are_whole_sectors() {
    let extents = |list: &[(u32, u32)]| -> Vec<Extent> {
        list.iter().map(|&(length, state)| Extent { length, state }).collect()
    };
    let told = |list: &[(u32, u32)], sectors| -> Vec<(u64, bool)> {
        runs(&extents(list), sectors).iter().map(|run| (run.sectors, run.hole)).collect()
    };
    assert_eq!(told(&[(1024, 3), (512, 0)], 9), [(2, true), (1, false)]);
    assert_eq!(told(&[(100, 3)], 9), [(1, false)], "a part of a sector is no hole");
    assert_eq!(told(&[(1, 0), (5119, 3)], 9), [(1, false), (8, true)]);
    assert_eq!(told(&[(600, 3), (600, 0), (1400, 3)], 9), [(1, true), (2, false), (2, true)]);
    assert_eq!(told(&[(512, 3), (512, 1), (512, 2)], 9), [(1, true), (2, false)]);
    assert_eq!(told(&[(u32::MAX, 3)], 4), [(4, true)]);
}
