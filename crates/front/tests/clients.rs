//! The clients that people have, against our server over a device in memory: libnbd's tools,
//! QEMU's, and fio. `cargo xtask ci` installs their packages.

#[path = "../src/nbd/test_device.rs"]
mod test_device;
#[path = "../src/nbd/test_server.rs"]
mod test_server;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use steadfast_front::nbd::{Address, Export, Server};
use test_device::TestDevice;
use test_server::TestServer;
use units::BlockSize;

const MIB: usize = 1 << 20;
const SECTORS: u64 = 64 << 11;

/// Runs a client and gives whether it succeeded, and what it printed.
fn attempt<I: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = I>,
) -> (bool, String) {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{program} does not start ({error}): apt-get install {package}"),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Runs a client to its success and gives what it printed.
fn run<I: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = I>,
) -> String {
    let (success, text) = attempt(program, package, arguments);
    assert!(success, "{program}: {text}");
    text
}

fn nbdinfo<const N: usize>(arguments: [&str; N]) -> String {
    run("nbdinfo", "libnbd-bin", arguments)
}

fn nbdcopy<const N: usize>(arguments: [&str; N]) -> String {
    run("nbdcopy", "libnbd-bin", arguments)
}

fn qemu_img<const N: usize>(arguments: [&str; N]) -> String {
    run("qemu-img", "qemu-utils", arguments)
}

/// Runs qemu-io commands. Older ones exit with success whatever was read, so that their words
/// are looked at too.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut arguments = vec!["-f", "raw", "-t", "none"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(uri);
    let text = run("qemu-io", "qemu-utils", arguments);
    for bad in ["failed", "rror", "invalid"] {
        assert!(!text.contains(bad), "{text}");
    }
    text
}

fn fio(folder: &Path, job: &str, arguments: &[&str]) {
    let file = folder.join("job.fio");
    std::fs::write(&file, job).expect("the folder is ours");
    let mut all = vec!["--ioengine=nbd", "--eta=never"];
    all.extend(arguments);
    let text = run("fio", "fio", all.into_iter().map(OsStr::new).chain([file.as_os_str()]));
    assert!(!text.contains("verify: bad"), "{text}");
}

fn plain() -> TestDevice {
    TestDevice::new(SECTORS, BlockSize::B4096, |_| {})
}

/// Neither zeroes nor repeating: what is misplaced is noticed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Holes, zeroes and noise.
fn sample(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 64 * MIB];
    bytes[MIB..9 * MIB].copy_from_slice(&noise(8 * MIB));
    bytes[40 * MIB + 512..41 * MIB].copy_from_slice(&noise(MIB - 512));
    std::fs::write(path, &bytes).expect("the folder is ours");
    bytes
}

#[test]
fn nbdinfo_finds_everything_that_is_offered() {
    let server = TestServer::start(plain);
    let text = nbdinfo(["--json", &server.uri]);
    for wanted in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        "\"export-name\": \"volume\"",
        "\"description\": \"a test\"",
        "\"export-size\": 67108864",
        "\"can_multi_conn\": true",
        "\"can_flush\": true",
        "\"can_fua\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"can_fast_zero\": true",
        "\"can_cache\": true",
        "\"can_df\": true",
        "\"is_read_only\": false",
        "\"block_size_minimum\": 1",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
        "base:allocation",
        "steadfast:integrity",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
    }
    let Address::Unix(path) = &server.address else { panic!("a Unix socket") };
    let list = nbdinfo(["--list", &format!("nbd+unix://?socket={}", path.display())]);
    assert!(list.contains("export=\"volume\":"), "{list}");
}

#[test]
fn nbdinfo_maps_both_contexts() {
    let server = TestServer::start(|| {
        let device = TestDevice::new(SECTORS, BlockSize::B512, |limits| limits.verified = true);
        device.damage([2048, 2049, 100_000]);
        device
    });
    qemu_io(&server.uri, &["write -P 1 1M 64k"]);
    let map = nbdinfo(["--map", &server.uri]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["0", "1048576", "3", "hole,zero"]);
    assert_eq!(lines[1], ["1048576", "65536", "0", "data"]);
    assert_eq!(lines[2][..3], ["1114112", "65994752", "3"]);
    // The write above has made the first two sectors readable again.
    let map = nbdinfo(["--map=steadfast:integrity", &server.uri]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["0", "51200000", "0"]);
    assert_eq!(lines[1][..3], ["51200000", "512", "1"]);
    assert_eq!(lines[2][..3], ["51200512", "15908352", "0"]);
    assert_eq!(lines.len(), 3);
}

#[test]
fn nbdcopy_copies_in_and_out() {
    let server = TestServer::start(plain);
    let (source, target) = (server.folder().join("source"), server.folder().join("target"));
    let bytes = sample(&source);
    let (source, target) = (source.to_str().unwrap(), target.to_str().unwrap());
    nbdcopy([source, &server.uri]);
    nbdcopy([&server.uri, target]);
    assert!(std::fs::read(target).unwrap() == bytes);
    // Several connections, and one request at a time.
    nbdcopy(["--connections=4", "--requests=16", source, &server.uri]);
    nbdcopy(["--connections=1", "--requests=1", "--request-size=524288", &server.uri, target]);
    assert!(std::fs::read(target).unwrap() == bytes);
}

#[test]
fn qemu_img_converts_and_compares() {
    let server = TestServer::start(plain);
    let (source, target) = (server.folder().join("source"), server.folder().join("target"));
    let bytes = sample(&source);
    let (source, target) = (source.to_str().unwrap(), target.to_str().unwrap());
    qemu_img(["convert", "-n", "-f", "raw", "-O", "raw", source, &server.uri]);
    qemu_img(["compare", "-f", "raw", "-F", "raw", source, &server.uri]);
    qemu_img(["convert", "-f", "raw", "-O", "raw", &server.uri, target]);
    assert!(std::fs::read(target).unwrap() == bytes);
    let map = qemu_img(["map", "-f", "raw", "--output=json", &server.uri]);
    assert!(map.contains("\"zero\": true"), "{map}");
}

#[test]
fn qemu_io_reads_writes_zeroes_and_discards_at_any_offset() {
    let server = TestServer::start(plain);
    qemu_io(
        &server.uri,
        &[
            "write -P 0x11 0 1M",
            "read -P 0x11 0 1M",
            "write -P 0x22 1 4095",
            "read -P 0x11 0 1",
            "read -P 0x22 1 4095",
            "read -P 0x11 4096 4096",
            "write -P 0x33 5000 3",
            "read -P 0x33 5000 3",
            "read -P 0x11 5003 1000",
            "write -z 8000 1000",
            "read -P 0 8000 1000",
            "read -P 0x11 9000 1000",
            "write -z -u 64k 64k",
            "read -P 0 64k 64k",
            "discard 128k 64k",
            "read -P 0 128k 64k",
            "discard 200001 70000",
            "write -f -P 0x44 1M 32M",
            "read -P 0x44 1M 32M",
            "flush",
            "aio_write -P 0x55 40M 1M",
            "aio_read -P 0 50M 1M",
            "aio_flush",
            "read -P 0x55 40M 1M",
        ],
    );
}

#[test]
fn qemu_io_hears_of_damage() {
    let server = TestServer::start(|| {
        let device = plain();
        device.damage([2048]);
        device
    });
    let arguments = ["-f", "raw", "-c", "read 1M 4k", &server.uri];
    let (success, text) = attempt("qemu-io", "qemu-utils", arguments);
    assert!(!success && text.contains("read failed: Input/output error"), "{text}");
    qemu_io(&server.uri, &["read 0 1M", "write 1M 4k", "read 1M 4k"]);
}

#[test]
fn fio_verifies_what_it_wrote() {
    let server = TestServer::start(plain);
    let job = format!(
        "[verify]\nuri={}\nrw=randwrite\nbs=4k\niodepth=32\nverify=crc32c\ndo_verify=1\n\
         verify_fatal=1\nsize=64m\n",
        server.uri
    );
    fio(&server.folder(), &job, &[]);
}

#[test]
fn fio_mixes_sizes_and_operations_over_two_connections() {
    let server = TestServer::start(|| {
        let device = plain();
        device.yield_times(2);
        device
    });
    let job = format!(
        "[global]\nuri={}\nrw=randrw\nbsrange=512-256k\nbs_unaligned=1\niodepth=32\n\
         verify=crc32c\nverify_fatal=1\nserialize_overlap=1\nsize=16m\n\
         [a]\noffset=0\n[b]\noffset=32m\n[trim]\nrw=randtrim\nbs=4k\nverify=0\noffset=56m\nsize=8m\n",
        server.uri
    );
    fio(&server.folder(), &job, &[]);
}

#[test]
fn two_connections_see_each_others_flushed_writes() {
    let server = TestServer::start(plain);
    qemu_io(&server.uri, &["write -P 0x66 3M 1M", "flush"]);
    let uri = server.uri.clone();
    let other = std::thread::spawn(move || qemu_io(&uri, &["read -P 0x66 3M 1M"; 50]));
    qemu_io(&server.uri, &["write -P 0x77 5M 1M"; 50]);
    other.join().unwrap();
    qemu_io(&server.uri, &["read -P 0x77 5M 1M"]);
}

#[test]
fn tcp_serves_loopback_only() {
    let address = Address::parse("tcp:127.0.0.1:0").unwrap();
    let server = TestServer::start_with(Some(address), 0, true, plain);
    assert!(server.uri.starts_with("nbd://127.0.0.1:"));
    let text = nbdinfo(["--json", &server.uri]);
    assert!(text.contains("\"is_read_only\": true"), "{text}");
    let target = server.folder().join("target");
    nbdcopy([&server.uri, target.to_str().unwrap()]);
    let refused = Server::bind(&Address::parse("tcp:0.0.0.0:0").unwrap()).err().unwrap();
    assert!(refused.to_string().contains("not a loopback address"));
    let _: Export = Export::default();
}
