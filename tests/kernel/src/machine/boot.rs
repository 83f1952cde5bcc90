//! What the machine starts from: the kernel as an ELF file, and its first file system.
//!
//! The kernel is taken out of its compressed image, so that the emulated processor does not have
//! to unpack it; qemu starts it through its PVH entry. The file system has two parts: modules and
//! tools, which are made once, and our scripts, which are put behind them each time.

use super::{cpio::Archive, debian};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Two files for qemu, and what is in them.
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// The kernel's own name for its version.
    pub(crate) release: String,
    pub(crate) memory_mib: u32,
}

/// Makes what is missing below `folder`.
///
/// # Errors
/// If packages cannot be had, or are not as they were when this was written.
pub(crate) fn prepare(folder: &Path) -> anyhow::Result<Boot> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let package = debian::kernel(folder)?;
    let tools = debian::tools(folder, debian::TOOLS)?;
    let release = only_entry(&package.join("lib/modules"))?;
    let kernel = folder.join(format!("vmlinux-{release}"));
    if !kernel.is_file() {
        let image = std::fs::read(package.join(format!("boot/vmlinuz-{release}")))?;
        write_whole(&kernel, &unpack_kernel(&image)?)?;
    }
    let list = debian::fingerprint(&[MODULES, PROGRAMS].concat());
    let base = folder.join(format!("base-{release}-{list}.cpio"));
    if !base.is_file() {
        let mut archive = Archive::default();
        add_modules(&mut archive, &package, &release)?;
        add_tools(&mut archive, &tools)?;
        write_whole(&base, &archive.finish())?;
    }
    let mut bytes = std::fs::read(&base)?;
    bytes.extend(scripts().finish());
    let initramfs = folder.join("initramfs.cpio");
    write_whole(&initramfs, &bytes)?;
    Ok(Boot { kernel, initramfs, release, memory_mib: 768 })
}

/// The same with room for RAM disks, with fio, and with `program`, which was built here, as
/// `/sbin/steadfast`.
///
/// # Errors
/// If packages cannot be had.
pub(crate) fn prepare_for_speed(folder: &Path, program: &Path) -> anyhow::Result<Boot> {
    let boot = prepare(folder)?;
    let tree = debian::tools(folder, &["fio"])?;
    let mut archive = Archive::default();
    add_programs(&mut archive, &tree, &[tree.join("usr/bin/fio"), program.to_owned()])?;
    let mut bytes = std::fs::read(&boot.initramfs)?;
    bytes.extend(archive.finish());
    let initramfs = folder.join("initramfs-speed.cpio");
    write_whole(&initramfs, &bytes)?;
    Ok(Boot { initramfs, memory_mib: 2048, ..boot })
}

fn scripts() -> Archive {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "tmp", "etc", "run/lock", "run/cryptsetup", "run/mdadm", "mnt"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", include_bytes!("../../guest/init.sh"));
    archive.file("lib.sh", include_bytes!("../../guest/lib.sh"));
    for (name, first) in KEYS {
        archive.file(name, &key(*first));
    }
    archive
}

/// The bytes of a key of which the first byte is `first`.
pub(crate) fn key(first: u8) -> Vec<u8> {
    (first..first + KEY_BYTES).collect()
}

/// The ELF file inside a bzImage. Offsets are those of the kernel's documented x86 boot protocol:
/// `setup_sects` at 0x1f1, `payload_offset` and `payload_length` at 0x248.
fn unpack_kernel(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup_sectors = usize::from(*image.get(0x1f1).context("an empty kernel image")?);
    let payload = word(0x248).zip(word(0x24c)).and_then(|(offset, length)| {
        let begin = (setup_sectors + 1) * 512 + offset;
        image.get(begin..begin + length)
    });
    let payload = payload.context("the kernel image names no payload")?;
    // The build appends the unpacked length, which a decompressor takes for rubbish.
    let packed = &payload[..payload.len().saturating_sub(4)];
    let program = match packed {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        _ => bail!("the kernel's payload is compressed in a way that is not known here"),
    };
    let kernel = filter(program, packed)?;
    ensure!(kernel.starts_with(b"\x7fELF"), "the kernel's payload is no ELF file");
    Ok(kernel)
}

/// The modules of [`MODULES`] with those they depend on, unpacked, and the tables by which
/// `modprobe` finds them.
fn add_modules(archive: &mut Archive, package: &Path, release: &str) -> anyhow::Result<()> {
    let root = package.join("lib/modules").join(release);
    let mut files = BTreeMap::new();
    collect_modules(&root.join("kernel"), &mut files)?;
    let mut wanted: Vec<String> = MODULES.iter().map(|&name| name.to_owned()).collect();
    let mut loaded = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if loaded.contains_key(&name) {
            continue;
        }
        // What is compiled in has no file.
        let Some(path) = files.get(&name) else { continue };
        let bytes = match path.extension().is_some_and(|extension| extension == "xz") {
            true => filter("xz", &std::fs::read(path)?)?,
            false => std::fs::read(path)?,
        };
        let depends: Vec<String> = module_info(&bytes, "depends")
            .flat_map(|list| list.split(',').map(plain_name).collect::<Vec<_>>())
            .filter(|name| !name.is_empty())
            .collect();
        wanted.extend(depends.iter().cloned());
        loaded.insert(name, (bytes, depends));
    }
    let folder = format!("lib/modules/{release}");
    let (mut dependencies, mut aliases) = (String::new(), String::new());
    for (name, (bytes, _)) in &loaded {
        archive.file(&format!("{folder}/{name}.ko"), bytes);
        dependencies += &format!("{name}.ko:{}\n", closure(name, &loaded));
        for alias in module_info(bytes, "alias") {
            aliases += &format!("alias {alias} {name}\n");
        }
    }
    archive.file(&format!("{folder}/modules.dep"), dependencies.as_bytes());
    archive.file(&format!("{folder}/modules.alias"), aliases.as_bytes());
    Ok(())
}

/// All that `name` depends on, as `modules.dep` wants it: the last to be loaded first.
fn closure(name: &str, modules: &BTreeMap<String, (Vec<u8>, Vec<String>)>) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut wanted = vec![name];
    while let Some(name) = wanted.pop() {
        let Some((_, depends)) = modules.get(name) else { continue };
        for depend in depends {
            // Whoever is needed again is needed earlier.
            order.retain(|known| known != depend);
            order.push(depend);
            wanted.push(depend);
        }
    }
    order.iter().map(|name| format!(" {name}.ko")).collect()
}

fn collect_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect_modules(&path, files)?;
        } else if let Some((name, _)) = name.split_once(".ko") {
            files.insert(plain_name(name), path);
        }
    }
    Ok(())
}

/// Modules are named with either dash; the kernel says the lower one.
fn plain_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The values of `key` among the `key=value` texts, each ended by a zero, in a module.
fn module_info<'a>(module: &'a [u8], key: &str) -> impl Iterator<Item = &'a str> {
    let prefix = format!("{key}=");
    module
        .split(|byte| *byte == 0)
        .filter_map(move |text| std::str::from_utf8(text).ok()?.strip_prefix(prefix.as_str()))
}

/// The programs of [`PROGRAMS`], and the shell.
fn add_tools(archive: &mut Archive, tools: &Path) -> anyhow::Result<()> {
    archive.file("bin/busybox", &std::fs::read(tools.join("bin/busybox"))?);
    let mut programs = Vec::new();
    for name in PROGRAMS {
        let mut places =
            ["sbin", "usr/sbin"].map(|folder| tools.join(folder).join(name)).into_iter();
        let program = places.find(|path| path.is_file());
        programs.push(program.with_context(|| format!("no package brought {name}"))?);
    }
    add_programs(archive, tools, &programs)
}

/// Programs and their libraries, as the loader of their own release, in `tools`, sees them.
fn add_programs(archive: &mut Archive, tools: &Path, programs: &[PathBuf]) -> anyhow::Result<()> {
    let loader = tools.join("lib64/ld-linux-x86-64.so.2");
    let loader = std::fs::canonicalize(&loader)
        .or_else(|_| std::fs::canonicalize(tools.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")))
        .context("the loader of the guest's programs")?;
    archive.file("lib64/ld-linux-x86-64.so.2", &std::fs::read(&loader)?);
    let folders =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];
    let folders = folders.map(|folder| tools.join(folder));
    let path = folders.map(|folder| folder.display().to_string()).join(":");
    let mut libraries = BTreeMap::new();
    for program in programs {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        archive.file(&format!("sbin/{name}"), &std::fs::read(program)?);
        let output = Command::new(&loader)
            .args(["--list", "--library-path", &path])
            .arg(program)
            .output()
            .context("start the guest's loader")?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            // "libfoo.so.1 => /path/libfoo.so.1 (0x00007f...)"
            let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
            let file = rest.split_whitespace().next().unwrap_or_default();
            libraries.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    for (name, file) in libraries {
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        archive.file(&format!("lib/x86_64-linux-gnu/{name}"), &bytes);
    }
    Ok(())
}

/// `input` unpacked by a program.
fn filter(program: &str, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(["-d", "-c", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program} (`cargo xtask packages` installs it)"))?;
    let mut stdin = child.stdin.take().context("its standard input")?;
    let output = std::thread::scope(|scope| {
        let feed = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output();
        feed.join().expect("writing does not panic")?;
        output
    })?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(output.stdout)
}

fn only_entry(folder: &Path) -> anyhow::Result<String> {
    let entry = std::fs::read_dir(folder)?.next().context("the kernel package has no modules")?;
    Ok(entry?.file_name().to_string_lossy().into_owned())
}

/// A file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).with_context(|| part.display().to_string())?;
    std::fs::rename(&part, path).with_context(|| path.display().to_string())
}

/// Keys that lie in the guest's root folder, with their first byte; the others count on from it.
/// They are those of `golden/manifest.json`.
pub(crate) const KEYS: &[(&str, u8)] = &[("k.hmac", 0x00), ("k.jmac", 0x20), ("k.jcrypt", 0x40)];

/// Bytes of every key.
pub(crate) const KEY_BYTES: u8 = 32;

/// What the guest runs, beside busybox.
const PROGRAMS: &[&str] =
    &["dmsetup", "e2fsck", "integritysetup", "mdadm", "mke2fs", "nbd-client", "nvme"];

/// What the guest loads, or loads by itself when an algorithm is asked for. What they depend on
/// comes along; what a kernel has compiled in is left out.
const MODULES: &[&str] = &[
    // The disks.
    "sd_mod",
    "virtio_scsi",
    // What is judged.
    "dm_crypt",
    "dm_integrity",
    "dm_mod",
    "md_mod",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    // Algorithms of tags, MACs and journal encryption.
    "aesni_intel",
    "algif_hash",
    "algif_skcipher",
    "authenc",
    "blake2b_generic",
    "cbc",
    "crc32_generic",
    "crc32_pclmul",
    "crc32c_generic",
    "crc32c_intel",
    "ctr",
    "ecb",
    "hmac",
    "libcrc32c",
    "sha1_generic",
    "sha1_ssse3",
    "sha256_generic",
    "sha256_ssse3",
    "sha512_generic",
    "sha512_ssse3",
    "xxhash_generic",
    // A RAM disk.
    "brd",
    // Disks with protection information: NVMe, the kernel's SCSI target and its fake host.
    "nvme",
    "scsi_debug",
    "target_core_file",
    "tcm_loop",
    // A client of our server.
    "ext4",
    "nbd",
    "virtio_net",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_info_is_found_by_key() {
        let module = b"\x7fELF\0depends=a,b-c\0alias=crypto-x\0alias=y\0xdepends=z\0";
        let of = |key| module_info(module, key).collect::<Vec<_>>();
        assert_eq!(of("depends"), ["a,b-c"]);
        assert_eq!(of("alias"), ["crypto-x", "y"]);
    }

    #[test]
    fn what_is_needed_by_others_is_loaded_before_them() {
        let module = |depends: &[&str]| (vec![], depends.iter().map(|&d| d.to_owned()).collect());
        let modules = BTreeMap::from([
            ("top".to_owned(), module(&["left", "right"])),
            ("left".to_owned(), module(&["base"])),
            ("right".to_owned(), module(&["left"])),
            ("base".to_owned(), module(&[])),
        ]);
        // The list is worked off from its end.
        assert_eq!(closure("top", &modules), " right.ko left.ko base.ko");
    }

    #[test]
    fn an_image_without_a_payload_is_refused() {
        assert!(unpack_kernel(&[0; 16]).is_err());
        assert!(unpack_kernel(&[0; 4096]).is_err());
    }
}
