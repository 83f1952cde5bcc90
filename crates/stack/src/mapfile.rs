//! Maps of what could be read, in the format of GNU ddrescue (its manual, "Mapfile structure").
//!
//! ```text
//!   # Mapfile. Created by steadfast version 0.1.0
//!   # current_pos  current_status  current_pass
//!   0x00100000     +               1
//!   #      pos        size  status
//!   0x00000000  0x00004000  +        read
//!   0x00004000  0x00001000  -        could not be read: zeroes, or a hole, in the copy
//!   0x00005000  0x000FB000  +
//! ```
//!
//! Blocks follow each other without gap; neighbours with the same status are one. Positions count
//! bytes of the source. Only whole, finished or stopped copies are written here; reading other
//! tools' maps is not this module's business.

use std::fmt::{self, Write};

/// What became of a run of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// `+`: read.
    Finished,
    /// `-`: could not be read.
    Bad,
    /// `?`: not tried.
    NonTried,
}

impl Status {
    /// The character that stands for it.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Finished => '+',
            Self::Bad => '-',
            Self::NonTried => '?',
        }
    }
}

/// A run of bytes with one status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// Its first byte.
    pub position: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What became of it.
    pub status: Status,
}

/// A map, grown from its start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Map {
    blocks: Vec<Block>,
    start: u64,
}

impl Map {
    /// An empty map whose first block will lie at byte `start`.
    #[must_use]
    pub const fn from(start: u64) -> Self {
        Self { blocks: Vec::new(), start }
    }

    /// The next `bytes` bytes have this status.
    pub fn push(&mut self, bytes: u64, status: Status) {
        if bytes == 0 {
            return;
        }
        let position = self.end();
        match self.blocks.last_mut() {
            Some(last) if last.status == status => last.bytes += bytes,
            _ => self.blocks.push(Block { position, bytes, status }),
        }
    }

    /// The byte behind the last block.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.blocks.last().map_or(self.start, |last| last.position + last.bytes)
    }

    /// The blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The runs that could not be read.
    pub fn bad(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.status == Status::Bad)
    }

    /// Bytes with this status.
    #[must_use]
    pub fn bytes(&self, status: Status) -> u64 {
        self.blocks.iter().filter(|block| block.status == status).map(|block| block.bytes).sum()
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        writeln!(f, "# Mapfile. Created by steadfast version {version}")?;
        writeln!(f, "# current_pos  current_status  current_pass")?;
        let stopped = self.blocks.iter().find(|block| block.status == Status::NonTried);
        let (position, status) = stopped.map_or((self.end(), '+'), |block| (block.position, '?'));
        writeln!(f, "0x{position:08X}     {status}               1")?;
        writeln!(f, "#      pos        size  status")?;
        for Block { position, bytes, status } in &self.blocks {
            write!(f, "0x{position:08X}  0x{bytes:08X}  ")?;
            f.write_char(status.letter())?;
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_one_status_are_one_block() {
        let mut map = Map::from(4096);
        map.push(512, Status::Finished);
        map.push(512, Status::Finished);
        map.push(0, Status::Bad);
        map.push(512, Status::Bad);
        assert_eq!(map.blocks().len(), 2);
        assert_eq!(
            map.blocks()[0],
            Block { position: 4096, bytes: 1024, status: Status::Finished }
        );
        assert_eq!(map.end(), 4096 + 1536);
        assert_eq!(map.bytes(Status::Bad), 512);
    }

    #[test]
    fn the_text_is_what_ddrescue_reads() {
        let mut map = Map::from(0);
        map.push(0x4000, Status::Finished);
        map.push(0x1000, Status::Bad);
        map.push(0xF_B000, Status::Finished);
        let text = map.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1..],
            [
                "# current_pos  current_status  current_pass",
                "0x00100000     +               1",
                "#      pos        size  status",
                "0x00000000  0x00004000  +",
                "0x00004000  0x00001000  -",
                "0x00005000  0x000FB000  +",
            ]
        );
    }

    #[test]
    fn a_stopped_copy_says_where_it_stopped() {
        let mut map = Map::from(0);
        map.push(0x200, Status::Finished);
        map.push(0x800, Status::NonTried);
        assert!(map.to_string().contains("0x00000200     ?               1\n"));
    }
}
