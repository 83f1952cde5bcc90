//! The server's side of the handshake: bytes in, bytes out, a decision.
//!
//! ```text
//!    Flags --client flags--> Options --GO / EXPORT_NAME--> transmission
//!                             |   ^
//!                             |   +-- LIST, INFO, STRUCTURED_REPLY, *_META_CONTEXT, unknown
//!                             +-- too long --> Skipping --data gone--> Options
//! ```
//!
//! An option that is too long to read is skipped without storing it and answered with `TOO_BIG`;
//! STARTTLS is refused by policy, extended headers and everything unknown as unsupported.

use crate::error::HandshakeError;
use crate::export::Export;
use crate::flags::{FIXED_NEWSTYLE, NO_ZEROES, TransmissionFlags};
use crate::option::{
    GREETING_MAGIC, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY, OPTION_DATA_MAX, OPTION_MAGIC,
    OptionHead, REP_ACK, REP_ERR_INVALID, REP_ERR_POLICY, REP_ERR_TOO_BIG, REP_ERR_UNKNOWN,
    REP_ERR_UNSUP, REP_INFO, REP_META_CONTEXT, REP_SERVER, decode_context_request,
    decode_info_request, info_items, put_reply, put_string, string,
};
use std::rc::Rc;
use zerocopy::FromBytes;

/// A metadata context that the client chose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelectedContext {
    /// The number by which replies name it.
    pub id: u32,
    /// One of [`Export::contexts`].
    pub name: String,
}

/// What was agreed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerNegotiated {
    /// Index of the export.
    pub export: usize,
    /// Its flags as the client was told them.
    pub flags: TransmissionFlags,
    /// Whether replies are structured.
    pub structured: bool,
    /// The contexts chosen, none of them twice.
    pub contexts: Vec<SelectedContext>,
}

/// What to do after sending a step's reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerNext {
    /// The input is too short for another step: receive more.
    Receive,
    /// Take another step.
    Continue,
    /// The rest of the stream is requests.
    Transmit(ServerNegotiated),
    /// The client says goodbye: hang up.
    Close,
}

/// One step of a handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerStep {
    /// Bytes of input that are dealt with.
    pub consumed: usize,
    /// Bytes to send.
    pub reply: Vec<u8>,
    /// And then.
    pub next: ServerNext,
}

/// A handshake in progress.
#[derive(Debug)]
pub struct ServerHandshake {
    exports: Rc<[Export]>,
    state: State,
    fixed: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export and the contexts of the last `SET_META_CONTEXT`.
    selected: Option<(usize, Vec<SelectedContext>)>,
    options: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Flags,
    Options,
    Skipping { option: u32, left: u32 },
}

/// The outcome of an option: what follows, or a refusal that leaves the handshake going.
type Answer = Result<ServerNext, Refusal>;

enum Refusal {
    Reply(u32, &'static str),
    HangUp(HandshakeError),
}

const UNKNOWN: Refusal = Refusal::Reply(REP_ERR_UNKNOWN, "no export of that name");
const MALFORMED: Refusal = Refusal::Reply(REP_ERR_INVALID, "malformed option data");

impl ServerHandshake {
    /// A handshake that offers `exports`. If there is only one, the empty name means it too.
    ///
    /// # Panics
    /// If an export is not [valid](Export::is_valid).
    #[must_use]
    pub fn new(exports: Rc<[Export]>) -> Self {
        assert!(exports.iter().all(Export::is_valid), "exports can be described");
        Self {
            exports,
            state: State::Flags,
            fixed: false,
            no_zeroes: false,
            structured: false,
            selected: None,
            options: 0,
        }
    }

    /// What the server says first.
    #[must_use]
    pub fn greeting(&self) -> Vec<u8> {
        let mut bytes = GREETING_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        bytes
    }

    /// Deals with the next message in `input`, if it is there whole. A caller that keeps
    /// [`OPTION_DATA_MAX`] and 16 more bytes of input never starves a handshake.
    ///
    /// # Errors
    /// [`HandshakeError`]: send nothing, hang up.
    pub fn step(&mut self, input: &[u8]) -> Result<ServerStep, HandshakeError> {
        let starved = ServerStep { consumed: 0, reply: Vec::new(), next: ServerNext::Receive };
        match self.state {
            State::Flags => {
                let Some(flags) = input.first_chunk() else { return Ok(starved) };
                self.client_flags(u32::from_be_bytes(*flags))?;
                Ok(ServerStep { consumed: 4, next: ServerNext::Continue, ..starved })
            }
            State::Skipping { option, left } => Ok(self.skip(option, left, input)),
            State::Options => {
                let Ok((head, rest)) = OptionHead::read_from_prefix(input) else {
                    return Ok(starved);
                };
                let (found, option) = (head.magic.get(), head.option.get());
                if found != OPTION_MAGIC {
                    return Err(HandshakeError::OptionMagic { found, expected: OPTION_MAGIC });
                }
                let length = head.length.get();
                if length > OPTION_DATA_MAX {
                    self.count_option(option)?;
                    self.state = State::Skipping { option, left: length };
                    let consumed = input.len() - rest.len();
                    return Ok(ServerStep { consumed, next: ServerNext::Continue, ..starved });
                }
                let Some(data) = rest.get(..units::usize_of(length.into())) else {
                    return Ok(starved);
                };
                self.count_option(option)?;
                let mut reply = Vec::new();
                let next = self.option(option, data, &mut reply)?;
                Ok(ServerStep { consumed: size_of::<OptionHead>() + data.len(), reply, next })
            }
        }
    }

    fn client_flags(&mut self, flags: u32) -> Result<(), HandshakeError> {
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(HandshakeError::ClientFlags { found: flags });
        }
        self.fixed = flags & u32::from(FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(NO_ZEROES) != 0;
        self.state = State::Options;
        Ok(())
    }

    fn count_option(&mut self, option: u32) -> Result<(), HandshakeError> {
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(HandshakeError::TooLong { limit: OPTIONS_MAX });
        }
        if !self.fixed && option != OPT_EXPORT_NAME {
            return Err(HandshakeError::NotFixed { found: option });
        }
        Ok(())
    }

    fn skip(&mut self, option: u32, left: u32, input: &[u8]) -> ServerStep {
        let consumed = input.len().min(units::usize_of(left.into()));
        let left = left - u32::try_from(consumed).expect("at most `left`, which is 32 bits");
        let mut reply = Vec::new();
        if left > 0 {
            self.state = State::Skipping { option, left };
            return ServerStep { consumed, reply, next: ServerNext::Receive };
        }
        self.state = State::Options;
        put_reply(&mut reply, option, REP_ERR_TOO_BIG, b"option data too long");
        ServerStep { consumed, reply, next: ServerNext::Continue }
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<ServerNext, HandshakeError> {
        let answer = match option {
            OPT_EXPORT_NAME => self.export_name(data, reply),
            OPT_ABORT => {
                put_reply(reply, option, REP_ACK, &[]);
                Ok(ServerNext::Close)
            }
            OPT_LIST => self.list(data, reply),
            OPT_INFO | OPT_GO => self.info(option, data, reply),
            OPT_STRUCTURED_REPLY => self.structured_reply(data, reply),
            OPT_LIST_META_CONTEXT => self.list_contexts(data, reply),
            OPT_SET_META_CONTEXT => self.set_contexts(data, reply),
            OPT_STARTTLS => Err(Refusal::Reply(REP_ERR_POLICY, "TLS is not offered")),
            _ => Err(Refusal::Reply(REP_ERR_UNSUP, "option not supported")),
        };
        match answer {
            Ok(next) => Ok(next),
            Err(Refusal::HangUp(error)) => Err(error),
            Err(Refusal::Reply(kind, message)) => {
                put_reply(reply, option, kind, message.as_bytes());
                Ok(ServerNext::Continue)
            }
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let named = self.exports.iter().position(|export| export.name == name);
        named.or((name.is_empty() && self.exports.len() == 1).then_some(0))
    }

    fn flags_of(&self, export: &Export) -> TransmissionFlags {
        let flags = export.flags | TransmissionFlags::HAS_FLAGS;
        if self.structured { flags } else { flags.without(TransmissionFlags::SEND_DF) }
    }

    fn transmit(&mut self, index: usize) -> ServerNext {
        let contexts = match self.selected.take() {
            Some((export, contexts)) if export == index => contexts,
            _ => Vec::new(),
        };
        let flags = self.flags_of(&self.exports[index]);
        ServerNext::Transmit(ServerNegotiated {
            export: index,
            flags,
            structured: self.structured,
            contexts,
        })
    }

    fn export_name(&mut self, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        let index = string(data)
            .and_then(|name| self.find(name))
            .ok_or(Refusal::HangUp(HandshakeError::UnknownExport))?;
        let export = &self.exports[index];
        reply.extend_from_slice(&export.size.to_be_bytes());
        reply.extend_from_slice(&self.flags_of(export).0.to_be_bytes());
        if !self.no_zeroes {
            reply.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
        }
        Ok(self.transmit(index))
    }

    fn list(&self, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        if !data.is_empty() {
            return Err(MALFORMED);
        }
        for export in &*self.exports {
            let mut entry = Vec::new();
            put_string(&mut entry, &export.name);
            entry.extend_from_slice(export.description.as_bytes());
            put_reply(reply, OPT_LIST, REP_SERVER, &entry);
        }
        put_reply(reply, OPT_LIST, REP_ACK, &[]);
        Ok(ServerNext::Continue)
    }

    fn info(&mut self, option: u32, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        let (name, asked) = decode_info_request(data).ok_or(MALFORMED)?;
        let index = self.find(name).ok_or(UNKNOWN)?;
        let export = &self.exports[index];
        for item in info_items(export, self.flags_of(export), &asked) {
            put_reply(reply, option, REP_INFO, &item);
        }
        put_reply(reply, option, REP_ACK, &[]);
        Ok(if option == OPT_GO { self.transmit(index) } else { ServerNext::Continue })
    }

    fn structured_reply(&mut self, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        if !data.is_empty() {
            return Err(MALFORMED);
        }
        self.structured = true;
        put_reply(reply, OPT_STRUCTURED_REPLY, REP_ACK, &[]);
        Ok(ServerNext::Continue)
    }

    fn list_contexts(&self, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        let (name, queries) = decode_context_request(data).ok_or(MALFORMED)?;
        let index = self.find(name).ok_or(UNKNOWN)?;
        for context in &self.exports[index].contexts {
            // A query is a whole name, or a namespace with its colon for all that is in it.
            let asked = |query: &&str| {
                *query == context || (query.ends_with(':') && context.starts_with(*query))
            };
            if queries.is_empty() || queries.iter().any(asked) {
                put_context(reply, OPT_LIST_META_CONTEXT, 0, context);
            }
        }
        put_reply(reply, OPT_LIST_META_CONTEXT, REP_ACK, &[]);
        Ok(ServerNext::Continue)
    }

    fn set_contexts(&mut self, data: &[u8], reply: &mut Vec<u8>) -> Answer {
        // Whatever becomes of this one, it replaces the choice before.
        self.selected = None;
        if !self.structured {
            return Err(Refusal::Reply(REP_ERR_INVALID, "structured replies come first"));
        }
        let (name, queries) = decode_context_request(data).ok_or(MALFORMED)?;
        let index = self.find(name).ok_or(UNKNOWN)?;
        let mut selected = Vec::new();
        for (id, context) in (1..).zip(&self.exports[index].contexts) {
            if queries.contains(&context.as_str()) {
                put_context(reply, OPT_SET_META_CONTEXT, id, context);
                selected.push(SelectedContext { id, name: context.clone() });
            }
        }
        self.selected = Some((index, selected));
        put_reply(reply, OPT_SET_META_CONTEXT, REP_ACK, &[]);
        Ok(ServerNext::Continue)
    }
}

/// Runs a whole handshake over `input` as if a client had sent nothing else, for fuzzing: returns
/// what was agreed, and everything that was answered.
///
/// # Errors
/// [`HandshakeError`] where a server would hang up.
pub fn server_handshake(
    input: &[u8],
) -> Result<(Option<ServerNegotiated>, Vec<u8>), HandshakeError> {
    let export = Export {
        name: "volume".to_owned(),
        description: "a volume".to_owned(),
        size: 1 << 30,
        flags: TransmissionFlags(0x0ffd),
        sizes: crate::BlockSizes::DEFAULT,
        contexts: vec![crate::CONTEXT_ALLOCATION.to_owned(), crate::CONTEXT_INTEGRITY.to_owned()],
    };
    let mut handshake = ServerHandshake::new(Rc::new([export]));
    let mut replies = handshake.greeting();
    let mut rest = input;
    loop {
        let step = handshake.step(rest)?;
        rest = &rest[step.consumed..];
        replies.extend_from_slice(&step.reply);
        match step.next {
            ServerNext::Continue => {}
            ServerNext::Receive | ServerNext::Close => return Ok((None, replies)),
            ServerNext::Transmit(negotiated) => return Ok((Some(negotiated), replies)),
        }
    }
}

fn put_context(reply: &mut Vec<u8>, option: u32, id: u32, name: &str) {
    let mut data = id.to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    put_reply(reply, option, REP_META_CONTEXT, &data);
}

/// Options in one handshake; honest clients send a dozen.
const OPTIONS_MAX: u32 = 1024;
/// Zeroes that end the reply to `EXPORT_NAME` unless the client said that it can do without.
const EXPORT_NAME_ZEROES: usize = 124;

#[cfg(test)]
mod tests;
