//! A client that costs next to nothing: random 4 KiB reads, 32 under way, asked in batches.
//!
//! fio's engine makes a system call per request and so reaches its own limit before a fast server
//! does. This one sends what it has to ask with one call and takes all replies that are there with
//! another, so that the server is the limit.

use super::server::Server;
use ::nbd::reply::{ChunkKind, Header};
use ::nbd::{ClientHandshake, Command, CommandFlags, Request};
use anyhow::bail;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use units::{u64_of, usize_of};

/// Reads for `seconds`; replies per second.
pub(super) fn random_reads(server: &Server, seconds: u32) -> anyhow::Result<f64> {
    let mut client = Client::connect(server)?;
    let start = Instant::now();
    let limit = Duration::from_secs(seconds.into());
    for _ in 0..DEPTH {
        client.ask();
    }
    let (mut asked, mut answered) = (DEPTH, 0);
    // Ends with nothing under way, so that no server is left with replies nobody takes.
    while answered < asked {
        let replies = client.exchange()?;
        answered += replies;
        if start.elapsed() < limit {
            (0..replies).for_each(|_| client.ask());
            asked += replies;
        }
    }
    Ok(f64::from(answered) / start.elapsed().as_secs_f64())
}

struct Client {
    stream: UnixStream,
    structured: bool,
    blocks: u64,
    random: u64,
    requests: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of `input` that are there.
    received: usize,
}

impl Client {
    fn connect(server: &Server) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(server.socket())?;
        let mut client = Self {
            stream,
            structured: false,
            blocks: server.bytes / u64_of(BLOCK),
            random: 1,
            requests: Vec::new(),
            input: vec![0; INPUT_BYTES],
            received: 0,
        };
        let mut handshake = ClientHandshake::new("");
        loop {
            let step = handshake.step(&client.input[..client.received])?;
            client.consume(step.consumed);
            client.stream.write_all(&step.request)?;
            if let Some(negotiated) = step.negotiated {
                client.structured = negotiated.structured;
                return Ok(client);
            }
            if step.consumed == 0 {
                client.receive()?;
            }
        }
    }

    /// Puts down one more read, anywhere.
    fn ask(&mut self) {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let block = (self.random >> 24) % self.blocks;
        let request = Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie: block,
            offset: block * u64_of(BLOCK),
            length: u32::try_from(BLOCK).expect("a block is small"),
        };
        self.requests.extend_from_slice(&request.encode());
    }

    /// Sends what was put down and takes what there is; the number of requests answered.
    fn exchange(&mut self) -> anyhow::Result<u32> {
        self.stream.write_all(&self.requests)?;
        self.requests.clear();
        self.receive()?;
        let (mut at, mut answered) = (0, 0);
        while let Some((length, done)) = self.reply(&self.input[at..self.received])? {
            at += length;
            answered += u32::from(done);
        }
        self.consume(at);
        Ok(answered)
    }

    /// Length of the message at the front, if it is there whole, and whether it ends a reply.
    fn reply(&self, bytes: &[u8]) -> anyhow::Result<Option<(usize, bool)>> {
        let Some((header, head)) = Header::decode(bytes)? else { return Ok(None) };
        let (length, done) = match header {
            Header::Simple { error: None, .. } if !self.structured => (BLOCK, true),
            Header::Chunk {
                kind: ChunkKind::OffsetData | ChunkKind::OffsetHole | ChunkKind::None,
                done,
                length,
                ..
            } => (usize_of(length.into()), done),
            other => bail!("a read was answered with {other:?}"),
        };
        Ok((bytes.len() >= head + length).then_some((head + length, done)))
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        match self.stream.read(&mut self.input[self.received..])? {
            0 => bail!("the server hung up"),
            count => self.received += count,
        }
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.input.copy_within(count..self.received, 0);
        self.received -= count;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let (flags, command) = (CommandFlags::NONE, Command::Disconnect);
        let goodbye = Request { flags, command, cookie: 0, offset: 0, length: 0 };
        // A server that has gone needs no goodbye.
        let _ = self.stream.write_all(&goodbye.encode());
    }
}

const BLOCK: usize = 4096;
const DEPTH: u32 = 32;
const INPUT_BYTES: usize = 1 << 20;
