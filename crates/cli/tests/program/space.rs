//! No space left where the members lie: the client's error, and the volume stays whole.

use crate::support::{
    MIB, PROGRAM, Server, Shape, Volume, at_home, finish, noise, other, qemu_io, text,
};
use std::fs;
use std::process::Command;

#[test]
fn a_device_without_space_is_the_clients_error_and_the_volume_stays_whole() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    let mut bytes = volume.fill(17);
    let (_, byte, _) = volume.place(8192);
    let first = byte / 512;
    let rule = format!("write:{first}-{}:nospace", first + 2048);
    let stack = format!("integrity(fault(file:{}, {rule}))", text(&volume.members[0]));
    let server = Server::start(&[], volume.folder.path(), &["--stack", &stack]);
    qemu_io(&server.uri, "write -P 1 0 1M").unwrap_or_else(|text| panic!("{text}"));
    bytes[..1 << 20].fill(1);
    let full = other(
        "qemu-io",
        "qemu-utils",
        ["-f", "raw", "-t", "none", "-c", "write -P 2 4M 1M", "-c", "flush", &server.uri],
    );
    assert!(full.to_string().contains("No space left on device"), "{full}");
    qemu_io(&server.uri, "read -P 1 0 1M").unwrap_or_else(|text| panic!("{text}"));
    let said = server.stop();
    assert_ne!(said.code, 0, "{said}");
    assert!(!said.stderr.contains("panicked"), "{said}");

    // With space again, every block is old or new, and readable.
    volume.run("scrub", &["-q"]).ended(0);
    let (code, exported) = volume.export();
    assert_eq!(code, 0);
    for (index, (found, old)) in exported.chunks(4096).zip(bytes.chunks(4096)).enumerate() {
        let new = (1024..1280).contains(&index) && found.iter().all(|&byte| byte == 2);
        assert!(new || found == old, "block {index} is neither old nor new");
    }
}

/// Imports into a volume on a file system that is full before it is done; then there is room
/// again. Prints exit codes; in a mount namespace, so that nothing stays behind.
const FULL: &str = r#"
mount -t tmpfs -o size=20m none "$1" || { echo "cannot mount"; exit 9; }
shift
run() { "$PROGRAM" "$@" 2>> "$ERRORS"; echo "$1 $?"; }
run create -q "$@" --size 32M $OPTIONS
run import -q "$@" --from "$SOURCE"
run scrub -q --check "$@"
mount -o remount,size=256m none "${1%/*}"
run scrub -q "$@"
run scrub -q --check "$@"
run import -q "$@" --from "$SOURCE" --length 4M
run export -q "$@" --to "$TARGET" --length 4M
"#;

#[test]
fn a_full_file_system_ends_an_import_and_leaves_the_volume_whole() {
    for (options, members) in [
        ("", &["a"][..]),
        ("--sector-size 512", &["a"]),
        ("--level 5", &["a", "b", "c"]),
        ("--level 1 --integrity none", &["a", "b"]),
    ] {
        let folder = tempfile::tempdir().expect("there is room");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mnt")).expect("the folder is ours");
        fs::write(path("source"), noise(28 * MIB, 18)).expect("there is room");
        let mut command = at_home(Command::new("unshare"));
        command.args(["--map-root-user", "--mount", "sh", "-c", FULL, "sh"]).arg(path("mnt"));
        command.args(members.iter().map(|member| path("mnt").join(member)));
        command.env("PROGRAM", PROGRAM).env("OPTIONS", options).env("SOURCE", path("source"));
        command.env("TARGET", path("target")).env("ERRORS", path("errors"));
        let said = finish(command);
        let errors = fs::read_to_string(path("errors")).unwrap_or_default();
        let codes: Vec<String> = said.text().lines().map(str::to_owned).collect();
        let told = format!("{options}: {said}\n{errors}");
        assert!(errors.contains("No space left") || errors.contains("no space"), "{told}");
        assert!(!errors.contains("panicked"), "{told}");
        assert_eq!(codes[..2], ["create 0", "import 4"], "{told}");
        // What is left for the journal or a resync to do is no loss.
        assert!(["scrub 0", "scrub 1"].contains(&codes[2].as_str()), "{told}");
        assert!(["scrub 0", "scrub 1"].contains(&codes[3].as_str()), "{told}");
        assert_eq!(codes[4..], ["scrub 0", "import 0", "export 0"], "{told}");
        let exported = fs::read(path("target")).expect("it was made");
        assert!(exported == noise(28 * MIB, 18)[..4 << 20], "{told}");
    }
}
