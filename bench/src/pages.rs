//! Buffers as requests have them.

/// Zeroed bytes from a page's first on: as buffers for direct I/O lie, and as libisal asks.
pub(crate) struct Pages {
    room: Vec<u8>,
    from: usize,
    length: usize,
}

impl Pages {
    pub(crate) fn new(length: usize) -> Self {
        let room = vec![0; length + PAGE_BYTES];
        let from = room.as_ptr().align_offset(PAGE_BYTES);
        Self { room, from, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[self.from..][..self.length]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.from..][..self.length]
    }
}

const PAGE_BYTES: usize = 4096;
