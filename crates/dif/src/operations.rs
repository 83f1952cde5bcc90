//! The operations over a whole request, whose data and metadata may lie in any pieces.
//!
//! | operation | data | metadata | |
//! |---|---|---|---|
//! | [`generate`](Protection::generate) | read | tuples written | separate |
//! | [`verify`](Protection::verify) | read | read | separate |
//! | [`generate_interleaved`](Protection::generate_interleaved) | read | tuples written | interleaved, in place |
//! | [`verify_interleaved`](Protection::verify_interleaved) | read | read | interleaved |
//! | [`insert`](Protection::insert) | copied | made | separate data to interleaved |
//! | [`strip`](Protection::strip) | copied, verified | dropped | interleaved to data alone |
//! | [`overwrite`](Protection::overwrite) | copied | copied, tuples made anew | interleaved to interleaved |
//! | [`split`](Protection::split), [`join`](Protection::join) | copied, verified | copied, verified | interleaved to separate and back |

use crate::pieces::{DATA_WHOLE, METADATA_WHOLE, Pieces, PiecesMut};
use crate::profile::{Mismatch, Protection};
use crate::stream::{Signer, Verifier};

impl Protection {
    /// Writes the tuple of every interval of `data` to `metadata`; the owner's bytes in the metadata stay
    /// as they are.
    ///
    /// # Panics
    /// If the data is not whole intervals with metadata for each.
    pub fn generate<'d, 'm>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        metadata: impl IntoIterator<Item = &'m mut [u8]>,
    ) {
        let (mut data, mut metadata) =
            (Pieces::new(data.into_iter()), PiecesMut::new(metadata.into_iter()));
        let (format, mut signer) = (*self.format(), Signer::new(self));
        while !data.is_done() {
            let whole =
                (data.now().len() / format.interval()).min(metadata.now_len() / format.metadata());
            if format.covered_metadata() == 0 && whole > 0 {
                signer.whole(
                    data.take(whole * format.interval(), DATA_WHOLE),
                    metadata.take(whole * format.metadata(), METADATA_WHOLE),
                );
                continue;
            }
            while signer.data_left() > 0 {
                signer.data(data.take(signer.data_left(), DATA_WHOLE));
            }
            while signer.metadata_left() > 0 {
                signer.metadata(metadata.take(signer.metadata_left(), METADATA_WHOLE));
            }
        }
        assert!(metadata.is_done(), "{METADATA_WHOLE}");
    }

    /// Checks every interval, and gives what disagrees to `found`.
    ///
    /// # Panics
    /// If the data is not whole intervals with metadata for each.
    pub fn verify_each<'d, 'm>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        metadata: impl IntoIterator<Item = &'m [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let (mut data, mut metadata) =
            (Pieces::new(data.into_iter()), Pieces::new(metadata.into_iter()));
        let (format, mut verifier) = (*self.format(), Verifier::new(self));
        while !data.is_done() {
            let whole = (data.now().len() / format.interval())
                .min(metadata.now().len() / format.metadata());
            if format.covered_metadata() == 0 && whole > 0 {
                verifier.whole(
                    data.take(whole * format.interval(), DATA_WHOLE),
                    metadata.take(whole * format.metadata(), METADATA_WHOLE),
                    &mut found,
                );
                continue;
            }
            while verifier.data_left() > 0 {
                verifier.data(data.take(verifier.data_left(), DATA_WHOLE));
            }
            while verifier.metadata_left() > 0 {
                verifier
                    .metadata(metadata.take(verifier.metadata_left(), METADATA_WHOLE), &mut found);
            }
        }
        assert!(metadata.is_done(), "{METADATA_WHOLE}");
    }

    /// Checks every interval.
    ///
    /// # Errors
    /// The first that disagrees.
    ///
    /// # Panics
    /// As [`Self::verify_each`].
    pub fn verify<'d, 'm>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        metadata: impl IntoIterator<Item = &'m [u8]>,
    ) -> Result<(), Mismatch> {
        first(|found| self.verify_each(data, metadata, found))
    }

    /// Writes the tuples of intervals that their metadata follows; nothing else is changed.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn generate_interleaved<'b>(&self, blocks: impl IntoIterator<Item = &'b mut [u8]>) {
        let mut signer = Signer::new(self);
        for piece in blocks {
            signer.interleaved(piece);
        }
        assert_eq!(signer.data_left(), self.format().interval(), "{DATA_WHOLE}");
    }

    /// Checks intervals that their metadata follows, and gives what disagrees to `found`.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn verify_interleaved_each<'b>(
        &self,
        blocks: impl IntoIterator<Item = &'b [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let mut verifier = Verifier::new(self);
        for piece in blocks {
            verifier.interleaved(piece, &mut found);
        }
        assert_eq!(verifier.data_left(), self.format().interval(), "{DATA_WHOLE}");
    }

    /// Checks intervals that their metadata follows.
    ///
    /// # Errors
    /// The first that disagrees.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn verify_interleaved<'b>(
        &self,
        blocks: impl IntoIterator<Item = &'b [u8]>,
    ) -> Result<(), Mismatch> {
        first(|found| self.verify_interleaved_each(blocks, found))
    }

    /// Copies `data` to `blocks`, each interval followed by its metadata: the tuple of the bytes as they
    /// were copied, and zeroes for the owner.
    ///
    /// # Panics
    /// If the data is not whole intervals, or the blocks are not as many.
    pub fn insert<'d, 'b>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        blocks: impl IntoIterator<Item = &'b mut [u8]>,
    ) {
        let (mut data, mut blocks) =
            (Pieces::new(data.into_iter()), PiecesMut::new(blocks.into_iter()));
        let (format, mut signer) = (*self.format(), Signer::new(self));
        while !data.is_done() {
            let whole =
                (data.now().len() / format.interval()).min(blocks.now_len() / format.stride());
            if format.covered_metadata() == 0 && whole > 0 {
                signer.whole_copied(
                    data.take(whole * format.interval(), DATA_WHOLE),
                    blocks.take(whole * format.stride(), METADATA_WHOLE),
                );
                continue;
            }
            while signer.data_left() > 0 {
                let place = blocks.take(signer.data_left().min(data.now().len()), METADATA_WHOLE);
                place.copy_from_slice(data.take(place.len(), DATA_WHOLE));
                signer.data(place);
            }
            while signer.metadata_left() > 0 {
                let place = blocks.take(signer.metadata_left(), METADATA_WHOLE);
                place.fill(0);
                signer.metadata(place);
            }
        }
        assert!(blocks.is_done(), "{METADATA_WHOLE}");
    }

    /// Copies the data of `blocks` to `data` without the metadata, checks it as it was copied, and gives
    /// what disagrees to `found`. (What disagrees is copied all the same: who goes on decides.)
    ///
    /// # Panics
    /// If the blocks are not whole, or the data is not as much.
    pub fn strip<'b, 'd>(
        &self,
        blocks: impl IntoIterator<Item = &'b [u8]>,
        data: impl IntoIterator<Item = &'d mut [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let (mut blocks, mut data) =
            (Pieces::new(blocks.into_iter()), PiecesMut::new(data.into_iter()));
        let (format, mut verifier) = (*self.format(), Verifier::new(self));
        while !blocks.is_done() {
            let whole =
                (blocks.now().len() / format.stride()).min(data.now_len() / format.interval());
            if format.covered_metadata() == 0 && whole > 0 {
                verifier.whole_gathered(
                    blocks.take(whole * format.stride(), DATA_WHOLE),
                    data.take(whole * format.interval(), DATA_WHOLE),
                    &mut found,
                );
                continue;
            }
            while verifier.data_left() > 0 {
                let place = data.take(verifier.data_left().min(blocks.now().len()), DATA_WHOLE);
                place.copy_from_slice(blocks.take(place.len(), DATA_WHOLE));
                verifier.data(place);
            }
            while verifier.metadata_left() > 0 {
                verifier.metadata(blocks.take(verifier.metadata_left(), DATA_WHOLE), &mut found);
            }
        }
        assert!(data.is_done(), "{DATA_WHOLE}");
    }

    /// Copies `source` to `target`, both interleaved, with tuples made anew of the bytes as they were
    /// copied: the owner's metadata comes from the source (NVMe's PRACT with metadata beyond the tuple).
    ///
    /// # Panics
    /// If the two are not as many whole blocks.
    pub fn overwrite<'s, 't>(
        &self,
        source: impl IntoIterator<Item = &'s [u8]>,
        target: impl IntoIterator<Item = &'t mut [u8]>,
    ) {
        let (mut source, mut target) =
            (Pieces::new(source.into_iter()), PiecesMut::new(target.into_iter()));
        let mut signer = Signer::new(self);
        while !source.is_done() {
            let length = source.now().len().min(BATCH.next_multiple_of(self.format().stride()));
            let place = target.take(length, METADATA_WHOLE);
            place.copy_from_slice(source.take(place.len(), DATA_WHOLE));
            signer.interleaved(place);
        }
        assert_eq!(signer.data_left(), self.format().interval(), "{DATA_WHOLE}");
        assert!(target.is_done(), "{METADATA_WHOLE}");
    }

    /// Copies interleaved `blocks` apart, to `data` and `metadata`, checks them as they were copied, and
    /// gives what disagrees to `found`: DIF to DIX.
    ///
    /// # Panics
    /// If the blocks are not whole, or data and metadata are not as much.
    pub fn split<'b, 'd, 'm>(
        &self,
        blocks: impl IntoIterator<Item = &'b [u8]>,
        data: impl IntoIterator<Item = &'d mut [u8]>,
        metadata: impl IntoIterator<Item = &'m mut [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let mut blocks = Pieces::new(blocks.into_iter());
        let (mut data, mut metadata) =
            (PiecesMut::new(data.into_iter()), PiecesMut::new(metadata.into_iter()));
        let mut verifier = Verifier::new(self);
        while !blocks.is_done() {
            while verifier.data_left() > 0 {
                let place = data.take(verifier.data_left().min(blocks.now().len()), DATA_WHOLE);
                place.copy_from_slice(blocks.take(place.len(), DATA_WHOLE));
                verifier.data(place);
            }
            while verifier.metadata_left() > 0 {
                let most = verifier.metadata_left().min(blocks.now().len());
                let place = metadata.take(most, METADATA_WHOLE);
                place.copy_from_slice(blocks.take(place.len(), DATA_WHOLE));
                verifier.metadata(place, &mut found);
            }
        }
        assert!(data.is_done() && metadata.is_done(), "{METADATA_WHOLE}");
    }

    /// Copies `data` and `metadata` together into interleaved `blocks`, checks them as they were copied,
    /// and gives what disagrees to `found`: DIX to DIF.
    ///
    /// # Panics
    /// If the data is not whole intervals, or metadata and blocks are not as many.
    pub fn join<'d, 'm, 'b>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        metadata: impl IntoIterator<Item = &'m [u8]>,
        blocks: impl IntoIterator<Item = &'b mut [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let (mut data, mut metadata) =
            (Pieces::new(data.into_iter()), Pieces::new(metadata.into_iter()));
        let mut blocks = PiecesMut::new(blocks.into_iter());
        let mut verifier = Verifier::new(self);
        while !data.is_done() {
            while verifier.data_left() > 0 {
                let place = blocks.take(verifier.data_left().min(data.now().len()), DATA_WHOLE);
                place.copy_from_slice(data.take(place.len(), DATA_WHOLE));
                verifier.data(place);
            }
            while verifier.metadata_left() > 0 {
                let most = verifier.metadata_left().min(metadata.now().len());
                let place = blocks.take(most, METADATA_WHOLE);
                place.copy_from_slice(metadata.take(place.len(), METADATA_WHOLE));
                verifier.metadata(place, &mut found);
            }
        }
        assert!(metadata.is_done() && blocks.is_done(), "{METADATA_WHOLE}");
    }
}

/// The first that `each` finds.
fn first(each: impl FnOnce(&mut dyn FnMut(Mismatch))) -> Result<(), Mismatch> {
    let mut first = None;
    each(&mut |mismatch| {
        first.get_or_insert(mismatch);
    });
    first.map_or(Ok(()), Err)
}

/// What is copied and then checked while it is in the nearest cache, in bytes.
const BATCH: usize = 16 << 10;
