//! The memory of a running machine, as its kernel sees it: read and written through qemu's debugger stub
//! (GDB's remote serial protocol) while the machine stands still.

use anyhow::{Context, bail, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The machine stands still until this is dropped.
pub(crate) struct Memory {
    stream: BufReader<UnixStream>,
}

impl Memory {
    /// # Errors
    /// If nobody listens at `socket`.
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The bytes from a virtual address of the kernel on.
    ///
    /// # Errors
    /// If it is not mapped.
    pub(crate) fn read(&mut self, address: u64, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let mut found = Vec::with_capacity(bytes);
        while found.len() < bytes {
            let length = PIECE_BYTES.min(bytes - found.len());
            let from = after(address, found.len());
            let answer = self.ask(&format!("m{from:x},{length:x}"))?;
            ensure!(answer.len() == 2 * length, "memory at {from:#x}: {answer}");
            for pair in 0..length {
                found.push(u8::from_str_radix(&answer[2 * pair..2 * pair + 2], 16)?);
            }
        }
        Ok(found)
    }

    /// Eight bytes as a number, which is how the machine's kernel keeps addresses.
    ///
    /// # Errors
    /// If they are not mapped.
    pub(crate) fn word(&mut self, address: u64) -> anyhow::Result<u64> {
        let bytes: [u8; 8] = self.read(address, 8)?.try_into().expect("eight were asked for");
        Ok(u64::from_le_bytes(bytes))
    }

    /// Overwrites the bytes from a virtual address of the kernel on.
    ///
    /// # Errors
    /// If it is not mapped.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let to = after(address, index * PIECE_BYTES);
            let mut packet = format!("M{to:x},{:x}:", piece.len());
            for byte in piece {
                let _fits = write!(packet, "{byte:02x}");
            }
            let answer = self.ask(&packet)?;
            ensure!(answer == "OK", "memory at {to:#x}: {answer}");
        }
        Ok(())
    }

    /// `$packet#sum`, and what comes back in the same form.
    fn ask(&mut self, packet: &str) -> anyhow::Result<String> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.stream.get_mut(), "${packet}#{sum:02x}").context("qemu's debugger stub")?;
        loop {
            let mut answer = Vec::new();
            self.stream.read_until(b'#', &mut answer).context("qemu's debugger stub")?;
            self.stream.read_exact(&mut [0; 2]).context("qemu's debugger stub")?;
            write!(self.stream.get_mut(), "+")?;
            let answer = String::from_utf8(answer)?;
            // Before it there may be "+", for what was received.
            let Some((_, answer)) = answer.trim_end_matches('#').split_once('$') else {
                bail!("qemu's debugger stub: {answer}");
            };
            // Whoever connects is told that the machine stopped.
            if !answer.starts_with(['T', 'S']) {
                return Ok(answer.to_owned());
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It goes on; if it does not, the next script says so.
        let _told = self.ask("D");
    }
}

fn after(address: u64, bytes: usize) -> u64 {
    address + u64::try_from(bytes).expect("a length")
}

/// A packet of the stub has at most 4096 letters.
const PIECE_BYTES: usize = 1024;
const ANSWER_MAX: Duration = Duration::from_secs(60);
