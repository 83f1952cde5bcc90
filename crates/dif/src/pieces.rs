//! Bytes that lie in several pieces, taken in order.

/// Pieces to read.
pub(crate) struct Pieces<'a, I> {
    rest: I,
    now: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Pieces<'a, I> {
    pub(crate) fn new(rest: I) -> Self {
        Self { rest, now: &[] }
    }

    /// What is left of the piece under way; empty only at the end.
    pub(crate) fn now(&mut self) -> &'a [u8] {
        while self.now.is_empty() {
            let Some(next) = self.rest.next() else { break };
            self.now = next;
        }
        self.now
    }

    /// The next bytes of this piece, at most `most`.
    ///
    /// # Panics
    /// At the end: `whole` says what the caller has promised.
    pub(crate) fn take(&mut self, most: usize, whole: &str) -> &'a [u8] {
        let now = self.now();
        assert!(!now.is_empty(), "{whole}");
        let (taken, rest) = now.split_at(most.min(now.len()));
        self.now = rest;
        taken
    }

    pub(crate) fn is_done(&mut self) -> bool {
        self.now().is_empty()
    }
}

/// Pieces to fill.
pub(crate) struct PiecesMut<'a, I> {
    rest: I,
    now: &'a mut [u8],
}

impl<'a, I: Iterator<Item = &'a mut [u8]>> PiecesMut<'a, I> {
    pub(crate) fn new(rest: I) -> Self {
        Self { rest, now: &mut [] }
    }

    /// Bytes left of the piece under way; 0 only at the end.
    pub(crate) fn now_len(&mut self) -> usize {
        while self.now.is_empty() {
            let Some(next) = self.rest.next() else { break };
            self.now = next;
        }
        self.now.len()
    }

    /// As [`Pieces::take`].
    pub(crate) fn take(&mut self, most: usize, whole: &str) -> &'a mut [u8] {
        let length = self.now_len();
        assert!(length > 0, "{whole}");
        let (taken, rest) = core::mem::take(&mut self.now).split_at_mut(most.min(length));
        self.now = rest;
        taken
    }

    pub(crate) fn is_done(&mut self) -> bool {
        self.now_len() == 0
    }
}

/// What a caller promises of lengths, as the panic says it.
pub(crate) const DATA_WHOLE: &str = "the data is whole intervals, with metadata for each";
/// The same of the other side.
pub(crate) const METADATA_WHOLE: &str = "there is metadata for each interval, and no more";
