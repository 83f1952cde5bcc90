//! What comes over the wire of NBD, on both sides, and URIs.

use crate::input::Input;
use nbd::reply::{self, ChunkKind, Header};
use nbd::{
    BlockSizes, CONTEXT_ALLOCATION, CONTEXT_INTEGRITY, ClientHandshake, ClientNegotiated, Export,
    HandshakeError, PAYLOAD_MAX, Request, STRING_MAX, ServerHandshake, ServerNegotiated,
    ServerNext, TransmissionFlags, Uri,
};
use std::rc::Rc;
use units::usize_of;

/// A client that says anything, in pieces of any size: the server answers the same, whatever the
/// pieces, and never more than a few times what it was told.
pub fn server_handshake(bytes: &[u8]) {
    let mut input = Input(bytes);
    let piece = usize::from(input.byte()).max(1);
    let whole = serve(input.0, input.0.len().max(1));
    assert_eq!(serve(input.0, piece), whole, "pieces of {piece}");
    if let Ok((negotiated, replies)) = whole {
        assert!(replies.len() <= 4096 + 64 * input.0.len() + 64 * STRING_MAX);
        if let Some(negotiated) = negotiated {
            assert!(negotiated.export < exports().len());
            assert!(negotiated.contexts.is_empty() || negotiated.structured);
        }
    }
}

type Served = Result<(Option<ServerNegotiated>, Vec<u8>), HandshakeError>;

fn serve(input: &[u8], piece: usize) -> Served {
    let mut handshake = ServerHandshake::new(exports());
    let mut replies = handshake.greeting();
    let mut received = Vec::new();
    for piece in input.chunks(piece) {
        received.extend_from_slice(piece);
        loop {
            let step = handshake.step(&received)?;
            assert!(step.consumed <= received.len());
            received.drain(..step.consumed);
            replies.extend_from_slice(&step.reply);
            match step.next {
                ServerNext::Continue => {}
                ServerNext::Receive => break,
                ServerNext::Close => return Ok((None, replies)),
                ServerNext::Transmit(negotiated) => return Ok((Some(negotiated), replies)),
            }
        }
    }
    Ok((None, replies))
}

fn exports() -> Rc<[Export]> {
    let export = |name: &str, size: u64, flags: u16| Export {
        name: name.to_owned(),
        description: format!("the volume {name}"),
        size,
        flags: TransmissionFlags(flags),
        sizes: BlockSizes::DEFAULT,
        contexts: vec![CONTEXT_ALLOCATION.to_owned(), CONTEXT_INTEGRITY.to_owned()],
    };
    Rc::new([export("volume", 1 << 30, 0x0ffd), export("other", 512, 1)])
}

/// A server that says anything, in pieces of any size.
pub fn client_handshake(bytes: &[u8]) {
    let mut input = Input(bytes);
    let piece = usize::from(input.byte()).max(1);
    let whole = connect(input.0, input.0.len().max(1));
    assert_eq!(connect(input.0, piece), whole, "pieces of {piece}");
    if let Ok(Some(negotiated)) = whole {
        assert!(negotiated.sizes.are_valid());
        assert!(negotiated.allocation.is_none() || negotiated.structured);
    }
}

fn connect(input: &[u8], piece: usize) -> Result<Option<ClientNegotiated>, HandshakeError> {
    let mut handshake = ClientHandshake::new("volume");
    let mut received = Vec::new();
    for piece in input.chunks(piece) {
        received.extend_from_slice(piece);
        loop {
            let step = handshake.step(&received)?;
            assert!(step.consumed <= received.len());
            received.drain(..step.consumed);
            if let Some(negotiated) = step.negotiated {
                return Ok(Some(negotiated));
            }
            if step.consumed == 0 {
                break;
            }
        }
    }
    Ok(None)
}

/// A stream of requests: each survives, and what passes the check lies inside the export.
pub fn requests(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = TransmissionFlags(u16::from_le_bytes(input.array()));
    let size = u64::from(input.number()) << (input.byte() & 31);
    let mut stream = input.0;
    while let Some((head, rest)) = stream.split_first_chunk::<{ Request::BYTES }>() {
        let Ok(request) = Request::decode(head) else { return };
        assert_eq!(request.encode(), *head, "every bit survives");
        for contexts_chosen in [false, true] {
            if request.check(size, flags, contexts_chosen).is_ok() {
                let end = request.offset.checked_add(u64::from(request.length));
                assert!(end.is_some_and(|end| end <= size), "{request:?} of {size}");
                assert!(request.payload() <= PAYLOAD_MAX);
                let read_only = flags.contains(TransmissionFlags::READ_ONLY);
                assert!(!(read_only && request.command.is_write()));
            }
        }
        stream = rest.get(usize_of(u64::from(request.payload()))..).unwrap_or_default();
    }
}

/// A stream of replies: headers and payloads decode or are refused, and what decodes can be said
/// again.
pub fn replies(bytes: &[u8]) {
    let mut stream = bytes;
    while let Ok(Some((header, length))) = Header::decode(stream) {
        assert!(length <= stream.len() && length > 0);
        let rest = &stream[length..];
        match header {
            Header::Simple { cookie, error } => {
                assert_eq!(reply::simple(cookie, error)[..], stream[..length]);
                stream = rest;
            }
            Header::Chunk { kind, length, .. } => {
                let Some((payload, rest)) = rest.split_at_checked(usize_of(u64::from(length)))
                else {
                    return;
                };
                chunk(kind, payload);
                stream = rest;
            }
        }
    }
}

fn chunk(kind: ChunkKind, payload: &[u8]) {
    assert_eq!(ChunkKind::decode(kind.encode()), Ok(kind));
    match kind {
        ChunkKind::OffsetHole => {
            if let Ok((offset, length)) = reply::decode_hole(payload) {
                let mut again = Vec::new();
                reply::offset_hole(&mut again, 7, true, offset, length);
                assert_eq!(again[reply::CHUNK_BYTES..], *payload);
            }
        }
        ChunkKind::BlockStatus => {
            if let Ok((context, extents)) = reply::decode_block_status(payload)
                && extents.len() <= reply::EXTENTS_MAX
            {
                let mut again = Vec::new();
                reply::block_status(&mut again, 7, true, context, &extents);
                assert_eq!(again[reply::CHUNK_BYTES..], *payload);
            }
        }
        ChunkKind::Error | ChunkKind::ErrorOffset | ChunkKind::OtherError(_) => {
            if let Ok(found) = reply::decode_error(kind, payload) {
                error_again(kind, &found);
            }
        }
        ChunkKind::None | ChunkKind::OffsetData => {}
    }
}

/// What was said is said the same way again; a message that was not text grows by replacements.
fn error_again(kind: ChunkKind, found: &reply::ErrorChunk) {
    let mut again = Vec::new();
    match found.offset {
        Some(offset) => {
            reply::error_offset(&mut again, 7, found.error, &found.message, offset);
        }
        None => reply::error(&mut again, 7, found.error, &found.message),
    }
    let kind = if found.offset.is_some() { kind } else { ChunkKind::Error };
    let decoded = reply::decode_error(kind, &again[reply::CHUNK_BYTES..])
        .expect("our own chunk is well formed");
    assert_eq!((decoded.error, decoded.offset), (found.error, found.offset));
    assert!(found.message.starts_with(&decoded.message));
    assert!(found.message.len() > STRING_MAX || decoded.message == found.message);
}

/// Any text as a URI: what is understood prints as something that means the same.
pub fn uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Uri::parse(text) {
        Ok(uri) => {
            let printed = uri.to_string();
            assert_eq!(Uri::parse(&printed).as_ref(), Ok(&uri), "{printed}");
            assert!(Uri::looks_like(&printed));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
