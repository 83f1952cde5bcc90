//! Servers of several kinds, scripted.

use super::*;
use crate::option::{REP_ERR_POLICY, REP_ERR_UNKNOWN, put_reply};
use proptest::prelude::*;

fn greeted(flags: &[u8; 2]) -> (ClientHandshake, Vec<u8>) {
    let mut client = ClientHandshake::new("disk");
    let step = client.step(&[b"NBDMAGICIHAVEOPT", &flags[..]].concat()).unwrap();
    assert_eq!(step.consumed, 18);
    (client, step.request)
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_reply(&mut bytes, option, kind, data);
    bytes
}

fn info_export(size: u64, flags: u16) -> Vec<u8> {
    let data = [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat();
    reply(OPT_GO, REP_INFO, &data)
}

#[test]
fn a_server_without_extras_is_entered_by_go() {
    let (mut client, request) = greeted(b"\0\x03");
    assert_eq!(request[..4], [0, 0, 0, 3]);
    assert_eq!(request[12..16], OPT_STRUCTURED_REPLY.to_be_bytes());
    let step = client.step(&reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, b"no")).unwrap();
    assert_eq!(step.request[8..12], OPT_GO.to_be_bytes());
    assert_eq!(client.step(&info_export(4096, 1)).unwrap().negotiated, None);
    let step = client.step(&reply(OPT_GO, REP_ACK, &[])).unwrap();
    let wanted = ClientNegotiated {
        size: 4096,
        flags: TransmissionFlags(1),
        sizes: BlockSizes::DEFAULT,
        structured: false,
        allocation: None,
    };
    assert_eq!(step.negotiated, Some(wanted));
}

#[test]
fn an_old_server_is_entered_by_name() {
    let (mut client, request) = greeted(b"\0\0");
    assert_eq!(request, b"\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
    let mut answer = [0; 134];
    answer[6] = 0x10;
    answer[9] = 1;
    assert_eq!(client.step(&answer[..133]).unwrap().consumed, 0);
    let step = client.step(&answer).unwrap();
    assert_eq!((step.consumed, step.negotiated.unwrap().size), (134, 4096));
}

#[test]
fn a_server_that_does_not_know_go_is_entered_by_name() {
    let (mut client, _) = greeted(b"\0\x03");
    client.step(&reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, &[])).unwrap();
    let step = client.step(&reply(OPT_GO, REP_ERR_UNSUP, &[])).unwrap();
    assert_eq!(step.request[8..12], OPT_EXPORT_NAME.to_be_bytes());
    assert!(client.step(&[0; 10]).unwrap().negotiated.is_some());
}

#[test]
fn contexts_before_an_error_are_void() {
    let (mut client, _) = greeted(b"\0\x03");
    client.step(&reply(OPT_STRUCTURED_REPLY, REP_ACK, &[])).unwrap();
    let context = [&[0, 0, 0, 9][..], CONTEXT_ALLOCATION.as_bytes()].concat();
    client.step(&reply(OPT_SET_META_CONTEXT, REP_META_CONTEXT, &context)).unwrap();
    assert_eq!(client.allocation, Some(9));
    client.step(&reply(OPT_SET_META_CONTEXT, REP_ERR_POLICY, &[])).unwrap();
    assert_eq!(client.allocation, None);
}

#[test]
fn a_refusal_says_which_export_and_why() {
    let (mut client, _) = greeted(b"\0\x03");
    client.step(&reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, &[])).unwrap();
    let error = client.step(&reply(OPT_GO, REP_ERR_UNKNOWN, b"never heard\x1b")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "server refused export `disk`: export unknown (never heard\\u{1b})"
    );
}

#[test]
fn servers_that_lie_are_left() {
    let step = |bytes: &[u8]| ClientHandshake::new("").step(bytes);
    assert!(matches!(step(b"SSH-2.0-"), Err(HandshakeError::Greeting { .. })));
    let oldstyle = [&b"NBDMAGIC"[..], &OLDSTYLE_MAGIC.to_be_bytes()].concat();
    assert_eq!(step(&oldstyle), Err(HandshakeError::Oldstyle));

    let go = || {
        let (mut client, _) = greeted(b"\0\x03");
        client.step(&reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, &[])).unwrap();
        client
    };
    let error = go().step(&reply(OPT_GO, REP_ACK, &[])).unwrap_err();
    assert_eq!(error, HandshakeError::NoExportInfo);
    let error = go().step(&reply(OPT_GO, REP_INFO, &[0, 0, 1])).unwrap_err();
    assert!(matches!(error, HandshakeError::Reply { .. }));
    let error = go().step(&reply(OPT_GO, REP_INFO, &[0, 3, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0, 2, 0]));
    assert!(matches!(error, Err(HandshakeError::BlockSizes { minimum: 3, .. })));
    let error = go().step(&reply(OPT_SET_META_CONTEXT, REP_ACK, &[])).unwrap_err();
    assert!(matches!(error, HandshakeError::ReplyOption { .. }));
    let mut long = reply(OPT_GO, REP_INFO, &[]);
    long[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(go().step(&long), Err(HandshakeError::Reply { .. })));
    let mut client = go();
    for _ in 0..REPLIES_MAX - 1 {
        client.step(&info_export(1, 1)).unwrap();
    }
    assert!(matches!(client.step(&info_export(1, 1)), Err(HandshakeError::TooLong { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_dealt_with(
        bytes in prop::collection::vec(any::<u8>(), 0..200), state in 0u8..5,
    ) {
        let mut client = ClientHandshake::new("disk");
        client.state = match state {
            0 => State::Greeting,
            1 => State::ExportName,
            2 => State::Option(OPT_STRUCTURED_REPLY),
            3 => State::Option(OPT_SET_META_CONTEXT),
            _ => State::Option(OPT_GO),
        };
        let _ = client.step(&bytes);
    }

    #[test]
    fn any_reply_data_is_dealt_with(
        option in 7u32..11, kind in 0u32..6, error: bool,
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut client = ClientHandshake::new("disk");
        client.state = State::Option(option);
        let kind = if error { kind | REP_ERROR_BIT } else { kind };
        let _ = client.step(&reply(option, kind, &data));
    }
}
