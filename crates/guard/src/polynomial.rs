//! The CRCs by table, eight bytes a step, and multiplication modulo their polynomials.
//!
//! A register is held in the low bits of a `u64`, the way the CRC has it: CRC-16/T10-DIF with the first
//! bit of the data highest, the others with it lowest. Neither the start value nor the inversion at the
//! end is applied here: [`crate::Running`] does that.

/// A polynomial with the tables made of it.
pub(crate) struct Polynomial {
    width: u32,
    reflected: bool,
    /// Without the highest power; bit-reversed where the CRC is.
    taps: u64,
    tables: [[u64; 256]; STEP],
}

/// Bytes taken at once.
const STEP: usize = 8;

/// CRC-16/T10-DIF (pi.md, section 3).
pub(crate) static CRC16: Polynomial = Polynomial::new(16, false, 0x8bb7);
/// CRC-32C, reversed (pi.md, section 3).
pub(crate) static CRC32C: Polynomial = Polynomial::new(32, true, 0x82f6_3b78);
/// CRC-64/NVME, reversed (pi.md, section 3).
pub(crate) static CRC64: Polynomial = Polynomial::new(64, true, 0x9a6c_9329_ac4b_c9b5);

impl Polynomial {
    const fn new(width: u32, reflected: bool, taps: u64) -> Self {
        let mut made = Self { width, reflected, taps, tables: [[0; 256]; STEP] };
        let mut byte = 0;
        while byte < 256 {
            // What one byte does to a register of zeroes, then with more and more zero bytes behind it.
            let mut register = if reflected { byte as u64 } else { (byte as u64) << (width - 8) };
            let mut bit = 0;
            while bit < 8 {
                register = made.times_x(register);
                bit += 1;
            }
            made.tables[0][byte] = register;
            byte += 1;
        }
        let mut step = 1;
        while step < STEP {
            let mut byte = 0;
            while byte < 256 {
                let before = made.tables[step - 1][byte];
                made.tables[step][byte] = made.feed_byte(before, 0);
                byte += 1;
            }
            step += 1;
        }
        made
    }

    /// Whether the first bit of the data is the lowest of a byte.
    pub(crate) const fn is_reflected(&self) -> bool {
        self.reflected
    }

    /// The taps, bit-reversed.
    pub(crate) const fn reflected_taps(&self) -> u64 {
        if self.reflected { self.taps } else { self.taps.reverse_bits() >> (64 - self.width) }
    }

    /// What the next eight bytes of the data meet.
    pub(crate) const fn to_bytes(&self, register: u64) -> [u8; STEP] {
        if self.reflected {
            register.to_le_bytes()
        } else {
            (register << (64 - self.width)).to_be_bytes()
        }
    }

    /// The register that gives these [`Self::to_bytes`].
    pub(crate) const fn register_of(&self, bytes: [u8; STEP]) -> u64 {
        if self.reflected {
            u64::from_le_bytes(bytes)
        } else {
            u64::from_be_bytes(bytes) >> (64 - self.width)
        }
    }

    const fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.width)
    }

    /// The register times x.
    const fn times_x(&self, register: u64) -> u64 {
        if self.reflected {
            (register >> 1) ^ if register & 1 == 1 { self.taps } else { 0 }
        } else {
            let carry = register >> (self.width - 1) & 1;
            ((register << 1) ^ if carry == 1 { self.taps } else { 0 }) & self.mask()
        }
    }

    const fn feed_byte(&self, register: u64, byte: u8) -> u64 {
        if self.reflected {
            let index = (register ^ byte as u64) & 0xff;
            (register >> 8) ^ self.tables[0][index as usize]
        } else {
            let index = (register >> (self.width - 8) ^ byte as u64) & 0xff;
            ((register << 8) ^ self.tables[0][index as usize]) & self.mask()
        }
    }

    /// The register after `data`.
    pub(crate) fn feed(&self, mut register: u64, data: &[u8]) -> u64 {
        let (steps, rest) = data.as_chunks::<STEP>();
        for step in steps {
            // The register meets the first bytes of the step; every byte then stands alone.
            let met = if self.reflected {
                u64::from_le_bytes(*step) ^ register
            } else {
                u64::from_be_bytes(*step) ^ register << (64 - self.width)
            };
            let bytes = if self.reflected { met.to_le_bytes() } else { met.to_be_bytes() };
            register = 0;
            for (table, byte) in self.tables.iter().rev().zip(bytes) {
                register ^= table[usize::from(byte)];
            }
        }
        rest.iter().fold(register, |register, byte| self.feed_byte(register, *byte))
    }

    /// The register after `bytes` zero bytes: times x to the power of 8 times as many.
    pub(crate) fn feed_zeroes(&self, register: u64, bytes: usize) -> u64 {
        let (mut power, mut square, mut left) = (self.one(), self.times_x_to_8(), bytes);
        while left > 0 {
            if left & 1 == 1 {
                power = self.times(power, square);
            }
            square = self.times(square, square);
            left >>= 1;
        }
        self.times(register, power)
    }

    /// The only bit of `bytes` bytes that makes this difference in the register behind them: bit `n % 8` of
    /// byte `n / 8`.
    pub(crate) fn flipped_bit(&self, difference: u64, bytes: usize) -> Option<usize> {
        // The last bit meets the register's highest power and goes one step; each before it one more.
        let mut reached = self.times_x(self.one());
        for _ in 1..self.width {
            reached = self.times_x(reached);
        }
        let mut found = None;
        for byte in (0..bytes).rev() {
            for step in 0..8 {
                if reached == difference {
                    let bit = 8 * byte + if self.reflected { 7 - step } else { step };
                    if found.replace(bit).is_some() {
                        return None;
                    }
                }
                reached = self.times_x(reached);
            }
        }
        found
    }

    const fn one(&self) -> u64 {
        if self.reflected { 1 << (self.width - 1) } else { 1 }
    }

    fn times_x_to_8(&self) -> u64 {
        (0..8).fold(self.one(), |power, _| self.times_x(power))
    }

    fn times(&self, left: u64, right: u64) -> u64 {
        let (mut product, mut shifted) = (0, left);
        for power in 0..self.width {
            let bit = if self.reflected { self.width - 1 - power } else { power };
            if right >> bit & 1 == 1 {
                product ^= shifted;
            }
            shifted = self.times_x(shifted);
        }
        product
    }
}
