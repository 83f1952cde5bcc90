use super::*;
use crate::layout::{DeviceSectors, FormatOptions, format};

fn superblock(change: impl FnOnce(&mut FormatOptions)) -> Superblock {
    let mut options = FormatOptions::new(BlockSize::B512, 32, [1; 16]);
    change(&mut options);
    format(DeviceSectors::Interleaved(131_072), &options).unwrap().0
}

fn plain() -> Superblock {
    superblock(|_| ())
}

fn journal() -> Request {
    Request::plain(Mode::Journal)
}

const KEYED: Keys = Keys { integrity: true, journal_mac: false };

#[test]
fn a_plain_volume_opens_in_every_mode_but_inline() {
    for mode in [Mode::Journal, Mode::Direct, Mode::Bitmap, Mode::Recovery] {
        let opening = open(&plain(), &Request::plain(mode)).unwrap();
        let recovery = mode == Mode::Recovery;
        assert_eq!((opening.replays, opening.verifies), (!recovery, !recovery));
        assert_eq!(opening.flags.has(Flags::DIRTY_BITMAP), mode == Mode::Bitmap);
        assert_eq!((opening.version, opening.recalculation), (5, None));
    }
    let refused = open(&plain(), &Request::plain(Mode::Inline));
    assert_eq!(refused, Err(Refusal::Inline { stored: false, mode: Mode::Inline }));
    let inline = superblock(|options| options.inline = true);
    let opening = open(&inline, &Request::plain(Mode::Inline)).unwrap();
    assert_eq!((opening.version, opening.replays, opening.verifies), (6, false, true));
    let refused = open(&inline, &journal());
    assert_eq!(refused, Err(Refusal::Inline { stored: true, mode: Mode::Journal }));
}

#[test]
fn everything_that_does_not_fit_is_refused_by_name() {
    let mac = superblock(|options| options.journal_mac = true);
    let inline = superblock(|options| options.inline = true);
    let mut keyed_discards = plain();
    keyed_discards.flags = keyed_discards.flags.with(Flags::DISCARD_KEYED);
    let mut separate = plain();
    separate.log2_interleave = None;
    let (stored, asked) = (BlockSize::B512, BlockSize::B4096);
    let cases = [
        (
            &plain(),
            Request { tag_size: Some(4), ..journal() },
            Refusal::TagSize { stored: 32, asked: 4 },
        ),
        (&plain(), Request { block: Some(asked), ..journal() }, Refusal::Block { stored, asked }),
        (&plain(), Request { separate: true, ..journal() }, Refusal::Separate { asked: true }),
        (&separate, journal(), Refusal::Separate { asked: false }),
        (
            &plain(),
            Request { journal_mac: true, ..journal() },
            Refusal::JournalMac { stored: false },
        ),
        (&mac, journal(), Refusal::JournalMac { stored: true }),
        (&mac, Request::plain(Mode::Recovery), Refusal::JournalMac { stored: true }),
        (&keyed_discards, journal(), Refusal::DiscardKeyed),
        (
            &keyed_discards,
            Request { discards: Discards::Filler, ..journal() },
            Refusal::DiscardKeyed,
        ),
        (&plain(), Request { discards: Discards::Keyed, ..journal() }, Refusal::DiscardKey),
        (
            &plain(),
            Request { discards: Discards::Filler, hash: false, ..journal() },
            Refusal::Hash { what: "discarding" },
        ),
        (
            &inline,
            Request { discards: Discards::Filler, ..Request::plain(Mode::Inline) },
            Refusal::InlineWith { what: "discarding" },
        ),
        (
            &inline,
            Request { separate: true, ..Request::plain(Mode::Inline) },
            Refusal::InlineWith { what: "a metadata device" },
        ),
        (
            &plain(),
            Request { hash: false, ..Request::plain(Mode::Bitmap) },
            Refusal::Hash { what: "bitmap mode" },
        ),
        (
            &plain(),
            Request { hash: false, recalculate: Recalculate::Start, ..journal() },
            Refusal::Hash { what: "recalculation" },
        ),
        (
            &plain(),
            Request { keys: KEYED, recalculate: Recalculate::Start, ..journal() },
            Refusal::Insecure(Insecure),
        ),
    ];
    for (superblock, request, refusal) in cases {
        assert_eq!(open(superblock, &request), Err(refusal), "{request:?}");
        assert!(!refusal.to_string().is_empty());
    }
}

#[test]
fn opaque_tags_are_neither_verified_nor_refused() {
    let opening = open(&plain(), &Request { hash: false, ..journal() }).unwrap();
    assert_eq!((opening.replays, opening.verifies), (true, false));
}

#[test]
fn recalculation_goes_on_starts_or_starts_again() {
    let mut superblock = plain();
    let start = Request { recalculate: Recalculate::Start, ..journal() };
    let reset = Request { recalculate: Recalculate::Reset, ..journal() };
    let position = |superblock: &Superblock, request: &Request| {
        let opening = open(superblock, request).unwrap();
        let marked = opening.flags.has(Flags::RECALCULATING);
        assert_eq!(marked, opening.recalculation.is_some());
        opening.recalculation.map(|recalculation| recalculation.position())
    };
    assert_eq!(position(&superblock, &journal()), None);
    assert_eq!(position(&superblock, &start), Some(0));
    superblock.flags = superblock.flags.with(Flags::RECALCULATING);
    superblock.recalc_sector = 32_768;
    assert_eq!(position(&superblock, &journal()), Some(32_768));
    assert_eq!(position(&superblock, &start), Some(32_768));
    assert_eq!(position(&superblock, &reset), Some(0));

    // Keyed and going on: refused, unless somebody insists or it has finished.
    let keyed = Request { keys: KEYED, ..journal() };
    assert_eq!(open(&superblock, &keyed), Err(Refusal::Insecure(Insecure)));
    assert!(open(&superblock, &Request { legacy_recalculate: true, ..keyed }).is_ok());
    superblock.recalc_sector = superblock.provided_sectors;
    assert_eq!(position(&superblock, &keyed), Some(superblock.provided_sectors));
}

#[test]
fn what_is_stored_follows_mode_and_wishes() {
    let mut superblock = plain();
    superblock.flags = superblock.flags.with(Flags::DIRTY_BITMAP);
    let opening = open(&superblock, &journal()).unwrap();
    assert!(!opening.flags.has(Flags::DIRTY_BITMAP), "there is a journal from now on");
    assert!(!opening.replays, "what lies there is no journal yet");
    let opening = open(&superblock, &Request::plain(Mode::Recovery)).unwrap();
    assert_eq!(opening.flags, superblock.flags, "nothing is written");

    let keyed = Request { keys: KEYED, discards: Discards::Keyed, ..journal() };
    let opening = open(&plain(), &keyed).unwrap();
    assert_eq!((opening.version, opening.flags), (7, Flags(0x58)));

    let old = FormatOptions {
        fix_hmac: false,
        fix_padding: false,
        ..FormatOptions::new(BlockSize::B512, 4, [0; 16])
    };
    let (old, _) = format(DeviceSectors::Interleaved(131_072), &old).unwrap();
    assert_eq!(open(&old, &journal()).unwrap().version, 1);
    assert_eq!(open(&old, &Request::plain(Mode::Bitmap)).unwrap().version, 3);
    let start = Request { recalculate: Recalculate::Start, ..journal() };
    assert_eq!(open(&old, &start).unwrap().version, 2);
}

#[test]
fn modes_have_the_letters_of_tables() {
    let modes = [Mode::Journal, Mode::Direct, Mode::Bitmap, Mode::Recovery, Mode::Inline];
    assert_eq!(modes.map(Mode::letter), ['J', 'D', 'B', 'R', 'I']);
}
