//! `steadfast dif`, and images of sectors and tuples as volumes.

use crate::support::{Said, Server, finish, flip, noise, other, program, qemu_io, steadfast, text};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).expect("there is room");
        self.path(name)
    }

    /// The program in this folder: files are named as they are called.
    fn run(&self, line: &str) -> Said {
        let mut command = program();
        command.current_dir(self.0.path()).args(line.split_whitespace());
        finish(command)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("it is there")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("it is ours");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        let mut names: Vec<String> =
            names.map(|name| name.into_string().expect("a plain name")).collect();
        names.sort();
        names
    }

    fn golden(name: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
        let (packed, files) = (golden.join(format!("{name}.img.zst")), Self::new());
        let to = files.path("nvme.img");
        other("zstd", "zstd", ["-dq", text(&packed), "-o", text(&to)]).ended(0);
        files
    }
}

/// What the manifest of the golden images says of one.
fn entry(name: &str) -> Value {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let manifest = fs::read_to_string(golden.join("manifest.json")).expect("it is there");
    let manifest: Value = serde_json::from_str(&manifest).expect("it is JSON");
    let entries = manifest["entries"].as_array().expect("a list");
    let entry = entries.iter().find(|entry| entry["name"] == name);
    entry.unwrap_or_else(|| panic!("{name} is not in the manifest")).clone()
}

/// The options of every layout, and which file has the tuples; separate metadata is called `tuples`.
fn layouts() -> [(&'static str, &'static str); 3] {
    [
        ("--layout interleaved", "image"),
        ("--layout separate --metadata-file tuples", "tuples"),
        ("--layout nvme-qemu", "image"),
    ]
}

#[test]
fn every_verb_works_on_every_layout() {
    for (layout, holder) in layouts() {
        for format in [
            "--block-size 512",
            "--block-size 0x1000 --metadata-size 64 --guard crc64 --tuple first",
            "--block-size 4096 --metadata-size 64 --guard ip --tuple last --type 3",
            "--block-size 4K --interval 512 --metadata-size 8 --type 2",
            "--block-size 4096 --guard crc32c --storage-tag-bits 20 --storage-tag 0xabcde",
            "--block-size 512 --app-tag 0x1234/0xfff0",
        ] {
            let files = Files::new();
            let data = files.write("data", &noise(4096 * 700, 3));
            let flags = format!("{layout} {format}");
            files.run(&format!("dif insert data {flags} --out image")).ended(0);
            let said =
                files.run(&format!("dif verify image {flags} --check guard,app,ref,storage"));
            let said = said.ended(0);
            assert!(said.text().contains("nothing wrong"), "{said}");
            files.run(&format!("dif strip image {flags} --out again")).ended(0);
            assert!(files.read("again") == fs::read(&data).expect("it is there"), "{flags}");

            // Tuples made anew of the same are the same.
            files.run(&format!("dif generate image {flags} --out anew")).ended(0);
            assert!(files.read("anew") == files.read(holder), "{flags}");
            let listed = files.run(&format!("dif tags image {flags} --json")).ended(0).object();
            assert_eq!(listed["run_count"], 1, "{listed}");
            let object = files.run(&format!("dif verify image {flags} --json")).ended(0).object();
            assert_eq!(object["checked"], object["intervals"], "{object}");
            assert_eq!(object["bad_intervals"], 0, "{object}");
        }
    }
}

#[test]
fn converted_and_remapped_images_verify_as_what_they_became() {
    for (layout, holder) in layouts() {
        let files = Files::new();
        files.write("data", &noise(4096 * 300, 3));
        let flags = format!("{layout} --block-size 4096 --metadata-size 16 --guard crc16");
        files.run(&format!("dif insert data {flags} --out image")).ended(0);
        let before = files.read(holder);
        let there = format!("dif convert image {flags} --to-guard crc64 --out converted");
        files.run(&there).ended(0);
        // The owner's eight bytes stay.
        let (image, metadata) =
            if holder == "tuples" { ("image", "converted") } else { ("converted", "tuples") };
        let layout = layout.replace("tuples", metadata);
        let flags = format!("{layout} --block-size 4096");
        let converted = format!("{flags} --metadata-size 24 --guard crc64");
        files.run(&format!("dif verify {image} {converted}")).ended(0);
        let back = format!("dif convert {image} {converted} --to-guard crc16 --out back");
        files.run(&back).ended(0);
        assert!(files.read("back") == before, "{layout}");

        let remap =
            format!("dif remap {image} {converted} --to-ref-tag 0xfffffffffff0 --out moved");
        files.run(&remap).ended(0);
        let (image, metadata) =
            if holder == "tuples" { ("image", "moved") } else { ("moved", "tuples") };
        let layout = layout.replace("converted", metadata);
        let moved = format!("{layout} --block-size 4096 --metadata-size 24 --guard crc64");
        let said = files.run(&format!("dif verify {image} {moved} --ref-tag 0xfffffffffff0"));
        said.ended(0);
        let said = files.run(&format!("dif verify {image} {moved} --json")).ended(2).object();
        assert_eq!(said["bad_by"]["ref"], 300, "{said}");
        files.run(&format!("dif verify {image} {moved} --check guard")).ended(0);
    }
}

#[test]
fn a_bad_interval_is_one_line_with_block_tag_values_and_bytes() {
    let files = Files::new();
    let data = files.write("data", &noise(512 * 3000, 5));
    files.run("dif insert data --out image").ended(0);
    flip(&files.path("image"), 2000 * 520 + 99);
    flip(&files.path("image"), 7 * 520 + 512 + 7);
    let said = files.run("dif verify image").ended(2);
    let lines: Vec<String> = said.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, wanted) in lines.iter().zip([
        ["block 7, interval 0, address 7: reference tag", "expected 0x00000007", "byte 4152"],
        [
            "block 2000, interval 0, address 2000: guard tag",
            "the data says 0x",
            "data at byte 1040000",
        ],
        ["3000 intervals: 3000 checked", "2 bad", "1 guard, 1 ref"],
    ]) {
        wanted.iter().for_each(|wanted| assert!(line.contains(wanted), "'{wanted}': {said}"));
    }
    let object = files.run("dif verify image --json").ended(2).object();
    assert_eq!(object["bad"][0]["stored"], "0x9d", "{object}");
    assert_eq!(object["bad"][1]["tag"], "guard", "{object}");
    assert_eq!(object["bad"][1]["data_byte"], 1_040_000, "{object}");
    // What is out of the range is not looked at.
    files.run("dif verify image --range 8-0x7d0").ended(0);
    files.run("dif verify image --range 8-2001").ended(2);
    files.run("dif verify image --check app,guard --range 0-2000").ended(0);

    // The data without what nothing vouches for; the tuples stay as wrong as they were.
    files.run("dif strip image --out stripped").ended(2);
    let mut expected = fs::read(data).expect("it is there");
    expected[7 * 512..8 * 512].fill(0);
    expected[2000 * 512..2001 * 512].fill(0);
    assert!(files.read("stripped") == expected);
    for (verb, flags) in [
        ("convert image --to-guard ip", "--guard ip"),
        ("remap image --to-ref-tag 5", "--ref-tag 5"),
        ("tags image --from data --coding safe --range 0-3000", ""),
    ] {
        let source = if verb.starts_with("tags") { "owner" } else { "data" };
        files.write("owner", b"whose blocks these are");
        let verb = verb.replace("--from data", &format!("--from {source}"));
        files.run(&format!("dif {verb} --out other --yes")).ended(2);
        let bad = files.run(&format!("dif verify other --json {flags}")).ended(2).object();
        let blocks = bad["bad"].as_array().expect("a list").iter().map(|one| &one["block"]);
        assert_eq!(blocks.collect::<Vec<_>>(), [7, 2000], "{verb}");
    }
}

#[test]
fn the_applications_bytes_come_back_with_the_blocks() {
    for coding in ["plain", "safe"] {
        let files = Files::new();
        files.write("data", &noise(512 * 1000, 5));
        files.write("owner", "a file system's words about its blocks ".repeat(40).as_bytes());
        files.run("dif insert data --out image").ended(0);
        let flags = format!("--coding {coding}");
        files.run(&format!("dif tags image {flags} --from owner --out tagged")).ended(0);
        files.run("dif verify tagged").ended(0);
        files.run(&format!("dif tags tagged {flags} --to bytes")).ended(0);
        let streamed = files.run(&format!("dif tags tagged {flags} --to -")).ended(0).stdout;
        assert!(streamed == files.read("bytes") && streamed.starts_with(&files.read("owner")));
        let listed = files.run("dif tags tagged --range 900-").ended(0);
        assert_eq!(listed.text().trim_end(), "intervals 900 to 999: 0x0000");
    }
    let files = Files::new();
    files.write("data", &[1; 512 * 4]);
    files.write("owner", &[0xff; 3]);
    files.write("long", &[1; 9]);
    files.run("dif insert data --out image").ended(0);
    let escape = files.run("dif tags image --from owner --out tagged");
    escape.one_line(3, &["the escape in interval 0", "--coding safe"]);
    let long = files.run("dif tags image --from long --out tagged");
    long.one_line(3, &["long: more bytes than", "4 intervals hold, 8"]);
    assert!(!files.path("tagged").exists());
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let files = Files::new();
    files.write("data", &noise(512 * 10, 5));
    files.run("dif insert data --out image").ended(0);
    files.write("owner", b"bytes");
    let before = files.names();
    for (line, bytes) in [
        ("insert data --out other", 5200),
        ("insert data --metadata-file m --out other", 5120),
        ("generate image --out other", 5200),
        ("strip image --out other", 5120),
        ("convert image --to-guard ip --out other", 5200),
        ("remap image --to-ref-tag 7 --out other", 5200),
        ("tags image --from owner --out other", 5200),
        ("tags image --to other", 20),
    ] {
        let said = files.run(&format!("dif {line} --dry-run --json")).ended(0).object();
        assert_eq!(said["writes"][0]["bytes"], bytes, "{line}: {said}");
        let said = files.run(&format!("dif {line} --dry-run")).ended(0);
        assert!(said.text().starts_with("would write other"), "{said}");
        assert_eq!(files.names(), before, "{line}");
    }
}

#[test]
fn strip_writes_a_map_of_what_nothing_vouches_for() {
    let files = Files::new();
    files.write("data", &noise(512 * 10, 5));
    files.run("dif insert data --out image").ended(0);
    flip(&files.path("image"), 3 * 520 + 9);
    let before = files.names();
    let said = files.run("dif strip image --out out --map map --dry-run").ended(0);
    assert!(said.text().contains("would write out, 5120 bytes\nwould write map\n"), "{said}");
    files.run("dif strip image --out out --map ./image --yes").one_line(3, &["is named twice"]);
    files.run("dif strip image --out out --map out").one_line(3, &["out: is named twice"]);
    assert_eq!(files.names(), before);
    let said = files.run("dif strip image --out out --map map").ended(2);
    assert!(said.text().contains("wrote map, "), "{said}");
    let map = String::from_utf8(files.read("map")).expect("it is text");
    let blocks: Vec<&str> = map.lines().filter(|line| line.ends_with('-')).collect();
    assert_eq!(blocks, ["0x00000600  0x00000200  -"]);
    let said = files.run("dif strip image --out another --map map");
    said.one_line(3, &["map: exists already", "--yes"]);
    files.run("dif strip image --out another --map map --yes").ended(2);
}

#[test]
fn nothing_is_overwritten_without_yes_and_what_is_read_never() {
    let files = Files::new();
    files.write("data", &noise(512 * 10, 5));
    files.run("dif insert data --out image").ended(0);
    files.write("old", b"what was there");
    for line in ["generate image", "strip image", "convert image --to-guard ip", "insert data"] {
        let said = files.run(&format!("dif {line} --out old"));
        said.one_line(3, &["old: exists already", "--yes"]);
        let itself = line.split_whitespace().nth(1).expect("a file");
        let said = files.run(&format!("dif {line} --out ./{itself} --yes"));
        said.one_line(3, &["is named twice"]);
        files.run(&format!("dif {line} --out . --yes")).one_line(3, &["not a regular file"]);
        files.run(&format!("dif {line} --out no/where")).one_line(4, &["no/where"]);
    }
    files.run("dif insert data --out m --metadata-file m").one_line(3, &["m: is named twice"]);
    assert_eq!(files.read("old"), b"what was there");
    assert_eq!(files.names(), ["data", "image", "old"]);
    files.run("dif strip image --out old --yes").ended(0);
    assert!(files.read("old") == files.read("data"));
}

#[test]
fn a_file_that_is_not_whole_is_said_so() {
    let files = Files::new();
    files.write("data", &noise(512 * 10, 5));
    files.run("dif insert data --out image").ended(0);
    let image = files.read("image");
    files.write("short", &image[..9 * 520 + 17]);
    let said = files.run("dif verify short").ended(2);
    assert!(said.text().contains("short: ends within block 9: 17 of 520 bytes"), "{said}");
    assert!(said.text().contains("9 intervals: 9 checked; nothing wrong"), "{said}");
    files.run("dif strip short --out out").one_line(3, &["ends within block 9", "--range"]);
    files.run("dif strip short --out out --range 0-9").ended(0);
    assert!(files.read("out") == files.read("data")[..9 * 512]);
    files.run("dif verify short --range 5-11").one_line(3, &["blocks 5 to 11", "has 9"]);
    files.write("ragged", &noise(1000, 1));
    files.run("dif insert ragged --out new").one_line(3, &["ends within block 1: 488 of 512"]);
    files.write("empty", b"");
    files.run("dif verify empty").one_line(3, &["empty: 0 bytes", "520"]);
    files.run("dif verify nowhere").one_line(4, &["nowhere"]);
    files.run("dif verify .").one_line(3, &["a directory"]);
    files.write("tuples", &[0; 8 * 9]);
    let said = files.run("dif verify data --metadata-file tuples");
    assert!(said.text().contains("metadata for 9 blocks, the data has 10"), "{said}");
    said.ended(2);
    assert!(!files.path("new").exists());
}

#[test]
fn what_makes_no_sense_is_one_line_that_names_the_flag() {
    let files = Files::new();
    files.write("image", &[0; 5200]);
    let before = files.names();
    for (line, wanted) in [
        ("verify image --layout mixed", &["--layout: found 'mixed'", "nvme-qemu"][..]),
        ("verify image --layout separate", &["--metadata-file: not given"]),
        ("verify image --layout nvme-qemu --metadata-file m", &["--metadata-file", "nvme-qemu"]),
        ("verify image --block-size 0", &["--block-size: found '0'"]),
        ("verify image --block-size 520", &["--block-size", "multiple of 512"]),
        ("verify image --block-size 99999999999999999999", &["--block-size: found"]),
        ("verify image --guard crc64 --metadata-size 8", &["--metadata-size", "crc64", "has 16"]),
        ("verify image --guard md5", &["--guard: found 'md5'", "crc32c"]),
        ("verify image --type 4", &["--type: found '4'", "1, 2 or 3"]),
        ("verify image --type 0x1", &["--type: found"]),
        ("verify image --tuple middle", &["--tuple: found 'middle'", "first or last"]),
        ("verify image --metadata-size 7", &["--metadata-size", "has 8"]),
        ("verify image --metadata-size 70000", &["--metadata-size", "65535"]),
        ("verify image --interval 1024", &["--interval", "512"]),
        ("verify image --block-size 1536 --interval 512", &["--interval", "1536"]),
        (
            "verify image --block-size 4096 --interval 512 --metadata-size 63",
            &["--metadata-size: 63", "8 equal parts"],
        ),
        ("verify image --storage-tag-bits 33", &["--storage-tag-bits", "0 to 32"]),
        ("verify image --storage-tag-bits 999", &["--storage-tag-bits"]),
        ("verify image --storage-tag 1", &["--storage-tag: found '1'", "--storage-tag-bits"]),
        ("verify image --storage-tag-bits 4 --storage-tag 16", &["--storage-tag", "0xf"]),
        ("verify image --app-tag 0x10000", &["--app-tag", "0xffff"]),
        ("verify image --app-tag 1/", &["--app-tag", "number"]),
        ("verify image --app-tag 0xffff", &["--app-tag", "escape"]),
        ("verify image --ref-tag -1x", &["--ref-tag"]),
        ("verify image --ref-tag ten", &["--ref-tag: found 'ten'", "0x11"]),
        ("verify image --check guard,lrc", &["--check: found 'lrc'"]),
        ("verify image --range 5", &["--range: found '5'"]),
        ("verify image --range 5-5", &["--range"]),
        ("generate image", &["--out: not given"]),
        ("strip image", &["--out: not given"]),
        ("convert image --out x", &["--to-guard: not given"]),
        ("remap image --out x", &["--to-ref-tag: not given"]),
        ("remap image --type 3 --to-ref-tag 1 --out x", &["type 3"]),
        ("insert image --layout separate --out x", &["--metadata-file: not given"]),
        ("tags image --out x", &["--out", "--from"]),
        ("tags image --from image", &["--out: not given"]),
        ("tags image --coding base64 --to x", &["--coding: found 'base64'"]),
    ] {
        // A value that looks like a flag is refused before we see it, in clap's words.
        let said = files.run(&format!("dif {line}")).ended(64);
        if !line.contains("-1x") {
            said.one_line(64, wanted);
        }
        assert_eq!(files.names(), before, "{line}");
    }
    for line in ["dif", "dif frobnicate x", "dif verify", "dif verify image --frob"] {
        files.run(line).ended(64);
    }
}

#[test]
fn an_interrupted_verb_leaves_no_file_and_says_how_to_go_on() {
    let files = Files::new();
    // Long enough to be interrupted, without taking room.
    let sparse = fs::File::create(files.path("image")).expect("the folder is ours");
    sparse.set_len(520 << 24).expect("it is sparse");
    for (line, wanted) in [
        ("dif verify image -q --check guard", "resume with --range "),
        ("dif generate image -q --out made", "no file was written"),
    ] {
        let mut command = program();
        command.current_dir(files.0.path()).args(line.split_whitespace());
        let mut child =
            command.args(["--progress", "json"]).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let mut text = String::new();
        // Once it tells how far it is, it listens.
        said.read_line(&mut text).expect("it tells");
        let id = i32::try_from(child.id()).expect("a process");
        let id = rustix::process::Pid::from_raw(id).expect("it runs");
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it is ours");
        said.read_to_string(&mut text).expect("it ends");
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{text}");
        assert!(
            text.contains("steadfast: interrupted at block") && text.contains(wanted),
            "{text}"
        );
        assert_eq!(files.names(), ["image"]);
    }
}

#[test]
fn inspect_says_what_an_image_looks_like_and_its_command_works() {
    for (layout, format) in [
        ("interleaved", "--block-size 512"),
        ("interleaved", "--block-size 4096 --metadata-size 64 --guard crc64 --tuple first"),
        ("nvme-qemu", "--block-size 4096 --metadata-size 16 --tuple last"),
        ("nvme-qemu", "--block-size 512 --type 2 --ref-tag 0x77"),
    ] {
        let files = Files::new();
        files.write("data", &noise(4096 * 200, 9));
        files.run(&format!("dif insert data --layout {layout} {format} --out image")).ended(0);
        let said = files.run("inspect image").ended(0);
        assert!(said.stderr.is_empty(), "{said}");
        let told = said.text();
        let command = told.lines().find_map(|line| line.split_once("steadfast dif verify"));
        let (_, options) = command.unwrap_or_else(|| panic!("no command: {said}"));
        let object = files.run(&format!("dif verify {options} --json")).ended(0).object();
        assert_eq!(object["checked"], object["intervals"], "{object}");
        let object = files.run("inspect image --json").ended(0).object();
        let likes = object["members"][0]["protection"].as_array().expect("a list").clone();
        assert_eq!(likes.len(), 1, "{object}");
        assert_eq!(likes[0]["layout"], layout, "{object}");
    }
    let files = Files::new();
    files.write("noise", &noise(1 << 20, 4));
    files.run("inspect noise").one_line(3, &["not a member"]);
}

/// The kernel wrote these through QEMU's NVMe device; the manifest says what is wrong in them.
#[test]
fn what_the_kernel_wrote_through_qemu_is_verified_and_its_bad_blocks_are_named() {
    for (name, format, bad_blocks) in [
        ("nvme-q10.0", "--block-size 512", 2),
        ("nvme-q10.2", "--block-size 4096", 2),
        ("nvme-q10.4", "--block-size 4096 --type 3", 1),
        ("nvme-q10.6", "--block-size 4096 --metadata-size 16", 2),
        ("nvme-q10.8", "--block-size 4096 --guard crc64", 2),
    ] {
        let (files, entry) = (Files::golden(name), entry(name));
        let line = format!("dif verify nvme.img --layout nvme-qemu {format} --json");
        let object = files.run(&line).ended(2).object();
        let wrong = entry["wrong"].as_array().expect("a list");
        let found = object["bad"].as_array().expect("a list");
        assert_eq!((found.len(), wrong.len()), (bad_blocks, bad_blocks), "{name}: {object}");
        for (found, wrong) in found.iter().zip(wrong) {
            assert_eq!(found["block"], wrong["block"], "{name}: {object}");
            let tag = wrong["tag"].as_str().expect("a tag's name");
            assert!(tag.starts_with(found["tag"].as_str().expect("a tag")), "{name}: {object}");
            let stored = wrong["stored"].as_u64().expect("a number");
            assert_eq!(found["stored"], format!("{stored:#x}"), "{name}: {object}");
        }
        assert!(object["checked"].as_u64() >= Some(66), "{object}");
        assert!(object["unwritten"].as_u64() > Some(900), "{object}");
        let inspected = files.run("inspect nvme.img --json").ended(0).object();
        let like = &inspected["members"][0]["protection"][0];
        for field in ["layout", "block_size", "metadata_size", "type", "guard"] {
            assert_eq!(like[field], object[field], "{name}, {field}: {inspected}");
        }
    }
    // Metadata without protection information looks like nothing.
    let files = Files::golden("nvme-q10.10");
    let inspected = files.run("inspect nvme.img --json");
    assert_eq!(inspected.object()["members"][0]["protection"], Value::Array(Vec::new()));
}

#[test]
fn images_are_volumes_whose_tuples_are_made_and_checked() {
    for (prefix, layout) in [("sectors", "interleaved"), ("nvme-qemu", "nvme-qemu")] {
        let files = Files::new();
        files.write("data", &noise(512 * 1000, 5));
        files.write("more", &noise(512 * 100, 6));
        files.run(&format!("dif insert data --layout {layout} --out image")).ended(0);
        let stack = format!("{prefix}:512+8/t10-dif-type1-crc16:image");
        let stack = format!("--stack {stack}");
        files.run(&format!("export {stack} --to out")).ended(0);
        assert!(files.read("out") == files.read("data"), "{layout}");
        files.run(&format!("import {stack} --from more --offset 5120")).ended(0);
        let verify = format!("dif verify image --layout {layout} --no-escapes");
        files.run(&verify).ended(0);
        let socket = files.path("nbd.sock");
        let absolute = format!("{prefix}:512+8/t10-dif-type1-crc16:{}", text(&files.path("image")));
        let served = ["--stack", &absolute];
        let server = Server::start(&[], files.0.path(), &served);
        assert!(socket.exists());
        qemu_io(&server.uri, "write -P 0x5a 64k 32k").expect("it takes writes");
        qemu_io(&server.uri, "read -P 0x5a 64k 32k").expect("and gives them back");
        qemu_io(&server.uri, "write -z 128k 32k").expect("and zeroes");
        qemu_io(&server.uri, "flush").expect("and flushes");
        server.kill();
        files.run(&verify).ended(0);

        // A block whose bytes are not those of its tuple is not given out.
        let place = if prefix == "sectors" { 20 * 520 } else { 20 * 512 };
        flip(&files.path("image"), place + 9);
        let said = files.run(&format!("export {stack} --to damaged"));
        assert_eq!(said.code, 2, "{said}");
        assert!(said.stderr.contains("unreadable: sector 20, 1 sectors"), "{said}");
    }
}

#[test]
fn a_member_whose_protection_makes_no_sense_is_refused_by_name() {
    for (name, wanted) in [
        ("sectors:512+8/t10-dif-type9-crc16:a", "t10-dif-type1-crc16"),
        ("nvme-qemu:4096+8/t10-dif-type1-crc64:a", "16"),
        ("nvme-qemu:4096+8", "nvme-qemu:512+8:PATH"),
        ("nvme-qemu:520:a", "512+8"),
    ] {
        steadfast(["status", name]).one_line(64, &[wanted]);
    }
}
