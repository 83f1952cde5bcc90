//! What folding asks of a vector.

/// A register of `LANES` lanes of 128 bits.
///
/// # Safety
/// `load` and `store` move exactly 16 bytes for each lane, at any alignment. The methods may use processor
/// features: they are called only where the level that names the type was detected. All are inlined into
/// the functions per level that switch those features on.
pub(super) unsafe trait Vector<const LANES: usize>: Copy {
    /// # Safety
    /// `at` is good for reading 16 bytes for each lane; the type's features are there.
    unsafe fn load(at: *const u8) -> Self;
    /// # Safety
    /// `at` is good for writing 16 bytes for each lane; the type's features are there.
    unsafe fn store(self, at: *mut u8);
    /// Says that bytes from `at` on will be written soon. `at` may be any address: nothing happens to what is
    /// there.
    fn expect(at: *const u8);
    /// The same lane everywhere, low word first.
    /// # Safety
    /// The type's features are there.
    unsafe fn everywhere(lane: [u64; 2]) -> Self;
    /// # Safety
    /// The type's features are there.
    unsafe fn xor(self, other: Self) -> Self;
    /// The bits of each byte turned round.
    /// # Safety
    /// The type's features are there.
    unsafe fn turned(self) -> Self;
    /// In each lane, low word times low word and high word times high word, and `addend`: their sum.
    /// # Safety
    /// The type's features are there.
    unsafe fn multiply_add(self, factors: Self, addend: Self) -> Self;
    /// In each lane, the product of the low words.
    /// # Safety
    /// The type's features are there.
    unsafe fn low_by_low(self, factors: Self) -> Self;
    /// In each lane, the low word times the factor's high word.
    /// # Safety
    /// The type's features are there.
    unsafe fn low_by_high(self, factors: Self) -> Self;
    /// In each lane, the low word moved up, and zero below.
    /// # Safety
    /// The type's features are there.
    unsafe fn low_as_high(self) -> Self;
    /// Lane i is the sum, without any carries, of the lanes of `vectors[i]`.
    /// # Safety
    /// The type's features are there.
    unsafe fn sums(vectors: [Self; LANES]) -> Self;
    /// Lane i is, word by word and without last carries, the sum of the lanes of `vectors[i]`.
    /// # Safety
    /// The type's features are there.
    unsafe fn totals(vectors: [Self; LANES]) -> Self;
    /// The high word of each lane.
    /// # Safety
    /// The type's features are there.
    unsafe fn high_words(self) -> [u64; LANES];
    /// In each word, the sum without its last carry.
    /// # Safety
    /// The type's features are there.
    unsafe fn plus(self, other: Self) -> Self;
    /// In each word, the high half, as a word.
    /// # Safety
    /// The type's features are there.
    unsafe fn high_halves(self) -> Self;
    /// In each word, what is left when 2^32 times `halves` is taken away.
    /// # Safety
    /// The type's features are there.
    unsafe fn without_high(self, halves: Self) -> Self;
}
