//! The client's side of the handshake.
//!
//! ```text
//!    Greeting --> STRUCTURED_REPLY --> SET_META_CONTEXT --> GO --> transmission
//!        |               | refused                          ^ | unsupported
//!        |               +----------------------------------+ v
//!        +-- server without fixed newstyle ------------> EXPORT_NAME --> transmission
//! ```

use crate::error::HandshakeError;
use crate::export::BlockSizes;
use crate::flags::{FIXED_NEWSTYLE, NO_ZEROES, TransmissionFlags};
use crate::option::{
    Fields, GREETING_MAGIC, INFO_BLOCK_SIZE, INFO_EXPORT, OLDSTYLE_MAGIC, OPT_EXPORT_NAME, OPT_GO,
    OPT_SET_META_CONTEXT, OPT_STRUCTURED_REPLY, OPTION_DATA_MAX, OPTION_MAGIC, REP_ACK,
    REP_ERR_UNSUP, REP_ERROR_BIT, REP_INFO, REP_META_CONTEXT, REPLY_MAGIC, ReplyHead, error_name,
    put_option, put_string,
};
use crate::{CONTEXT_ALLOCATION, STRING_MAX};
use zerocopy::FromBytes;

/// What was agreed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientNegotiated {
    /// Bytes of the export.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// Its block sizes; the default if the server did not say.
    pub sizes: BlockSizes,
    /// Whether replies are structured.
    pub structured: bool,
    /// The number of `base:allocation`, if the server has it.
    pub allocation: Option<u32>,
}

/// One step of a handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientStep {
    /// Bytes of input that are dealt with; none: receive more first.
    pub consumed: usize,
    /// Bytes to send.
    pub request: Vec<u8>,
    /// The end of the handshake: what follows in the input are replies.
    pub negotiated: Option<ClientNegotiated>,
}

/// A handshake in progress.
#[derive(Debug)]
pub struct ClientHandshake {
    export: String,
    state: State,
    no_zeroes: bool,
    structured: bool,
    allocation: Option<u32>,
    size_and_flags: Option<(u64, TransmissionFlags)>,
    sizes: BlockSizes,
    replies: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Greeting,
    /// Waiting for the replies to this option.
    Option(u32),
    ExportName,
}

impl ClientHandshake {
    /// A handshake for the export of this name (empty: the default export).
    ///
    /// # Panics
    /// If the name is longer than the protocol allows: [`crate::Uri`] refuses such names.
    #[must_use]
    pub fn new(export: &str) -> Self {
        assert!(export.len() <= STRING_MAX, "export names end at 4096 bytes");
        Self {
            export: export.to_owned(),
            state: State::Greeting,
            no_zeroes: false,
            structured: false,
            allocation: None,
            size_and_flags: None,
            sizes: BlockSizes::DEFAULT,
            replies: 0,
        }
    }

    /// Deals with the next message in `input`, if it is there whole.
    ///
    /// # Errors
    /// [`HandshakeError`]: hang up. A server that refuses the export is one of them.
    pub fn step(&mut self, input: &[u8]) -> Result<ClientStep, HandshakeError> {
        let step = match self.state {
            State::Greeting => self.greeting(input)?,
            State::Option(option) => self.reply(option, input)?,
            State::ExportName => self.export_name(input)?,
        };
        Ok(step.unwrap_or(ClientStep { consumed: 0, request: Vec::new(), negotiated: None }))
    }

    fn greeting(&mut self, input: &[u8]) -> Result<Option<ClientStep>, HandshakeError> {
        let mut fields = Fields(input);
        let Some(found) = fields.u64() else { return Ok(None) };
        if found != GREETING_MAGIC {
            return Err(HandshakeError::Greeting { found, expected: GREETING_MAGIC });
        }
        let Some(found) = fields.u64() else { return Ok(None) };
        if found == OLDSTYLE_MAGIC {
            return Err(HandshakeError::Oldstyle);
        }
        if found != OPTION_MAGIC {
            return Err(HandshakeError::OptionMagic { found, expected: OPTION_MAGIC });
        }
        let Some(offered) = fields.u16() else { return Ok(None) };
        let ours = offered & (FIXED_NEWSTYLE | NO_ZEROES);
        self.no_zeroes = ours & NO_ZEROES != 0;
        let mut request = u32::from(ours).to_be_bytes().to_vec();
        if ours & FIXED_NEWSTYLE == 0 {
            self.ask_export_name(&mut request);
        } else {
            self.state = State::Option(OPT_STRUCTURED_REPLY);
            put_option(&mut request, OPT_STRUCTURED_REPLY, &[]);
        }
        Ok(Some(ClientStep { consumed: 18, request, negotiated: None }))
    }

    fn reply(&mut self, option: u32, input: &[u8]) -> Result<Option<ClientStep>, HandshakeError> {
        let Ok((head, rest)) = ReplyHead::read_from_prefix(input) else { return Ok(None) };
        let (found, kind, length) = (head.magic.get(), head.kind.get(), head.length.get());
        if found != REPLY_MAGIC {
            return Err(HandshakeError::ReplyMagic { found, expected: REPLY_MAGIC });
        }
        if head.option.get() != option {
            let found = head.option.get();
            return Err(HandshakeError::ReplyOption { found, expected: option });
        }
        let malformed = HandshakeError::Reply { option, kind, length };
        if length > OPTION_DATA_MAX {
            return Err(malformed);
        }
        let Some(data) = rest.get(..units::usize_of(length.into())) else { return Ok(None) };
        self.replies += 1;
        if self.replies > REPLIES_MAX {
            return Err(HandshakeError::TooLong { limit: REPLIES_MAX });
        }
        let mut request = Vec::new();
        let negotiated = match option {
            OPT_STRUCTURED_REPLY => {
                self.structured_reply(kind, &mut request).ok_or(malformed)?;
                None
            }
            OPT_SET_META_CONTEXT => {
                self.context(kind, data, &mut request).ok_or(malformed)?;
                None
            }
            _ => self.go(kind, data, malformed, &mut request)?,
        };
        let consumed = size_of::<ReplyHead>() + data.len();
        Ok(Some(ClientStep { consumed, request, negotiated }))
    }

    fn structured_reply(&mut self, kind: u32, request: &mut Vec<u8>) -> Option<()> {
        if kind == REP_ACK {
            self.structured = true;
            self.state = State::Option(OPT_SET_META_CONTEXT);
            let mut data = Vec::new();
            put_string(&mut data, &self.export);
            data.extend_from_slice(&1u32.to_be_bytes());
            put_string(&mut data, CONTEXT_ALLOCATION);
            put_option(request, OPT_SET_META_CONTEXT, &data);
        } else if kind & REP_ERROR_BIT != 0 {
            self.ask_go(request);
        } else {
            return None;
        }
        Some(())
    }

    fn context(&mut self, kind: u32, data: &[u8], request: &mut Vec<u8>) -> Option<()> {
        if kind == REP_META_CONTEXT {
            let mut fields = Fields(data);
            let id = fields.u32()?;
            if fields.0 == CONTEXT_ALLOCATION.as_bytes() {
                self.allocation = Some(id);
            }
        } else if kind == REP_ACK {
            self.ask_go(request);
        } else if kind & REP_ERROR_BIT != 0 {
            // Contexts sent before an error are void.
            self.allocation = None;
            self.ask_go(request);
        } else {
            return None;
        }
        Some(())
    }

    fn ask_go(&mut self, request: &mut Vec<u8>) {
        self.state = State::Option(OPT_GO);
        let mut data = Vec::new();
        put_string(&mut data, &self.export);
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
        put_option(request, OPT_GO, &data);
    }

    fn ask_export_name(&mut self, request: &mut Vec<u8>) {
        self.state = State::ExportName;
        put_option(request, OPT_EXPORT_NAME, self.export.as_bytes());
    }

    fn go(
        &mut self,
        kind: u32,
        data: &[u8],
        malformed: HandshakeError,
        request: &mut Vec<u8>,
    ) -> Result<Option<ClientNegotiated>, HandshakeError> {
        match kind {
            REP_INFO => {
                self.info(data).ok_or(malformed)??;
                Ok(None)
            }
            REP_ACK => {
                let agreed = self.size_and_flags.ok_or(HandshakeError::NoExportInfo)?;
                Ok(Some(self.negotiated(agreed)))
            }
            REP_ERR_UNSUP => {
                self.ask_export_name(request);
                Ok(None)
            }
            _ if kind & REP_ERROR_BIT != 0 => {
                let mut reason = error_name(kind).to_owned();
                let end = data.len().min(STRING_MAX);
                let words = String::from_utf8_lossy(&data[..end]);
                if !words.is_empty() {
                    reason = format!("{reason} ({})", words.escape_debug());
                }
                Err(HandshakeError::Refused { export: self.export.clone(), reason })
            }
            _ => Err(malformed),
        }
    }

    /// None: malformed.
    fn info(&mut self, data: &[u8]) -> Option<Result<(), HandshakeError>> {
        let mut fields = Fields(data);
        match fields.u16()? {
            INFO_EXPORT => {
                let (size, flags) = (fields.u64()?, fields.u16()?);
                fields.end()?;
                self.size_and_flags = Some((size, TransmissionFlags(flags)));
            }
            INFO_BLOCK_SIZE => {
                let (minimum, preferred, maximum) = (fields.u32()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                self.sizes = BlockSizes { minimum, preferred, maximum };
                if !self.sizes.are_valid() {
                    return Some(Err(HandshakeError::BlockSizes { minimum, preferred, maximum }));
                }
            }
            _ => {}
        }
        Some(Ok(()))
    }

    fn export_name(&mut self, input: &[u8]) -> Result<Option<ClientStep>, HandshakeError> {
        let consumed = if self.no_zeroes { 10 } else { 134 };
        let mut fields = Fields(input);
        let (Some(size), Some(flags)) = (fields.u64(), fields.u16()) else { return Ok(None) };
        if input.len() < consumed {
            return Ok(None);
        }
        let negotiated = self.negotiated((size, TransmissionFlags(flags)));
        Ok(Some(ClientStep { consumed, request: Vec::new(), negotiated: Some(negotiated) }))
    }

    fn negotiated(&self, (size, flags): (u64, TransmissionFlags)) -> ClientNegotiated {
        ClientNegotiated {
            size,
            flags,
            sizes: self.sizes,
            structured: self.structured,
            allocation: self.allocation,
        }
    }
}

/// Option replies in one handshake; honest servers send a dozen.
const REPLIES_MAX: u32 = 1024;

#[cfg(test)]
mod tests;
