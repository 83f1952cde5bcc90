use super::*;
use crate::fault::{Effect, Fault, Faults, Kind, Rule};
use crate::memory::MemoryDevice;
use bio::IoErrorKind;
use dif::{Format, Guard, ProtectionType};
use runtime::block_on;
use units::{BlockSize, Sector};

fn profile() -> Profile {
    let format = Format::new(Guard::Crc16, 512).unwrap();
    Profile { format, kind: ProtectionType::One }
}

/// A checked device of 64 blocks over one that lies.
fn checked() -> (Device, Faults) {
    let medium = Device::new(MemoryDevice::with_protection(512, BlockSize::B4096, profile()));
    let faults = Faults::default();
    let lying = Device::new(Fault::new(medium, &faults));
    (Device::new(Verify::new(lying, Events::none()).unwrap()), faults)
}

fn signed(sector: u64, fill: u8) -> Bio {
    let mut bio = Bio::write(Sector(sector), Buf::copy_of(&[fill; 8192]));
    bio.sign(&profile());
    bio
}

#[test]
fn what_its_owner_vouches_for_is_stored_and_comes_back_with_its_tags() {
    block_on(async {
        let (device, _) = checked();
        let mut write = signed(16, 7);
        device.submit(&mut write).await.unwrap();
        let mut read = Bio::read(Sector(16), 16).tagged(Buf::alloc(128));
        device.submit(&mut read).await.unwrap();
        assert_eq!(read.tags.to_single().as_slice(), write.tags.to_single().as_slice());
        assert_eq!(device.read(Sector(16), 16).await.unwrap().as_slice(), [7; 8192]);
    });
}

#[test]
fn a_write_that_its_tags_do_not_vouch_for_never_gets_below() {
    block_on(async {
        let (device, _) = checked();
        device.submit(&mut signed(16, 7)).await.unwrap();
        let mut wrong = signed(16, 8);
        wrong.data.copy_from(5000, &[0]);
        let refused = device.submit(&mut wrong).await;
        assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(16 + 9))));
        let mut strayed = signed(16, 8);
        strayed.sector = Sector(32);
        let refused = device.submit(&mut strayed).await;
        assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(32))));
        assert_eq!(device.read(Sector(16), 16).await.unwrap().as_slice(), [7; 8192]);
    });
}

#[test]
fn what_went_wrong_below_is_an_error_with_tags_or_without() {
    let harms = [Effect::Corrupt { byte: 3, mask: 1 }, Effect::Misdirect { sectors: 8 }];
    for effect in harms {
        block_on(async move {
            let (device, faults) = checked();
            device.submit(&mut signed(16, 7)).await.unwrap();
            device.submit(&mut signed(32, 9)).await.unwrap();
            faults.add(Rule::always(Kind::Read, 16..24, effect));
            let error = IoErrorKind::Protection.at(Sector(16));
            assert_eq!(device.read(Sector(16), 16).await.unwrap_err(), error, "{effect:?}");
            let mut read = Bio::read(Sector(16), 16).tagged(Buf::alloc(128));
            assert_eq!(device.submit(&mut read).await, Err(error), "{effect:?}");
        });
    }
}

#[test]
fn it_vouches_and_shows_what_lies_there() {
    block_on(async {
        let (device, faults) = checked();
        assert!(device.limits().verified);
        device.submit(&mut signed(16, 7)).await.unwrap();
        let mut vouch = Bio::vouch(Sector(16), Buf::copy_of(&[7; 4096]));
        assert_eq!(device.submit(&mut vouch).await, Ok(()));
        let mut vouch = Bio::vouch(Sector(16), Buf::copy_of(&[8; 4096]));
        assert!(device.submit(&mut vouch).await.is_err());

        faults.add(Rule::nth(0, Kind::Read, 16..17, Effect::Corrupt { byte: 0, mask: 0xff }));
        let mut peek = Bio::peek(Sector(16), 8, false);
        device.submit(&mut peek).await.unwrap();
        let mut first = [0; 2];
        peek.data.copy_to(0, &mut first);
        assert_eq!(first, [0xf8, 7]);
    });
}

#[test]
fn what_nobody_protected_is_not_checked() {
    block_on(async {
        let (device, _) = checked();
        assert_eq!(device.read(Sector(0), 8).await.unwrap().as_slice(), [0; 4096]);
        device.write(Sector(16), Buf::copy_of(&[3; 4096])).await.unwrap();
        assert_eq!(device.read(Sector(16), 8).await.unwrap().as_slice(), [3; 4096]);
    });
}

#[test]
fn a_device_without_a_profile_is_refused() {
    let plain = Device::new(MemoryDevice::new(64, BlockSize::B512));
    assert_eq!(Verify::new(plain, Events::none()).err(), Some(NoProfile));
}

#[test]
fn a_peek_turns_back_the_bit_that_a_wide_guard_names_and_no_other() {
    let of = |guard, metadata| {
        let format = Format::new(guard, 512).unwrap();
        let format = format.with_metadata(metadata, dif::Place::Last).unwrap();
        Profile { format, kind: ProtectionType::One }
    };
    for (profile, is_mended) in [
        (of(Guard::Crc64, 16), true),
        (of(Guard::Crc64, 24), true),
        (of(Guard::Crc32c, 16), true),
        (of(Guard::Crc16, 8), false),
    ] {
        block_on(async move {
            let medium = Device::new(MemoryDevice::with_protection(512, BlockSize::B512, profile));
            let device = Device::new(Verify::new(medium.clone(), Events::none()).unwrap());
            let mut written = Bio::write(Sector(16), Buf::copy_of(&[7; 2048]));
            written.sign(&profile);
            device.submit(&mut written).await.unwrap();
            let peeked = async |harm: &dyn Fn(&mut Bio)| {
                let mut harmed = Bio::write(Sector(16), Buf::copy_of(&[7; 2048]));
                harmed.sign(&profile);
                harm(&mut harmed);
                medium.submit(&mut harmed).await.unwrap();
                let mut peek = Bio::peek(Sector(16), 4, true);
                let result = device.submit(&mut peek).await;
                result.map(|()| peek.data.to_single().as_slice().to_vec())
            };
            let refused = Err(IoErrorKind::Protection.at(Sector(17)));
            let one = peeked(&|bio| bio.data.copy_from(512 + 99, &[7 ^ 0x20])).await;
            let right = Ok(vec![7; 2048]);
            assert_eq!(one, if is_mended { right.clone() } else { refused.clone() });
            let two = peeked(&|bio| bio.data.copy_from(512 + 99, &[7 ^ 0x21])).await;
            assert_eq!(two, refused, "{profile}");
            let last = 2 * profile.format.metadata() - 1;
            let strayed = peeked(&|bio| bio.tags.copy_from(last, &[0x5a])).await;
            assert_eq!(strayed, refused, "{profile}");
            if profile.format.covered_metadata() > 0 {
                // The data is right, and the owner's byte was not.
                let at = profile.format.metadata() + 3;
                let owner = peeked(&|bio| bio.tags.copy_from(at, &[0x10])).await;
                assert_eq!(owner, right, "{profile}");
            }
        });
    }
}
