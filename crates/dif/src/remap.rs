//! Reference tags that are counted anew on the way down and up, and tuples in pieces. (Section 6.)

use crate::format::Format;
use crate::pieces::{METADATA_WHOLE, PiecesMut};
use crate::profile::Profile;
use crate::tuple::{TUPLE_BYTES_MAX, Tuple};

/// How many tuples were counted anew.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Remapped {
    /// Those that had the address expected.
    pub changed: u64,
    /// Those that had another, which stay as they are for the next who checks; and escapes.
    pub left: u64,
}

impl Profile {
    /// Reference tags that count from `from` are made to count from `to`, interval by interval: whoever
    /// is above counts its own blocks, whoever is below counts others. Tuples with another reference than
    /// expected are left alone, so that the next check refuses them; so are escapes, and type 3. From `to`
    /// to `from` is the way back.
    ///
    /// # Panics
    /// If the metadata is not that of whole intervals.
    pub fn remap<'m>(
        &self,
        metadata: impl IntoIterator<Item = &'m mut [u8]>,
        from: u64,
        to: u64,
    ) -> Remapped {
        let format = &self.format;
        self.remap_every(metadata, (format.metadata(), format.tuple_offset()), from, to)
    }

    /// The same of blocks that carry their metadata.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn remap_interleaved<'b>(
        &self,
        blocks: impl IntoIterator<Item = &'b mut [u8]>,
        from: u64,
        to: u64,
    ) -> Remapped {
        let format = &self.format;
        let tuple = format.interval() + format.tuple_offset();
        self.remap_every(blocks, (format.stride(), tuple), from, to)
    }

    fn remap_every<'m>(
        &self,
        pieces: impl IntoIterator<Item = &'m mut [u8]>,
        (stride, offset): (usize, usize),
        from: u64,
        to: u64,
    ) -> Remapped {
        let mut remapped = Remapped::default();
        if !self.kind.counts() || self.format.reference_bits() == 0 {
            return remapped;
        }
        let mask = self.format.reference_mask();
        each_tuple(&self.format, pieces, (stride, offset), |index, bytes| {
            let mut tuple = Tuple::decode(&self.format, bytes);
            let (expected, wanted) =
                (from.wrapping_add(index) & mask, to.wrapping_add(index) & mask);
            if tuple.reference != expected || tuple.is_escaped(&self.format, self.kind) {
                remapped.left += 1;
                return;
            }
            remapped.changed += 1;
            tuple.reference = wanted;
            tuple.encode(&self.format, bytes);
        });
        remapped
    }
}

/// Calls `each` with every tuple, one every `stride` bytes at `offset`, wherever pieces end, and stores
/// what it made of it.
pub(crate) fn each_tuple<'m>(
    format: &Format,
    pieces: impl IntoIterator<Item = &'m mut [u8]>,
    (stride, offset): (usize, usize),
    mut each: impl FnMut(u64, &mut [u8]),
) {
    let mut pieces = PiecesMut::new(pieces.into_iter());
    let length = format.tuple_bytes();
    let mut index = 0;
    while !pieces.is_done() {
        if pieces.now_len() >= stride {
            let place = pieces.take(stride, METADATA_WHOLE);
            each(index, &mut place[offset..offset + length]);
        } else {
            skip(&mut pieces, offset);
            straddling(&mut pieces, length, |tuple| each(index, tuple));
            skip(&mut pieces, stride - offset - length);
        }
        index += 1;
    }
}

fn skip<'m>(pieces: &mut PiecesMut<'m, impl Iterator<Item = &'m mut [u8]>>, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        left -= pieces.take(left, METADATA_WHOLE).len();
    }
}

/// The next `length` bytes, gathered and put back.
fn straddling<'m>(
    pieces: &mut PiecesMut<'m, impl Iterator<Item = &'m mut [u8]>>,
    length: usize,
    each: impl FnOnce(&mut [u8]),
) {
    // At worst every byte is a piece of its own.
    let mut held: [&mut [u8]; TUPLE_BYTES_MAX] = Default::default();
    let mut tuple = [0; TUPLE_BYTES_MAX];
    let (mut seen, mut count) = (0, 0);
    while seen < length {
        let piece = pieces.take(length - seen, METADATA_WHOLE);
        tuple[seen..seen + piece.len()].copy_from_slice(piece);
        seen += piece.len();
        held[count] = piece;
        count += 1;
    }
    each(&mut tuple[..length]);
    let mut rest = &tuple[..length];
    for piece in &mut held[..count] {
        let (now, behind) = rest.split_at(piece.len());
        piece.copy_from_slice(now);
        rest = behind;
    }
}
