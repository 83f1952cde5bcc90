//! What is refused: one line, the right exit code, nothing written.

use crate::support::volume::{hashes, on};
use crate::support::{
    MIB, PROGRAM, Said, Server, Shape, Volume, at_home, finish, noise, qemu_io, sha256, steadfast,
    text,
};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every verb that opens a volume refuses these members: one line in which all of this is said,
/// nothing written, nothing made.
#[track_caller]
fn refused(members: &[PathBuf], code: i32, wanted: &[&str]) {
    let folder = tempfile::tempdir().expect("there is room");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::write(&source, noise(5000, 1)).expect("the folder is ours");
    let listen = format!("unix:{}", text(&folder.path().join("socket")));
    let before = hashes(members);
    for (verb, options) in [
        ("status", &[][..]),
        ("explain", &["--sector", "0"]),
        ("scrub", &["--check"]),
        ("scrub", &[]),
        ("export", &["--to", text(&target)]),
        ("export", &["--heal", "--to", text(&target)]),
        ("import", &["--from", text(&source)]),
        ("serve", &["--nbd", &listen]),
        ("serve", &["--read-only", "--nbd", &listen]),
    ] {
        let said = on(verb, members, options).one_line(code, wanted);
        assert!(said.stdout.is_empty(), "{said}");
        assert_eq!(hashes(members), before, "{said}");
    }
    let left = fs::read_dir(folder.path()).expect("it is ours").count();
    assert_eq!(left, 1, "only the source is there");
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder is ours");
    path
}

fn patch(path: &Path, byte: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("it is ours");
    file.write_all_at(bytes, byte).expect("it can be written");
}

#[test]
fn what_is_not_a_member_is_named() {
    let folder = tempfile::tempdir().expect("there is room");
    let zeroes = file(folder.path(), "zeroes", &vec![0; 1 << 20]);
    refused(std::slice::from_ref(&zeroes), 3, &["zeroes: not a member"]);
    let something = file(folder.path(), "noise", &noise(MIB, 1));
    refused(std::slice::from_ref(&something), 3, &["noise: not a member"]);
    // The magic of ext4's superblock, where it lies.
    patch(&zeroes, 1080, &0xEF53_u16.to_le_bytes());
    refused(&[zeroes], 3, &["not a member", "ext"]);
    let volume = Volume::create(Shape::tagged("1", 4096));
    let inspected = on("inspect", &[something], &[]).one_line(3, &["not a member"]);
    assert!(inspected.text().contains("noise: file, 1048576 bytes"), "{inspected}");
    // Among members, it is a mistake rather than a member to do without.
    patch(&volume.members[0], 0, &vec![0; 1 << 20]);
    patch(&volume.members[0], 1080, &0xEF53_u16.to_le_bytes());
    refused(&volume.members, 3, &["m0.img: not a member", "ext"]);
}

#[test]
fn what_is_too_small_is_refused() {
    let folder = tempfile::tempdir().expect("there is room");
    for (name, bytes) in [("empty", 0), ("odd", 100), ("sector", 512), ("page", 4096)] {
        let path = file(folder.path(), name, &vec![0; bytes]);
        refused(&[path], 3, &[name]);
    }
    // With a superblock and nothing behind it.
    let volume = Volume::create(Shape::tagged("none", 4096));
    let mut bytes = fs::read(&volume.members[0]).expect("it is ours");
    bytes.truncate(4096);
    fs::write(&volume.members[0], bytes).expect("it is ours");
    refused(&volume.members, 3, &["m0.img"]);

    let tiny = folder.path().join("tiny");
    let said = steadfast(["create", text(&tiny), "--size", "8K"]).one_line(3, &["tiny"]);
    assert!(!tiny.exists(), "{said}");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    steadfast(["create", text(&a), text(&b), "--size", "512K", "--level", "1"])
        .one_line(3, &["sectors"]);
    assert!(!a.exists() && !b.exists());
}

#[test]
fn directories_pipes_and_devices_that_hold_nothing_are_refused() {
    let folder = tempfile::tempdir().expect("there is room");
    let directory = folder.path().join("directory");
    fs::create_dir(&directory).expect("the folder is ours");
    refused(std::slice::from_ref(&directory), 3, &["directory: is a directory"]);
    steadfast(["create", text(&directory)]).one_line(3, &["is a directory"]);
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("the folder is ours");
    refused(&[pipe], 3, &["neither a file nor a block device"]);
    refused(&["/dev/null".into()], 3, &["neither a file nor a block device"]);
    refused(&[folder.path().join("nowhere")], 4, &["nowhere: no such file or device"]);
}

/// The program as somebody who may nothing here.
fn as_nobody(program: &Path, arguments: &[&str]) -> Said {
    use std::os::unix::process::CommandExt;
    let mut command = at_home(Command::new(program));
    command.args(arguments).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    finish(command)
}

#[test]
fn without_permission_nothing_is_done() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(2);
    let before = volume.hashes();
    // Somebody else must be able to start the program and to see the folder.
    let program = volume.path("steadfast");
    fs::copy(PROGRAM, &program).expect("there is room");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode(volume.folder.path(), 0o755);
    let member = text(&volume.members[0]);
    let verbs = [
        &["status", member][..],
        &["scrub", member],
        &["scrub", "--check", member],
        &["explain", member, "--sector", "0"],
        &["export", member, "--to", "/nowhere"],
        &["import", member, "--from", "/dev/null"],
        &["serve", member, "--nbd", "tcp:127.0.0.1:0"],
        &["create", member, "--yes"],
    ];
    mode(&volume.members[0], 0);
    for arguments in verbs {
        as_nobody(&program, arguments).one_line(4, &["m0.img: permission denied"]);
    }
    as_nobody(&program, &["inspect", member]).one_line(4, &["permission denied"]);
    // Who may read, may read, and no more.
    mode(&volume.members[0], 0o444);
    for arguments in verbs {
        let said = as_nobody(&program, arguments);
        match arguments[..2] {
            ["status" | "explain", _] | ["scrub", "--check"] => drop(said.ended(0)),
            ["export", _] => drop(said.one_line(4, &["/nowhere"])),
            _ => drop(said.one_line(4, &["permission denied (writing)"])),
        }
    }
    mode(&volume.members[0], 0o600);
    assert_eq!(volume.hashes(), before);
}

#[test]
fn a_truncated_member_is_refused_or_left_out() {
    let cut = |path: &Path| {
        let file = File::options().write(true).open(path).expect("it is ours");
        let length = file.metadata().expect("it is open").len();
        file.set_len(length / 2).expect("it is ours");
    };
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(3);
    cut(&volume.members[0]);
    refused(&volume.members, 3, &["m0.img"]);
    for shape in [Shape::tagged("5", 4096), Shape::plain("1")] {
        let volume = Volume::create(shape);
        let bytes = volume.fill(4);
        cut(&volume.members[1]);
        let before = volume.hashes();
        let said = volume.run("status", &["--json"]).ended(1);
        let status = said.object();
        assert_eq!(status["missing"], 1, "{status}");
        said.with(&["m1.img", "left out"]);
        let (code, exported) = volume.export();
        assert!(code == 1 && exported == bytes, "{shape:?}: {code}");
        assert_eq!(volume.hashes(), before, "{shape:?}");
        cut(&volume.members[0]);
        if shape.tags {
            refused(&volume.members, 3, &["m0.img", "m1.img"]);
        } else {
            refused(&volume.members, 3, &[]);
        }
    }
}

#[test]
fn a_dm_integrity_superblock_that_makes_no_sense_is_refused_or_seen_through() {
    // The superblock's fields: the dm-integrity specification, section 2.
    for (name, byte, bytes) in [
        ("magic", 0, &b"integrtx"[..]),
        ("version 0", 8, &[0]),
        ("version 99", 8, &[99]),
        ("log2_interleave_sectors", 9, &[120]),
        ("integrity_tag_size 0", 10, &[0, 0]),
        ("integrity_tag_size 65535", 10, &[255, 255]),
        ("journal_sections 0", 12, &[0; 4]),
        ("journal_sections too many", 12, &[255; 4]),
        ("provided_data_sectors 0", 16, &[0; 8]),
        ("provided_data_sectors too many", 16, &[255; 8]),
        ("flags unknown", 24, &[0, 0, 0, 128]),
        ("log2_sectors_per_block", 28, &[77]),
        ("salt", 48, &[1, 2, 3, 4]),
    ] {
        let volume = Volume::create(Shape::tagged("none", 4096));
        let content = volume.fill(5);
        patch(&volume.members[0], byte, bytes);
        let before = volume.hashes();
        let said = volume.run("export", &["--to", "-"]);
        if said.code == 3 {
            refused(&volume.members, 3, &["m0.img"]);
        } else {
            assert!(said.code <= 1, "{name}: {said}");
            assert!(said.stdout == content, "{name}: {said}");
        }
        assert_eq!(volume.hashes(), before, "{name}");
    }
}

/// The checksum of an md superblock (the md specification, section 2.3).
fn md_checksum(superblock: &[u8]) -> u32 {
    let word = |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().expect("4 bytes"));
    let dev_count = usize::try_from(word(220)).expect("small");
    let end = 256 + dev_count * 2;
    let mut sum: u64 = (0..end / 4).filter(|n| *n != 54).map(|n| u64::from(word(n * 4))).sum();
    if end % 4 == 2 {
        sum += u64::from(superblock[end - 2]) | u64::from(superblock[end - 1]) << 8;
    }
    u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).expect("two such numbers")
}

#[test]
fn md_superblocks_that_are_all_wrong_are_refused() {
    const SUPERBLOCK: u64 = 4096;
    for (name, byte, bytes) in [
        ("checksum", 16, &[0xA5, 0xA5, 0xA5, 0xA5][..]),
        ("level", 72, &77_u32.to_le_bytes()),
        ("raid_disks", 92, &[0; 4]),
        ("raid_disks too many", 92, &[255; 4]),
        ("chunksize", 88, &3_u32.to_le_bytes()),
        ("data_offset", 128, &[255; 8]),
        ("size", 80, &[255; 8]),
        ("layout", 76, &99_u32.to_le_bytes()),
        ("feature_map", 8, &[0, 0, 0, 128]),
    ] {
        let volume = Volume::create(Shape::plain("5"));
        volume.fill(6);
        for member in &volume.members {
            patch(member, SUPERBLOCK + byte, bytes);
            if name != "checksum" {
                let mut found = vec![0; 4096];
                let file = File::open(member).expect("it is ours");
                file.read_exact_at(&mut found, SUPERBLOCK).expect("it is long enough");
                patch(member, SUPERBLOCK + 216, &md_checksum(&found).to_le_bytes());
            }
        }
        let said = volume.run("status", &[]);
        assert_eq!(said.code, 3, "{name}: {said}");
        refused(&volume.members, 3, &[]);
        volume.run("inspect", &["--json"]).with(&[]).object();
    }
}

#[test]
fn members_of_two_arrays_are_not_mixed() {
    let (a, b) =
        (Volume::create(Shape::tagged("5", 4096)), Volume::create(Shape::tagged("5", 4096)));
    let uuid = |volume: &Volume| -> String {
        let status = volume.run("status", &["--json"]).ended(0).object();
        status["uuid"].as_str().expect("it is an array").to_owned()
    };
    let (first, second) = (uuid(&a), uuid(&b));
    let mixed = [&a.members[..], &b.members[1..2]].concat();
    refused(&mixed, 3, &[&first, &second, text(&b.members[1])]);
    let single = Volume::create(Shape::tagged("none", 4096));
    let other = Volume::create(Shape::tagged("none", 4096));
    refused(&[single.members.clone(), other.members.clone()].concat(), 3, &["volume of its own"]);
    // 'inspect' shows both arrays.
    let said = on("inspect", &mixed, &["--json"]);
    assert_eq!(said.object()["groups"].as_array().map(Vec::len), Some(2), "{said}");
}

#[test]
fn a_member_is_not_named_twice_by_whatever_name() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    volume.fill(7);
    let member = volume.members[0].clone();
    refused(&[member.clone(), member.clone()], 3, &["m0.img", "the same member"]);
    let hard = volume.path("hard");
    fs::hard_link(&member, &hard).expect("the folder is ours");
    refused(&[member.clone(), hard], 3, &["m0.img", "hard", "the same member"]);
    let soft = volume.path("soft");
    symlink(&member, &soft).expect("the folder is ours");
    refused(&[member.clone(), soft, volume.members[1].clone()], 3, &["soft", "the same member"]);
    let dotted = volume.path("./m0.img");
    refused(&[dotted, member.clone()], 3, &["the same member"]);
    let copy = volume.path("copy");
    fs::copy(&member, &copy).expect("there is room");
    refused(&[member, copy, volume.members[1].clone()], 3, &["copy", "same member"]);
    let said = steadfast([
        "create",
        text(&volume.path("new")),
        text(&volume.path("./new")),
        "--size",
        "8M",
        "--level",
        "1",
    ]);
    said.one_line(3, &["the same member"]);
}

#[test]
fn a_member_in_use_is_refused_and_its_holder_named() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let server = volume.serve(&[]);
    let before = volume.hashes();
    let holder = format!("in use by process {} (steadfast)", server.pid());
    let target = volume.path("target");
    for (verb, options) in [
        ("export", &["--to", text(&target)][..]),
        ("import", &["--from", "/dev/null"]),
        ("explain", &["--sector", "0"]),
        ("serve", &["--nbd", "tcp:127.0.0.1:0"]),
        ("create", &["--yes", "--level", "1"]),
    ] {
        volume.run(verb, options).one_line(3, &["m0.img", &holder]);
    }
    // One of them is enough.
    on("export", &volume.members[1..], &["--to", text(&target)]).one_line(3, &["m1.img", &holder]);
    assert!(!target.exists());
    assert_eq!(volume.hashes(), before);
    server.stop().ended(0);
    volume.run("export", &["-q", "--to", text(&target)]).ended(0);
}

#[test]
fn without_a_member_it_starts_degraded_and_says_so() {
    for shape in [
        Shape::tagged("1", 4096),
        Shape::plain("1"),
        Shape::tagged("5", 512),
        Shape::plain("5"),
        Shape::tagged("6", 4096),
    ] {
        let volume = Volume::create(shape);
        let bytes = volume.fill(8);
        let rest = volume.without(&[1]);
        let before = volume.hashes();
        let said = on("status", &rest, &["--json"]).ended(1);
        let status = said.object();
        assert_eq!((&status["state"], &status["missing"]), (&"degraded".into(), &1.into()));
        assert_eq!(status["members"][1]["state"], "missing", "{status}");
        assert!(status["why"].to_string().contains("slot 1"), "{status}");
        assert_eq!(status["spare_redundancy"], shape.redundancy() - 1, "{status}");
        let said = on("export", &rest, &["-q", "--to", "-"]).ended(1).with(&["slot 1", "degraded"]);
        assert!(said.stdout == bytes, "{shape:?}: {said}");
        on("scrub", &rest, &["--check"]).ended(1);
        assert_eq!(volume.hashes(), before, "{shape:?}");
        let server = Server::start(&rest, volume.folder.path(), &[]);
        qemu_io(&server.uri, "write -P 9 64k 64k").unwrap_or_else(|text| panic!("{text}"));
        server.stop().ended(1).with(&["degraded"]);
        let said = on("export", &rest, &["-q", "--to", "-"]).ended(1);
        let mut bytes = bytes;
        bytes[64 << 10..128 << 10].fill(9);
        assert!(said.stdout == bytes, "{shape:?}: {said}");
    }
}

#[test]
fn a_named_member_that_is_gone_counts_as_missing() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let bytes = volume.fill(9);
    fs::remove_file(&volume.members[2]).expect("it is ours");
    let said = volume.run("export", &["-q", "--to", "-"]).ended(1);
    assert!(said.stdout == bytes, "{said}");
    said.with(&["m2.img: no such file or device, counted as missing", "degraded"]);
}

#[test]
fn too_few_members_do_not_start() {
    for (shape, gone, said) in [
        (Shape::tagged("5", 4096), &[0, 2][..], "2 of 3 members are missing, raid5 survives 1"),
        (Shape::plain("5"), &[0, 1], "2 of 3 members are missing, raid5 survives 1"),
        (Shape::tagged("6", 4096), &[0, 2, 4], "3 of 5 members are missing, raid6 survives 2"),
    ] {
        let volume = Volume::create(shape);
        volume.fill(10);
        refused(&volume.without(gone), 3, &[said]);
        on("status", &volume.without(gone), &["--force"]).ended(3).with(&[said]);
    }
}

#[test]
fn a_stale_member_is_left_out_and_named() {
    for shape in [Shape::tagged("1", 4096), Shape::plain("1"), Shape::tagged("5", 4096)] {
        let volume = Volume::create(shape);
        volume.fill(11);
        let file = volume.file("newer", &noise(volume.bytes, 12));
        let newer = noise(volume.bytes, 12);
        on("import", &volume.without(&[1]), &["-q", "--from", text(&file)]).ended(1);
        let before = volume.hashes();
        let said = volume.run("status", &["--json"]).ended(1);
        let status = said.object();
        let members = status["members"].as_array().expect("a list");
        let stale: Vec<&Value> =
            members.iter().filter(|member| member["state"] == "left-out").collect();
        assert_eq!(stale.len(), 1, "{status}");
        assert_eq!(stale[0]["name"], text(&volume.members[1]), "{status}");
        assert!(stale[0]["problem"].to_string().contains("stale"), "{status}");
        said.with(&["m1.img", "stale"]);
        let (code, exported) = volume.export();
        assert!(code == 1 && exported == newer, "{shape:?}: the newer data, with {code}");
        assert_eq!(volume.hashes(), before, "{shape:?}");
        // Also when it is written: the stale member stays as it is.
        volume.run("import", &["-q", "--from", text(&file)]).ended(1);
        assert_eq!(volume.hashes()[1], before[1], "{shape:?}");
        if shape.level == "5" {
            on("status", &volume.members[..2], &[]).one_line(3, &["m1.img", "stale"]);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(13);
    let before = volume.hashes();
    let member = text(&volume.members[0]);
    steadfast(["create", member, "--size", "20M", "--yes"])
        .one_line(3, &["m0.img", "12582912", "20971520"]);
    steadfast(["create", member, "--size", "1000", "--yes"]).one_line(64, &["--size", "1000"]);
    let large = volume.file("large", &noise(volume.bytes + 1, 14));
    for options in [&[][..], &["--dry-run"]] {
        let options = [&["--from", text(&large)], options].concat();
        volume.run("import", &options).one_line(3, &["large", &volume.bytes.to_string()]);
    }
    let options = ["--from", text(&large), "--length", "1", "--offset", &volume.bytes.to_string()];
    volume.run("import", &options).one_line(3, &["large"]);
    let target = volume.path("target");
    for options in [["--offset", "1T", "--length", "1"], ["--offset", "0", "--length", "1T"]] {
        let options = [&options[..], &["--to", text(&target)]].concat();
        volume.run("export", &options).one_line(3, &[&volume.bytes.to_string()]);
    }
    assert!(!target.exists());
    let old = volume.file("old", b"precious");
    let options = ["--yes", "--offset", "1T", "--to", text(&old)];
    volume.run("export", &options).one_line(3, &[]);
    assert_eq!(fs::read(&old).expect("it is there"), b"precious");
    let sectors = (volume.bytes / 512).to_string();
    volume.run("explain", &["--sector", &sectors]).one_line(3, &[&sectors]);
    volume.run("scrub", &["--range", "0-1000000000"]).one_line(64, &[&sectors]);
    assert_eq!(volume.hashes(), before);
}

#[test]
fn unknown_algorithms_are_usage() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    let before = volume.hashes();
    volume.run("status", &["--integrity", "crc33"]).one_line(64, &["--integrity", "crc33"]);
    let new = volume.path("new");
    steadfast(["create", text(&new), "--size", "8M", "--integrity", "md5"])
        .one_line(64, &["--integrity", "md5"]);
    assert!(!new.exists());
    assert_eq!(volume.hashes(), before);
}

#[test]
fn create_overwrites_nothing_that_exists() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(15);
    let before = volume.hashes();
    let member = text(&volume.members[0]);
    steadfast(["create", member]).one_line(3, &["m0.img: holds dm-integrity"]);
    assert_eq!(volume.hashes(), before);
    // A byte anywhere is enough.
    let data = volume.path("data");
    let file = File::create(&data).expect("the folder is ours");
    file.set_len(8 * MIB).expect("there is room");
    file.write_all_at(&[1], 5_000_000).expect("there is room");
    let hash = sha256(&data);
    steadfast(["create", text(&data)]).one_line(3, &["not all zero", "sector 9765"]);
    assert_eq!(sha256(&data), hash);
    // All of its members are looked at before the first is written.
    let new = volume.path("new");
    steadfast(["create", text(&new), text(&data), "--size", "8M", "--level", "1"]).ended(3);
    assert!(!new.exists() && sha256(&data) == hash);
    steadfast(["create", "--yes", text(&data)]).ended(0);
}

#[test]
fn output_files_are_not_overwritten() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(16);
    let old = volume.file("old", b"precious");
    let target = volume.path("target");
    volume.run("export", &["--to", text(&old)]).one_line(3, &["old", "exists"]);
    volume
        .run("export", &["--to", text(&target), "--map", text(&old)])
        .one_line(3, &["old", "exists"]);
    assert!(!target.exists());
    assert_eq!(fs::read(&old).expect("it is there"), b"precious");
    let member = text(&volume.members[0]);
    volume
        .run("export", &["--to", text(&target), "--map", member, "--yes"])
        .one_line(3, &["m0.img", "member"]);
    let same = ["--to", text(&target), "--map", text(&target)];
    volume.run("export", &same).one_line(3, &["target", "--map"]);
    assert!(!target.exists());
    volume.run("export", &["--to", text(&old), "--yes", "-q"]).ended(0);
    assert_eq!(fs::metadata(&old).expect("it is there").len(), volume.bytes);
    volume.run("export", &["--to", "/proc/nowhere/x"]).one_line(4, &["/proc/nowhere/x"]);
    volume.run("export", &["--to", text(volume.folder.path())]).ended(3).with(&[]);
}

#[test]
fn addresses_in_use_are_refused() {
    let (a, b) =
        (Volume::create(Shape::tagged("1", 4096)), Volume::create(Shape::tagged("1", 4096)));
    let server = a.serve(&[]);
    let before = b.hashes();
    let listen = format!("unix:{}", text(&server.socket));
    b.run("serve", &["--nbd", &listen]).one_line(4, &[&listen, "in use"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let taken = format!("tcp:{}", listener.local_addr().expect("it is bound"));
    b.run("serve", &["--nbd", &taken]).one_line(4, &[&taken, "in use"]);
    let precious = b.file("precious", b"precious");
    let listen = format!("unix:{}", text(&precious));
    b.run("serve", &["--nbd", &listen]).one_line(4, &["precious"]);
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    b.run("serve", &["--nbd", "unix:/proc/nowhere/s"]).one_line(4, &["/proc/nowhere/s"]);
    for host in ["0.0.0.0", "192.0.2.1", "[::]", "[2001:db8::1]"] {
        let listen = format!("tcp:{host}:0");
        b.run("serve", &["--nbd", &listen]).one_line(3, &["loopback", "TLS"]);
    }
    assert_eq!(b.hashes(), before);
    // The first server has not noticed.
    qemu_io(&server.uri, "read 0 4k").unwrap_or_else(|text| panic!("{text}"));
    server.stop().ended(0);
}
