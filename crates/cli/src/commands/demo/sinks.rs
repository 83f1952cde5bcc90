//! Where the demo's reads go.

use super::sample::hex;
use sha2::{Digest, Sha256};
use stack::copy::Sink;
use std::fs::File;
use std::io::{self, Read};
use units::{u64_of, usize_of};

/// Only the checksum is kept.
#[derive(Default)]
pub struct Hash(Sha256);

impl Hash {
    /// In hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

impl Sink for Hash {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.update(bytes);
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        self.0.update(vec![0; usize_of(bytes)]);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "checksum".to_owned()
    }
}

/// Compares with a file; holes are not compared.
pub struct Compare {
    file: File,
    buffer: Vec<u8>,
    compared: u64,
    differing: u64,
}

impl Compare {
    /// With the bytes of `file`, from its start.
    pub fn new(file: File) -> Self {
        Self { file, buffer: Vec::new(), compared: 0, differing: 0 }
    }

    /// Bytes that were compared.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Bytes that differ.
    pub fn differing(&self) -> u64 {
        self.differing
    }
}

impl Sink for Compare {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.resize(bytes.len(), 0);
        self.file.read_exact(&mut self.buffer)?;
        let differing = self.buffer.iter().zip(bytes).filter(|(a, b)| a != b).count();
        self.differing += u64_of(differing);
        self.compared += u64_of(bytes.len());
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        self.buffer.resize(usize_of(bytes), 0);
        self.file.read_exact(&mut self.buffer)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "comparison".to_owned()
    }
}
