//! Handshakes message by message, honest and hostile.

use super::*;
use crate::option::{REP_ERROR_BIT, put_option};
use crate::{BlockSizes, CONTEXT_ALLOCATION, CONTEXT_INTEGRITY, ClientHandshake};
use proptest::prelude::*;

const FIXED: [u8; 4] = [0, 0, 0, 3];

fn exports() -> Rc<[Export]> {
    let export = |name: &str, size| Export {
        name: name.to_owned(),
        description: "mine".to_owned(),
        size,
        flags: TransmissionFlags(0x0ffd),
        sizes: BlockSizes { minimum: 1, preferred: 512, maximum: crate::PAYLOAD_MAX },
        contexts: vec![CONTEXT_ALLOCATION.to_owned(), CONTEXT_INTEGRITY.to_owned()],
    };
    Rc::new([export("a", 1000), export("b", 2000)])
}

fn info_request(name: &str, asked: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    put_string(&mut data, name);
    data.extend_from_slice(&u16::try_from(asked.len()).unwrap().to_be_bytes());
    asked.iter().for_each(|a| data.extend_from_slice(&a.to_be_bytes()));
    data
}

fn context_request(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    put_string(&mut data, name);
    data.extend_from_slice(&u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries.iter().for_each(|q| put_string(&mut data, q));
    data
}

/// What the server answers to one option: types and data, and what comes next.
fn ask(
    handshake: &mut ServerHandshake,
    option: u32,
    data: &[u8],
) -> (Vec<(u32, Vec<u8>)>, ServerNext) {
    let mut input = Vec::new();
    put_option(&mut input, option, data);
    let step = handshake.step(&input).unwrap();
    assert_eq!(step.consumed, input.len());
    let mut replies = Vec::new();
    let mut rest = &step.reply[..];
    while !rest.is_empty() {
        let (head, after) = crate::option::ReplyHead::read_from_prefix(rest).unwrap();
        assert_eq!(head.option.get(), option);
        let (data, after) = after.split_at(units::usize_of(head.length.get().into()));
        replies.push((head.kind.get(), data.to_vec()));
        rest = after;
    }
    (replies, step.next)
}

fn kinds(replies: &[(u32, Vec<u8>)]) -> Vec<u32> {
    replies.iter().map(|(kind, _)| *kind).collect()
}

fn started() -> ServerHandshake {
    let mut handshake = ServerHandshake::new(exports());
    let step = handshake.step(&FIXED).unwrap();
    assert_eq!((step.consumed, step.next), (4, ServerNext::Continue));
    handshake
}

#[test]
fn the_greeting_is_18_bytes() {
    let greeting = ServerHandshake::new(exports()).greeting();
    assert_eq!(greeting, b"NBDMAGICIHAVEOPT\0\x03");
}

#[test]
fn an_export_is_listed_described_and_entered() {
    let mut handshake = started();
    let (replies, next) = ask(&mut handshake, OPT_LIST, &[]);
    assert_eq!(kinds(&replies), [REP_SERVER, REP_SERVER, REP_ACK]);
    assert_eq!(replies[0].1, b"\0\0\0\x01amine");
    assert_eq!(next, ServerNext::Continue);

    let (replies, next) = ask(&mut handshake, OPT_INFO, &info_request("b", &[3, 1, 2, 77]));
    assert_eq!(kinds(&replies), [REP_INFO, REP_INFO, REP_INFO, REP_INFO, REP_ACK]);
    // Without structured replies there is nothing not to fragment.
    assert_eq!(replies[0].1, [0, 0, 0, 0, 0, 0, 0, 0, 7, 208, 0x0f, 0x7d]);
    assert_eq!(replies[3].1, [0, 3, 0, 0, 0, 1, 0, 0, 2, 0, 2, 0, 0, 0]);
    assert_eq!(next, ServerNext::Continue);

    let (replies, next) = ask(&mut handshake, OPT_GO, &info_request("b", &[]));
    assert_eq!(kinds(&replies), [REP_INFO, REP_ACK]);
    let ServerNext::Transmit(negotiated) = next else { panic!("{next:?}") };
    assert_eq!(negotiated.export, 1);
    assert!(!negotiated.structured);
}

#[test]
fn an_unknown_export_is_refused_and_the_handshake_goes_on() {
    let mut handshake = started();
    for option in [OPT_INFO, OPT_GO] {
        let (replies, next) = ask(&mut handshake, option, &info_request("c", &[]));
        assert_eq!(kinds(&replies), [REP_ERR_UNKNOWN]);
        assert_eq!(next, ServerNext::Continue);
    }
    // Of two exports, none is the default.
    let (replies, _) = ask(&mut handshake, OPT_GO, &info_request("", &[]));
    assert_eq!(kinds(&replies), [REP_ERR_UNKNOWN]);
    let mut input = Vec::new();
    put_option(&mut input, OPT_EXPORT_NAME, b"c");
    assert_eq!(handshake.step(&input), Err(HandshakeError::UnknownExport));
}

#[test]
fn contexts_are_listed_and_chosen() {
    let mut handshake = started();
    let (replies, _) =
        ask(&mut handshake, OPT_SET_META_CONTEXT, &context_request("a", &[CONTEXT_ALLOCATION]));
    assert_eq!(kinds(&replies), [REP_ERR_INVALID], "structured replies come first");
    let (replies, _) = ask(&mut handshake, OPT_STRUCTURED_REPLY, &[]);
    assert_eq!(kinds(&replies), [REP_ACK]);

    let mut listed = |queries: &[&str]| {
        let data = context_request("a", queries);
        let (replies, _) = ask(&mut handshake, OPT_LIST_META_CONTEXT, &data);
        replies.len() - 1
    };
    assert_eq!(listed(&[]), 2);
    assert_eq!(listed(&["base:"]), 1);
    assert_eq!(listed(&["steadfast:", "base:allocation", "base:"]), 2);
    assert_eq!(listed(&["qemu:", "base:other"]), 0);

    let data = context_request("a", &[CONTEXT_INTEGRITY, "base:", CONTEXT_INTEGRITY]);
    let (replies, _) = ask(&mut handshake, OPT_SET_META_CONTEXT, &data);
    assert_eq!(kinds(&replies), [REP_META_CONTEXT, REP_ACK]);
    assert_eq!(replies[0].1, b"\0\0\0\x02steadfast:integrity");

    let (_, next) = ask(&mut handshake, OPT_GO, &info_request("a", &[]));
    let ServerNext::Transmit(negotiated) = next else { panic!("{next:?}") };
    assert!(negotiated.structured && negotiated.flags.contains(TransmissionFlags::SEND_DF));
    let chosen = SelectedContext { id: 2, name: CONTEXT_INTEGRITY.to_owned() };
    assert_eq!(negotiated.contexts, [chosen]);
}

#[test]
fn contexts_of_another_export_are_void() {
    let mut handshake = started();
    ask(&mut handshake, OPT_STRUCTURED_REPLY, &[]);
    ask(&mut handshake, OPT_SET_META_CONTEXT, &context_request("a", &[CONTEXT_ALLOCATION]));
    let (_, next) = ask(&mut handshake, OPT_GO, &info_request("b", &[]));
    assert!(matches!(next, ServerNext::Transmit(n) if n.contexts.is_empty()));

    let mut handshake = started();
    ask(&mut handshake, OPT_STRUCTURED_REPLY, &[]);
    ask(&mut handshake, OPT_SET_META_CONTEXT, &context_request("a", &[CONTEXT_ALLOCATION]));
    ask(&mut handshake, OPT_SET_META_CONTEXT, b"garbage");
    let (_, next) = ask(&mut handshake, OPT_GO, &info_request("a", &[]));
    assert!(matches!(next, ServerNext::Transmit(n) if n.contexts.is_empty()));
}

#[test]
fn what_is_not_offered_is_refused_by_its_error() {
    let mut handshake = started();
    for (option, error) in [
        (OPT_STARTTLS, REP_ERR_POLICY),
        (11, REP_ERR_UNSUP), // extended headers
        (4, REP_ERR_UNSUP),
        (u32::MAX, REP_ERR_UNSUP),
    ] {
        let (replies, next) = ask(&mut handshake, option, &[]);
        assert_eq!(kinds(&replies), [error], "option {option}");
        assert_eq!(next, ServerNext::Continue);
    }
    for option in [OPT_LIST, OPT_STRUCTURED_REPLY, OPT_GO, OPT_INFO, OPT_LIST_META_CONTEXT] {
        let (replies, _) = ask(&mut handshake, option, b"?");
        assert_eq!(kinds(&replies), [REP_ERR_INVALID], "option {option}");
    }
    let (replies, next) = ask(&mut handshake, OPT_ABORT, b"ignored");
    assert_eq!((kinds(&replies), next), (vec![REP_ACK], ServerNext::Close));
}

#[test]
fn the_old_reply_to_a_name_ends_in_124_zeroes_unless_declined() {
    for (flags, length) in [([0, 0, 0, 1], 134), ([0, 0, 0, 3], 10), ([0, 0, 0, 0], 134)] {
        let mut handshake = ServerHandshake::new(exports());
        handshake.step(&flags).unwrap();
        let mut input = Vec::new();
        put_option(&mut input, OPT_EXPORT_NAME, b"a");
        let step = handshake.step(&input).unwrap();
        assert_eq!(step.reply.len(), length);
        assert!(matches!(step.next, ServerNext::Transmit(_)));
    }
}

#[test]
fn violations_hang_up() {
    let mut handshake = ServerHandshake::new(exports());
    assert_eq!(handshake.step(&[0, 0, 0, 7]), Err(HandshakeError::ClientFlags { found: 7 }));
    let mut handshake = started();
    assert!(matches!(
        handshake.step(b"GET / HTTP/1.1\r\n"),
        Err(HandshakeError::OptionMagic { .. })
    ));
    let mut handshake = ServerHandshake::new(exports());
    handshake.step(&[0; 4]).unwrap();
    let mut input = Vec::new();
    put_option(&mut input, OPT_LIST, &[]);
    assert_eq!(handshake.step(&input), Err(HandshakeError::NotFixed { found: OPT_LIST }));
}

#[test]
fn a_long_option_is_skipped_without_being_stored() {
    let mut handshake = started();
    let mut head = OPTION_MAGIC.to_be_bytes().to_vec();
    head.extend_from_slice(&OPT_GO.to_be_bytes());
    head.extend_from_slice(&(OPTION_DATA_MAX + 1).to_be_bytes());
    assert_eq!(handshake.step(&head).unwrap().consumed, 16);
    let mut left = units::usize_of(OPTION_DATA_MAX.into()) + 1;
    loop {
        let step = handshake.step(&[0x5a; 1000]).unwrap();
        left -= step.consumed;
        if left == 0 {
            assert_eq!(step.reply[12..16], REP_ERR_TOO_BIG.to_be_bytes());
            break;
        }
        assert_eq!((step.consumed, step.next), (1000, ServerNext::Receive));
    }
    let (replies, _) = ask(&mut handshake, OPT_LIST, &[]);
    assert_eq!(kinds(&replies).last(), Some(&REP_ACK));
}

#[test]
fn an_endless_handshake_ends() {
    let mut handshake = started();
    for _ in 0..OPTIONS_MAX {
        ask(&mut handshake, OPT_LIST, &[]);
    }
    let mut input = Vec::new();
    put_option(&mut input, OPT_LIST, &[]);
    assert!(matches!(handshake.step(&input), Err(HandshakeError::TooLong { .. })));
}

proptest! {
    #[test]
    fn any_bytes_end_a_handshake_in_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = server_handshake(&bytes);
        let _ = server_handshake(&[&FIXED[..], &bytes].concat());
    }

    #[test]
    fn any_option_data_is_answered(
        option in 0u32..13, data in prop::collection::vec(any::<u8>(), 0..100), structured: bool,
    ) {
        let mut handshake = started();
        if structured {
            ask(&mut handshake, OPT_STRUCTURED_REPLY, &[]);
        }
        let mut input = Vec::new();
        put_option(&mut input, option, &data);
        let step = handshake.step(&input);
        let answered = match step {
            Ok(step) => step.consumed == input.len() && !step.reply.is_empty(),
            Err(error) => error == HandshakeError::UnknownExport,
        };
        prop_assert!(answered);
    }

    /// However the stream is cut into pieces, both sides agree.
    #[test]
    fn our_client_and_our_server_agree(cuts in prop::collection::vec(1usize..40, 1..40)) {
        let mut server = ServerHandshake::new(exports());
        let mut client = ClientHandshake::new("b");
        let (mut to_client, mut to_server) = (server.greeting(), Vec::new());
        let (mut seen, mut agreed) = (0, None);
        for cut in cuts.into_iter().chain(std::iter::repeat_n(1000, 40)) {
            seen += cut;
            let step = client.step(&to_client[..seen.min(to_client.len())]).unwrap();
            to_client.drain(..step.consumed);
            seen -= step.consumed.min(seen);
            to_server.extend_from_slice(&step.request);
            if let Some(negotiated) = step.negotiated {
                prop_assert_eq!(negotiated.size, 2000);
                prop_assert!(negotiated.structured);
                prop_assert_eq!(negotiated.allocation, Some(1));
                prop_assert_eq!(negotiated.sizes.preferred, 512);
                let agreed: Option<ServerNegotiated> = agreed;
                prop_assert_eq!(agreed.unwrap().contexts.len(), 1);
                prop_assert!(to_client.is_empty());
                return Ok(());
            }
            let step = server.step(&to_server).unwrap();
            to_server.drain(..step.consumed);
            to_client.extend_from_slice(&step.reply);
            if let ServerNext::Transmit(negotiated) = step.next {
                agreed = Some(negotiated);
            }
        }
        prop_assert!(false, "no agreement");
    }
}

#[test]
fn every_error_reply_is_marked_as_one() {
    for kind in [REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_UNKNOWN, REP_ERR_TOO_BIG] {
        assert_ne!(kind & REP_ERROR_BIT, 0);
    }
}
