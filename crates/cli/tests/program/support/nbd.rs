//! A small NBD client, after the public protocol text and without our own codec: it knows which
//! request was answered when, which the tools do not tell.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub struct Client {
    stream: UnixStream,
    /// Bytes of the export.
    pub bytes: u64,
    cookie: u64,
}

const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

const WRITE: u16 = 1;
const FLUSH: u16 = 3;

impl Client {
    /// Connects to the default export.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut client = Self { stream: UnixStream::connect(socket)?, bytes: 0, cookie: 0 };
        let greeting: [u8; 18] = client.take()?;
        assert_eq!(&greeting[..8], b"NBDMAGIC");
        // Fixed newstyle, no zeroes.
        client.stream.write_all(&3_u32.to_be_bytes())?;
        let mut option = Vec::new();
        option.extend(IHAVEOPT.to_be_bytes());
        option.extend(OPTION_GO.to_be_bytes());
        option.extend(6_u32.to_be_bytes());
        // No name, no further information.
        option.extend([0; 6]);
        client.stream.write_all(&option)?;
        loop {
            let header: [u8; 20] = client.take()?;
            let kind = u32::from_be_bytes(header[12..16].try_into().expect("4 bytes"));
            let length = u32::from_be_bytes(header[16..].try_into().expect("4 bytes"));
            let mut data = vec![0; usize::try_from(length).expect("a few bytes")];
            client.stream.read_exact(&mut data)?;
            match kind {
                REPLY_ACK => return Ok(client),
                REPLY_INFO if data.starts_with(&[0, 0]) => {
                    client.bytes = u64::from_be_bytes(data[2..10].try_into().expect("8 bytes"));
                }
                REPLY_INFO => {}
                other => panic!("the server answers {other:#x}"),
            }
        }
    }

    /// Sends all writes, then waits for all answers.
    pub fn write_all(&mut self, writes: &[(u64, Vec<u8>)]) -> io::Result<()> {
        for (offset, data) in writes {
            self.send(WRITE, *offset, u32::try_from(data.len()).expect("small"), data)?;
        }
        writes.iter().try_for_each(|_| self.answer())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.send(FLUSH, 0, 0, &[])?;
        self.answer()
    }

    fn send(&mut self, kind: u16, offset: u64, length: u32, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)
    }

    fn answer(&mut self) -> io::Result<()> {
        let reply: [u8; 16] = self.take()?;
        assert_eq!(reply[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().expect("4 bytes"));
        assert_eq!(error, 0, "the server refuses a request");
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
