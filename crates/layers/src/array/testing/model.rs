//! What a device that keeps tags should hold, block by block, and random requests to it.

use super::super::Tagging;
use bio::{Bio, Buf, Device, Op, Segments};
use proptest::prelude::*;
use units::{SECTOR_BYTES, Sector, usize_of};

/// A request; what does not lie on the device is cut to it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Of data with tags, or of data alone.
    Write { at: u64, length: u64, tagged: bool, fua: bool },
    /// Of both, or of data alone.
    Read { at: u64, length: u64, tagged: bool },
    /// A write of zeroes.
    Zero { at: u64, length: u64 },
    /// A flush.
    Flush,
}

/// Any request.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let place = || (0u64..800, prop_oneof![1u64..6, 1u64..120]);
    prop_oneof![
        8 => (place(), 0u8..5, any::<bool>()).prop_map(|((at, length), plain, fua)| {
            Step::Write { at, length, tagged: plain > 0, fua }
        }),
        5 => (place(), any::<bool>())
            .prop_map(|((at, length), tagged)| Step::Read { at, length, tagged }),
        1 => place().prop_map(|(at, length)| Step::Zero { at, length }),
        1 => Just(Step::Flush),
    ]
}

/// The device, and what it should hold.
pub(crate) struct Model {
    pub(crate) device: Device,
    tagging: Tagging,
    /// Each block followed by its tag.
    pub(crate) blocks: Vec<Vec<u8>>,
    seed: u64,
}

impl Model {
    /// Of a device of zeroes.
    pub(crate) fn new(device: Device) -> Self {
        let tagging = Tagging::of(device.limits());
        let zero = vec![0; tagging.interleaved_bytes(1)];
        let blocks = vec![zero; usize_of(device.limits().sectors)];
        Self { device, tagging, blocks, seed: 0 }
    }

    /// Everything is written, with tags.
    pub(crate) async fn fill(&mut self) {
        let length = self.device.limits().sectors;
        self.step(&Step::Write { at: 0, length, tagged: true, fua: false }).await;
        self.device.flush().await.unwrap();
    }

    /// Does a request, which has to succeed and to give what the model says.
    pub(crate) async fn step(&mut self, step: &Step) {
        let total = self.device.limits().sectors;
        let clip = |at: u64, length: u64| (at % total, length.min(total - at % total));
        match *step {
            Step::Write { at, length, tagged, fua } => {
                let (at, length) = clip(at, length);
                self.write(at, length, tagged, fua).await;
            }
            Step::Read { at, length, tagged } => {
                let (at, length) = clip(at, length);
                self.read(at, length, tagged).await;
            }
            Step::Zero { at, length } => {
                let (at, length) = clip(at, length);
                self.device.submit(&mut Bio::write_zeroes(Sector(at), length, true)).await.unwrap();
                let blocks = usize_of(at)..usize_of(at + length);
                self.blocks[blocks].iter_mut().for_each(|block| block.fill(0));
            }
            Step::Flush => self.device.flush().await.unwrap(),
        }
    }

    async fn write(&mut self, at: u64, length: u64, tagged: bool, fua: bool) {
        self.seed += 1;
        let (mut data, mut tags) = (Vec::new(), Vec::new());
        for (index, block) in (at..).zip(&mut self.blocks[usize_of(at)..usize_of(at + length)]) {
            let mut word = (self.seed << 32 ^ index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for byte in &mut *block {
                word = (word ^ word >> 27).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(7);
                *byte = word.to_le_bytes()[7];
            }
            let (bytes, tag) = block.split_at_mut(SECTOR_BYTES);
            if !tagged {
                tag.fill(0);
            }
            data.extend_from_slice(bytes);
            tags.extend_from_slice(tag);
        }
        let mut bio = Bio::write(Sector(at), ragged(&data, 1000));
        bio.op = Op::Write { fua };
        if tagged {
            bio.tags = ragged(&tags, 13);
        }
        self.device.submit(&mut bio).await.unwrap();
    }

    async fn read(&self, at: u64, length: u64, tagged: bool) {
        let mut bio = Bio::read(Sector(at), length);
        if tagged {
            bio.tags = self.tagging.alloc(length);
        }
        self.device.submit(&mut bio).await.unwrap();
        let (data, tags) = (bio.data.into_single(), bio.tags.into_single());
        for (index, expected) in self.blocks[usize_of(at)..][..usize_of(length)].iter().enumerate()
        {
            let sector = usize_of(at) + index;
            let found = &data.as_slice()[index * SECTOR_BYTES..][..SECTOR_BYTES];
            assert!(found == &expected[..SECTOR_BYTES], "data of sector {sector}");
            if tagged {
                let tag_size = self.tagging.tag_size();
                let found = &tags.as_slice()[index * tag_size..][..tag_size];
                assert_eq!(found, &expected[SECTOR_BYTES..], "tags of sector {sector}");
            }
        }
    }

    /// All of it is as it should be.
    pub(crate) async fn check(&self) {
        let total = self.device.limits().sectors;
        self.read(0, total, true).await;
        for at in (0..total).step_by(7) {
            self.read(at, (total - at).min(7), true).await;
        }
    }
}

/// The same bytes in pieces.
fn ragged(bytes: &[u8], each: usize) -> Segments {
    bytes.chunks(each).map(Buf::copy_of).collect()
}
