//! Guards beside other people's: Intel's ISA-L (CRC-16/T10-DIF, CRC-32C; Debian's libisal 2.30 has no
//! CRC-64/NVME), and the crate `crc-fast` (all three).

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use steadfast_dif::Guard;

/// Reads records (length as eight bytes, little-endian, then as many bytes) and prints two CRCs of each.
const PROGRAM: &str = r#"
#include <cstdint>
#include <cstdio>
#include <vector>
#include <isa-l.h>
int main() {
    uint64_t length;
    while (fread(&length, 8, 1, stdin) == 1) {
        std::vector<unsigned char> data(length + 1);
        if (fread(data.data(), 1, length, stdin) != length) return 1;
        printf("%x %x\n", crc16_t10dif(0, data.data(), length),
               ~crc32_iscsi(data.data(), (int)length, 0xffffffffu));
    }
}
"#;

/// Bytes of every length that paths differ by, and whole intervals.
fn inputs() -> Vec<Vec<u8>> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()[0]
    };
    let lengths =
        (0..300).chain([511, 512, 513, 520, 1024, 4095, 4096, 4104, 4152, 65536, 100_003]);
    let mut inputs: Vec<Vec<u8>> =
        lengths.map(|length| (0..length).map(|_| byte()).collect()).collect();
    inputs.extend([0, 0xff].map(|byte| vec![byte; 4096]));
    inputs
}

#[test]
fn libisal_makes_the_same_crc16_and_crc32c() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("libisal.cc"), folder.join("libisal"));
    std::fs::write(&source, PROGRAM).unwrap();
    let built = Command::new("g++").arg("-o").arg(&program).arg(&source).arg("-lisal").output();
    let built = built.expect("g++ is installed: cargo xtask ci --only packages");
    let complaint = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "libisal-dev is installed: {complaint}");

    let (mut given, mut expected) = (Vec::new(), String::new());
    for data in inputs() {
        given.extend(u64::try_from(data.len()).unwrap().to_le_bytes());
        given.extend(&data);
        writeln!(expected, "{:x} {:x}", Guard::Crc16.of(&data), Guard::Crc32c.of(&data)).unwrap();
    }
    let mut peer = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was just built");
    let mut input = peer.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&given));
    let output = peer.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn crc_fast_makes_the_same_crcs() {
    use crc_fast::CrcAlgorithm::{Crc16T10Dif, Crc32Iscsi, Crc64Nvme};
    for data in inputs() {
        for (guard, peer) in
            [(Guard::Crc16, Crc16T10Dif), (Guard::Crc32c, Crc32Iscsi), (Guard::Crc64, Crc64Nvme)]
        {
            let theirs = crc_fast::checksum(peer, &data);
            assert_eq!(guard.of(&data), theirs, "{guard} of {} bytes", data.len());
        }
    }
}
