//! What a device can do, fixed for its life.

use dif::Profile;
use units::BlockSize;

/// What a device can do. Read by the layer above before its first request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Size in sectors; a whole number of logical blocks.
    pub sectors: u64,
    /// The smallest piece that can be read or written.
    pub logical_block: BlockSize,
    /// Bytes of a request that this device serves best, a multiple of the logical block (a full
    /// stripe, a page); a hint.
    pub preferred_bytes: u64,
    /// Largest data of one request, in bytes. Layers split what is larger.
    pub max_bytes: u64,
    /// Bytes of tag that travel with each logical block, its protection interval; 0: none. (Tags that
    /// a layer stores itself and never shows are not counted.) [`Bio`](crate::Bio) says what becomes of
    /// them.
    pub tag_size: usize,
    /// What these tags are, if the device says so: its integrity profile. Its metadata is then that of
    /// the intervals of a logical block, `tag_size` bytes together. Whoever is above may generate them,
    /// check them, and must have devices agree that it puts together. None: bytes without a meaning here.
    pub protection: Option<Profile>,
    /// Writes are refused.
    pub read_only: bool,
    /// Every byte read is checked against a stored tag first, and so `Op::Vouch` and
    /// `Op::Peek` are answered.
    pub verified: bool,
    /// `Op::Discard` is served. What was discarded reads as zeroes in every device of this house.
    pub discard: bool,
    /// `Op::WriteZeroes` (always served by a writable device) is faster than writing zeroes.
    pub fast_zeroes: bool,
    /// Requests in flight that still help.
    pub queue_depth: usize,
}

impl Limits {
    /// Has the device keep metadata of that profile: as much as the intervals of a logical block take.
    ///
    /// # Panics
    /// If a logical block is not whole intervals.
    pub fn protect(&mut self, profile: Profile) {
        let (block, format) = (self.logical_block.bytes(), &profile.format);
        assert!(block.is_multiple_of(format.interval()), "a block is whole intervals");
        self.tag_size = block / format.interval() * format.metadata();
        self.protection = Some(profile);
    }

    /// What every byte of a block's tags is before any were given for it: see [`Bio`](crate::Bio).
    #[must_use]
    pub const fn blank_tag(&self) -> u8 {
        if self.protection.is_some() { 0xff } else { 0 }
    }

    /// A plain writable device of `sectors` sectors, without discard or fast zeroes.
    #[must_use]
    pub fn new(sectors: u64, logical_block: BlockSize) -> Self {
        Self {
            sectors,
            logical_block,
            preferred_bytes: 4096,
            max_bytes: 32 << 20,
            tag_size: 0,
            protection: None,
            read_only: false,
            verified: false,
            discard: false,
            fast_zeroes: false,
            queue_depth: 128,
        }
    }
}
