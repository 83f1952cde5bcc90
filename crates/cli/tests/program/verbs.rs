//! Every verb on every kind of volume: round trips, `--json`, `--dry-run`, `-q`, usage.

use crate::support::volume::{MEMBER_BYTES, hashes};
use crate::support::{SECTOR, Shape, Volume, noise, other, qemu_io, sha256, steadfast, text};
use serde_json::Value;

/// The whole life of a volume of this shape.
fn round_trip(shape: Shape) {
    let volume = Volume::create(shape);
    let bytes = volume.fill(1);
    let rest = volume.hashes();

    let inspected = volume.run("inspect", &["--json"]).ended(0).object();
    for member in inspected["members"].as_array().expect("a list") {
        assert_eq!(member["bytes"], MEMBER_BYTES, "{member}");
        assert_eq!(member["integrity"].is_object(), shape.tags, "{member}");
        assert_eq!(member["md"].is_object(), shape.level != "none", "{member}");
        assert_eq!(member["problem"], Value::Null, "{member}");
    }
    assert_eq!(inspected["groups"].as_array().map(Vec::len), Some(1), "{inspected}");

    let status = volume.run("status", &["--json"]).ended(0).object();
    assert_eq!(status["state"], "healthy", "{status}");
    assert_eq!(status["bytes"], volume.bytes, "{status}");
    assert_eq!(status["members"].as_array().map(Vec::len), Some(shape.members()), "{status}");

    let (code, exported) = volume.export();
    assert!(code == 0 && exported == bytes, "{shape:?}: what was imported comes out");
    a_part_comes_out(&volume, &bytes);

    let explained = volume.run("explain", &["--json", "--sector", "100"]).ended(0).object();
    let places = explained["places"].as_array().expect("a list");
    assert_eq!(places.len(), 1 + shape.redundancy(), "{explained}");
    for place in places {
        let tag = &place["tag"];
        assert_eq!(tag.is_object(), shape.tags, "{place}");
        assert_eq!(tag["stored"], tag["computed"], "{place}");
    }

    let checked = volume.run("scrub", &["--check", "--json"]).ended(0).object();
    assert!(checked["checked_sectors"].as_u64() >= Some(volume.bytes / SECTOR), "{checked}");
    assert_eq!(volume.hashes(), rest, "{shape:?}: looking writes nothing");
    volume.run("scrub", &["--json"]).ended(0).object();

    served(&volume, &bytes);
    volume.run("status", &["-q"]).ended(0);
}

fn a_part_comes_out(volume: &Volume, bytes: &[u8]) {
    let part = volume.path("part");
    let options = ["--to", text(&part), "--offset", "777", "--length", "123456", "--json"];
    let said = volume.run("export", &options).ended(0).object();
    assert_eq!((&said["readable_bytes"], &said["complete"]), (&123_456.into(), &true.into()));
    assert!(std::fs::read(&part).expect("it was made") == bytes[777..777 + 123_456]);
}

/// Through the server: read all, write all, and what was written is there afterwards.
fn served(volume: &Volume, bytes: &[u8]) {
    let server = volume.serve(&[]);
    let copy = volume.path("copy");
    other("nbdcopy", "libnbd-bin", [server.uri.as_str(), text(&copy)]).ended(0);
    assert!(std::fs::read(&copy).expect("it was made") == bytes, "served as it was imported");
    let others = noise(volume.bytes, 2);
    let file = volume.file("others", &others);
    other("nbdcopy", "libnbd-bin", ["--flush", text(&file), &server.uri]).ended(0);

    // The members are locked: whoever asks is answered by the server.
    let status = volume.run("status", &["--json"]).ended(0).object();
    assert_eq!(status["bytes"], volume.bytes, "{status}");
    let checked = volume.run("scrub", &["--check", "--json"]).ended(0).object();
    assert_eq!(checked["unreadable"]["sectors"], 0, "{checked}");

    let said = server.stop().ended(0);
    assert_eq!(said.text(), "", "the ready line was all: {said}");
    let (code, exported) = volume.export();
    assert!(code == 0 && exported == others, "what clients wrote is there");
}

macro_rules! round_trips {
    ($($name:ident: $shape:expr;)*) => {
        $(#[test] fn $name() { round_trip($shape); })*
        #[test]
        fn every_shape_has_its_round_trip() {
            assert_eq!([$(stringify!($name)),*].len(), Shape::all().len());
        }
    };
}

round_trips! {
    a_single_member_of_512_byte_blocks_is_used: Shape::tagged("none", 512);
    a_single_member_of_4096_byte_blocks_is_used: Shape::tagged("none", 4096);
    raid1_over_512_byte_blocks_is_used: Shape::tagged("1", 512);
    raid1_over_4096_byte_blocks_is_used: Shape::tagged("1", 4096);
    raid1_without_tags_is_used: Shape::plain("1");
    raid5_over_512_byte_blocks_is_used: Shape::tagged("5", 512);
    raid5_over_4096_byte_blocks_is_used: Shape::tagged("5", 4096);
    raid5_without_tags_is_used: Shape::plain("5");
    raid6_over_512_byte_blocks_is_used: Shape::tagged("6", 512);
    raid6_over_4096_byte_blocks_is_used: Shape::tagged("6", 4096);
    raid6_without_tags_is_used: Shape::plain("6");
}

#[test]
fn what_was_never_written_reads_as_zeroes() {
    for shape in Shape::all() {
        let volume = Volume::create(shape);
        let (code, exported) = volume.export();
        assert!(code == 0 && exported.iter().all(|&byte| byte == 0), "{shape:?}");
        assert_eq!(exported.len() as u64, volume.bytes, "{shape:?}");
    }
}

#[test]
fn dry_runs_write_nothing() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    volume.fill(3);
    let before = volume.hashes();
    let source = volume.file("source", &noise(9000, 4));
    for json in [&["--dry-run"][..], &["--dry-run", "--json"]] {
        let import = [&["--from", text(&source)], json].concat();
        let said = volume.run("import", &import).ended(0);
        assert!(!said.stdout.is_empty(), "it says what it would do: {said}");
        if json.len() > 1 {
            let writes = &said.object()["writes"];
            assert_eq!((&writes[0]["byte"], &writes[0]["bytes"]), (&0.into(), &9000.into()));
        }
        let target = volume.path("target");
        let said = volume.run("export", &[&["--to", text(&target)], json].concat()).ended(0);
        assert!(!said.stdout.is_empty(), "{said}");
        assert!(!target.exists(), "{said}");
        volume.run("scrub", json).ended(0);
    }
    let map = volume.path("map");
    let target = volume.path("target");
    let options = ["--to", text(&target), "--map", text(&map), "--heal", "--dry-run"];
    volume.run("export", &options).ended(0);
    assert!(!map.exists() && !target.exists());
    assert_eq!(volume.hashes(), before);
}

#[test]
fn a_dry_run_of_create_lists_its_writes_and_makes_no_file() {
    for shape in Shape::all() {
        let folder = tempfile::tempdir().expect("there is room");
        let members: Vec<_> =
            (0..shape.members()).map(|slot| folder.path().join(format!("new{slot}"))).collect();
        let like = Volume::create(shape);
        let mut options = like.options();
        options.extend(["--size", "12M", "--dry-run", "--json"].map(str::to_owned));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let said = crate::support::volume::on("create", &members, &options).ended(0);
        let object = said.object();
        assert_eq!((&object["dry_run"], &object["created"]), (&true.into(), &false.into()));
        assert_eq!(object["bytes"], like.bytes, "the same volume as the real one");
        let writes = object["writes"].as_array().expect("a list");
        for member in &members {
            assert!(writes.iter().any(|write| write["member"] == text(member)), "{object}");
            assert!(!member.exists(), "{}", member.display());
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is ours").count(), 0);
    }
}

#[test]
fn a_dry_run_of_create_on_what_exists_leaves_it_as_it_is() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    volume.fill(5);
    let before = volume.hashes();
    let mut options = volume.options();
    options.extend(["--yes", "--dry-run"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let said = volume.run("create", &options).ended(0);
    assert!(said.text().contains("would make"), "{said}");
    assert_eq!(volume.hashes(), before);
}

#[test]
fn quiet_is_quiet() {
    let volume = Volume::create(Shape::tagged("none", 4096));
    let file = volume.file("source", &noise(10_000, 6));
    let target = volume.path("target");
    let runs = [
        volume.run("import", &["-q", "--from", text(&file)]),
        volume.run("status", &["-q"]),
        volume.run("inspect", &["-q"]),
        volume.run("explain", &["-q", "--sector", "0"]),
        volume.run("scrub", &["-q"]),
        volume.run("export", &["-q", "--to", text(&target)]),
    ];
    for said in runs {
        let said = said.ended(0);
        assert_eq!((said.text().as_str(), said.stderr.as_str()), ("", ""), "{said}");
    }
}

#[test]
fn errors_are_objects_too() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("nothing");
    for verb in ["status", "scrub", "explain", "export", "import", "serve"] {
        let mut arguments = vec![verb, text(&path), "--json"];
        arguments.extend(match verb {
            "explain" => &["--sector", "0"][..],
            "export" => &["--to", "-"],
            "import" => &["--from", "/dev/null"],
            "serve" => &["--nbd", "unix:/nowhere"],
            _ => &[],
        });
        let said = steadfast(arguments).ended(4);
        if verb != "export" {
            let error = &said.object()["error"];
            assert_eq!(error["exit_code"], 4, "{said}");
            assert!(error["message"].is_string(), "{said}");
        }
        assert!(said.stderr.starts_with("steadfast: "), "{said}");
    }
}

#[test]
fn a_served_volume_says_so_in_one_object() {
    use std::io::{BufRead, BufReader};
    let volume = Volume::create(Shape::tagged("none", 4096));
    let socket = volume.path("s");
    let mut command = crate::support::program();
    command.arg("serve").args(&volume.members).args(["--json", "--export", "a name"]);
    command.args(["--nbd", &format!("unix:{}", text(&socket))]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("it can be read");
    let object: Value = serde_json::from_str(&line).expect("an object");
    let uri = object["uri"].as_str().expect("a URI").to_owned();
    other("nbdinfo", "libnbd-bin", ["--json", &uri]).ended(0);
    let _pid = rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    );
    assert_eq!(child.wait().expect("our child").code(), Some(0), "SIGINT ends it cleanly");
    line.clear();
    stdout.read_line(&mut line).expect("it can be read");
    assert_eq!(line, "", "one object and nothing else");
    assert_eq!((&object["schema"], &object["ready"]), (&1.into(), &true.into()));
    assert_eq!(object["bytes"], volume.bytes);
    assert!(!socket.exists(), "the socket is gone with its server");
}

#[test]
fn a_volume_that_is_served_read_only_stays_as_it_is() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let bytes = volume.fill(7);
    let before = volume.hashes();
    let server = volume.serve(&["--read-only"]);
    let copy = volume.path("copy");
    other("nbdcopy", "libnbd-bin", [server.uri.as_str(), text(&copy)]).ended(0);
    assert!(std::fs::read(&copy).expect("it was made") == bytes);
    assert!(qemu_io(&server.uri, "write 0 4k").is_err(), "writes are refused");
    volume.run("scrub", &[]).ended(3).with(&["reading only"]);
    volume.run("scrub", &["--check"]).ended(0);
    server.stop().ended(0);
    assert_eq!(volume.hashes(), before);
}

#[test]
fn members_may_be_named_in_any_order_and_moved() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    let bytes = volume.fill(8);
    let mut moved = Vec::new();
    for (slot, member) in volume.members.iter().enumerate() {
        let path = volume.path(&format!("moved-{}", (slot * 3) % 5));
        std::fs::rename(member, &path).expect("it is ours");
        moved.push(path);
    }
    moved.sort();
    let said = crate::support::volume::on("export", &moved, &["-q", "--to", "-"]).ended(0);
    assert!(said.stdout == bytes);
}

#[test]
fn a_stack_that_is_spelled_out_opens_as_its_members_do() {
    let volume = Volume::create(Shape::tagged("5", 512));
    let bytes = volume.fill(9);
    let before = hashes(&volume.members);
    let leaves: Vec<String> =
        volume.members.iter().map(|path| format!("integrity(file:{})", text(path))).collect();
    let stack = format!("raid5({})", leaves.join(", "));
    let said = steadfast(["export", "--stack", &stack, "-q", "--to", "-"]).ended(0);
    assert!(said.stdout == bytes);
    let wrong = stack.replace("raid5", "raid6");
    let said = steadfast(["status", "--stack", &wrong]).one_line(3, &["raid6", "raid5"]);
    assert_eq!(said.text(), "", "{said}");
    steadfast(["status", "--stack", "raid5(integrity(file:a)"]).one_line(64, &["--stack"]);
    assert_eq!(hashes(&volume.members), before);
}

#[test]
fn imports_from_a_pipe_at_any_byte_keep_what_is_around_them() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let mut bytes = volume.fill(10);
    let piece = noise(100_001, 11);
    let file = volume.file("piece", &piece);
    let mut command = crate::support::program();
    command.arg("import").args(&volume.members).args(["--from", "-", "--offset", "12345"]);
    command.stdin(std::fs::File::open(file).expect("it is there"));
    crate::support::finish(command).ended(0);
    bytes[12345..12345 + piece.len()].copy_from_slice(&piece);
    let (code, exported) = volume.export();
    assert!(code == 0 && exported == bytes);
}

#[test]
fn export_refuses_to_overwrite_a_member_even_with_yes() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let before = volume.hashes();
    let member = text(&volume.members[1]);
    volume.run("export", &["--yes", "--to", member]).one_line(3, &[member]);
    assert_eq!(volume.hashes(), before);
    assert!(sha256(&volume.members[1]).is_some());
}

#[test]
fn help_is_help_and_nonsense_is_usage() {
    for arguments in [&["--help"][..], &["--version"], &["create", "--help"], &["help", "scrub"]] {
        let said = steadfast(arguments).ended(0);
        assert!(!said.stdout.is_empty() && said.stderr.is_empty(), "{said}");
    }
    let folder = tempfile::tempdir().expect("there is room");
    let new = folder.path().join("new");
    let new = text(&new);
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["status"],
        &["status", "--no-such-flag", new],
        &["serve", new],
        &["export", new],
        &["import", new],
        &["explain", new],
        &["explain", new, "--sector", "minus one"],
        &["create"],
        &["create", new, "--size", "many"],
        &["create", new, "--size", "1M", "--level", "7"],
        &["create", new, "--size", "1M", "--level", "5"],
        &["create", new, new, "--size", "1M"],
        &["create", new, "--size", "1M", "--sector-size", "520"],
        &["create", new, "--size", "1M", "--integrity", "md5"],
        &["create", new, "--size", "1M", "--integrity", "none"],
        &["create", new, "--size", "1M", "--mode", "sideways"],
        &["create", new, "--size", "100"],
        &["export", new, "--to", "-", "--offset", "x"],
        &["scrub", new, "--range", "9-3"],
        &["scrub", new, "--rate", "0"],
        &["serve", new, "--nbd", "carrier-pigeon:7"],
        &["status", "nbd://"],
        &["status", "nbds://example.invalid/x"],
        &["status", new, "--integrity", "crc33"],
    ] {
        let said = steadfast(arguments).ended(64).with(&[]);
        assert!(said.stdout.is_empty() && !said.stderr.is_empty(), "{said}");
        assert!(!folder.path().join("new").exists(), "{said}");
    }
}

#[test]
fn the_manual_has_a_page_for_every_verb_and_every_option() {
    let folder = tempfile::tempdir().expect("there is room");
    steadfast(["man", text(folder.path())]).ended(0);
    let help = steadfast(["--help"]).ended(0).text();
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.strip_prefix("  ").filter(|it| !it.starts_with(' ')));
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let page = folder.path().join(format!("steadfast-{verb}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{verb}: {error}"));
        let page = page.replace('\\', "");
        let help = steadfast([verb, "--help"]).ended(0).text();
        let options = help.split_whitespace().filter(|word| word.starts_with("--"));
        for option in options.map(|word| word.trim_end_matches([',', '.', ':'])) {
            let option = option.split(['=', '[', '\'']).next().expect("one at least");
            assert!(page.contains(option), "{verb}: {option}");
        }
    }
}
