//! In place of libisal where it is not linked: nothing happens, and nothing is reported of it.

pub(crate) const PRESENT: bool = false;

pub(crate) fn xor_gen(_: &[&[u8]], _: &mut [u8]) {}

pub(crate) fn pq_gen(_: &[&[u8]], _: &mut [u8], _: &mut [u8]) {}

pub(crate) fn xor_check(_: &[&[u8]]) -> bool {
    true
}

pub(crate) fn pq_check(_: &[&[u8]]) -> bool {
    true
}

pub(crate) struct Decoder;

impl Decoder {
    pub(crate) fn new(_: usize, _: [usize; 2]) -> Self {
        Self
    }

    pub(crate) fn decode(&self, _: &[&[u8]], _: &mut [u8], _: &mut [u8]) {}
}

pub(crate) fn crc16_t10dif(_: &[u8]) -> u16 {
    0
}

pub(crate) fn crc16_t10dif_copy(_: &[u8], _: &mut [u8]) -> u16 {
    0
}

pub(crate) fn crc32c(_: &[u8]) -> u32 {
    0
}
