//! Intel's ISA-L, the peer: its C interface, made safe for whole strips.
#![allow(unsafe_code, reason = "the peer is a C library")]

use std::ffi::{c_int, c_uchar, c_uint, c_void};

/// Whether rows are measured against it.
pub(crate) const PRESENT: bool = true;

/// Writes the XOR of `data` to `p`.
pub(crate) fn xor_gen(data: &[&[u8]], p: &mut [u8]) {
    let length = checked(data, &[p]);
    let mut strips = pointers(data);
    strips.push(p.as_mut_ptr().cast());
    // SAFETY: `checked` saw to lengths and alignment; only the last pointer is written through.
    let failed = unsafe { ffi::xor_gen(int(strips.len()), length, strips.as_mut_ptr()) };
    assert_eq!(failed, 0, "xor_gen takes the strips");
}

/// Writes P and Q of `data`.
pub(crate) fn pq_gen(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    let length = checked(data, &[p, q]);
    let mut strips = pointers(data);
    strips.extend([p.as_mut_ptr().cast::<c_void>(), q.as_mut_ptr().cast()]);
    // SAFETY: `checked` saw to lengths and alignment; only the last two pointers are written
    // through.
    let failed = unsafe { ffi::pq_gen(int(strips.len()), length, strips.as_mut_ptr()) };
    assert_eq!(failed, 0, "pq_gen takes the strips");
}

/// Whether the last strip is the XOR of the others.
pub(crate) fn xor_check(strips: &[&[u8]]) -> bool {
    let length = checked(strips, &[]);
    let mut pointers = pointers(strips);
    // SAFETY: `checked` saw to lengths and alignment; nothing is written.
    unsafe { ffi::xor_check(int(strips.len()), length, pointers.as_mut_ptr()) == 0 }
}

/// Whether the last two strips are P and Q of the others.
pub(crate) fn pq_check(strips: &[&[u8]]) -> bool {
    let length = checked(strips, &[]);
    let mut pointers = pointers(strips);
    // SAFETY: `checked` saw to lengths and alignment; nothing is written.
    unsafe { ffi::pq_check(int(strips.len()), length, pointers.as_mut_ptr()) == 0 }
}

/// The recovery of two data strips from the others, P and Q, with its tables made beforehand.
pub(crate) struct Decoder {
    strip_count: usize,
    tables: Vec<u8>,
}

impl Decoder {
    /// For the data strips `[x, y]` of `data_count`. The coefficients follow from the md
    /// specification, section 7.3, written out per strip.
    pub(crate) fn new(data_count: usize, [x, y]: [usize; 2]) -> Self {
        let (gx, gy) = (gf::exp(x), gf::exp(y));
        let scale = gf::inv(gx ^ gy);
        let mut coefficients = Vec::new();
        // x = (g^y * sP + sQ) / (g^x + g^y), and y likewise.
        for other in [gy, gx] {
            let p = gf::mul(other, scale);
            let known = (0..data_count).filter(|&i| i != x && i != y);
            coefficients.extend(known.map(|i| p ^ gf::mul(gf::exp(i), scale)));
            coefficients.extend([p, scale]);
        }
        let mut tables = vec![0; 32 * 2 * data_count];
        // SAFETY: the matrix has 2 rows of `data_count`, the tables 32 bytes for each entry.
        unsafe {
            ffi::ec_init_tables(int(data_count), 2, coefficients.as_mut_ptr(), tables.as_mut_ptr());
        }
        Self { strip_count: data_count, tables }
    }

    /// Writes x and y, from the known data strips in order, then P, then Q.
    pub(crate) fn decode(&self, known: &[&[u8]], x: &mut [u8], y: &mut [u8]) {
        assert_eq!(known.len(), self.strip_count, "as many strips are known as hold data");
        let length = checked(known, &[x, y]);
        let mut sources = pointers(known);
        let mut targets = [x.as_mut_ptr(), y.as_mut_ptr()];
        // SAFETY: `checked` saw to the lengths, `new` made tables for these counts; the library
        // reads tables and sources and writes the targets.
        unsafe {
            ffi::ec_encode_data(
                length,
                int(known.len()),
                2,
                self.tables.as_ptr().cast_mut(),
                sources.as_mut_ptr().cast(),
                targets.as_mut_ptr(),
            );
        }
    }
}

/// CRC-16/T10-DIF of `data`.
pub(crate) fn crc16_t10dif(data: &[u8]) -> u16 {
    // SAFETY: reads as many bytes as the slice has.
    unsafe { ffi::crc16_t10dif(0, data.as_ptr(), long(data.len())) }
}

/// The same, and `source` is copied to `target`.
pub(crate) fn crc16_t10dif_copy(source: &[u8], target: &mut [u8]) -> u16 {
    assert_eq!(source.len(), target.len(), "a copy has a place");
    let (from, to) = (source.as_ptr().cast_mut(), target.as_mut_ptr());
    // SAFETY: reads and writes as many bytes as both slices have; the source is only read.
    unsafe { ffi::crc16_t10dif_copy(0, to, from, long(source.len())) }
}

/// CRC-32C of `data`.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    // SAFETY: reads as many bytes as the slice has.
    unsafe { !ffi::crc32_iscsi(data.as_ptr().cast_mut(), int(data.len()), u32::MAX) }
}

/// The length of all strips, after seeing to what the library only documents.
fn checked(sources: &[&[u8]], targets: &[&mut [u8]]) -> c_int {
    let length = sources[0].len();
    let strips = || sources.iter().copied().chain(targets.iter().map(|target| &**target));
    assert!(strips().all(|strip| strip.len() == length), "strips have one length");
    assert!(
        length.is_multiple_of(64) && strips().all(|strip| strip.as_ptr().align_offset(64) == 0),
        "the library takes aligned strips"
    );
    assert!(sources.len() >= 2, "the library takes two sources or more");
    int(length)
}

fn pointers(strips: &[&[u8]]) -> Vec<*mut c_void> {
    strips.iter().map(|strip| strip.as_ptr().cast_mut().cast()).collect()
}

fn int(count: usize) -> c_int {
    c_int::try_from(count).expect("counts and lengths here are small")
}

fn long(length: usize) -> u64 {
    u64::try_from(length).expect("lengths have 64 bits")
}

mod ffi {
    use super::{c_int, c_uchar, c_uint, c_void};

    // SAFETY: as declared by isa-l.h (raid.h, erasure_code.h and crc.h).
    #[link(name = "isal")]
    unsafe extern "C" {
        pub(super) fn xor_gen(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
        pub(super) fn pq_gen(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
        pub(super) fn xor_check(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
        pub(super) fn pq_check(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
        pub(super) fn ec_init_tables(k: c_int, rows: c_int, a: *mut c_uchar, tables: *mut c_uchar);
        pub(super) fn ec_encode_data(
            len: c_int,
            k: c_int,
            rows: c_int,
            tables: *mut c_uchar,
            data: *mut *mut c_uchar,
            coding: *mut *mut c_uchar,
        );
        pub(super) fn crc16_t10dif(init: u16, data: *const c_uchar, len: u64) -> u16;
        pub(super) fn crc16_t10dif_copy(
            init: u16,
            target: *mut u8,
            source: *mut u8,
            len: u64,
        ) -> u16;
        pub(super) fn crc32_iscsi(data: *mut c_uchar, len: c_int, init: c_uint) -> c_uint;
    }
}
