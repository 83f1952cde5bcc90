use super::*;
use crate::fault::{Effect, Fault, Faults, Kind, Rule};
use crate::memory::MemoryDevice;
use bio::IoErrorKind;
use dif::{Format, Guard, ProtectionType};
use runtime::block_on;
use units::BlockSize;

fn profile(kind: ProtectionType) -> Profile {
    Profile { format: Format::new(Guard::Crc64, 4096).unwrap(), kind }
}

/// A protected device of 64 blocks, the device below, and what may go wrong between.
fn protected(kind: ProtectionType, options: Options) -> (Device, Device, Faults) {
    let medium = MemoryDevice::with_protection(512, BlockSize::B4096, profile(kind));
    let medium = Device::new(medium);
    let faults = Faults::default();
    let lying = Device::new(Fault::new(medium.clone(), &faults));
    let protect = Protect::new(lying, options, Events::none()).unwrap();
    (Device::new(protect), medium, faults)
}

async fn stored(medium: &Device, sector: u64, sectors: u64) -> Bio {
    let tags = Buf::alloc(usize_of(sectors / 8 * 16));
    let mut bio = Bio::read(Sector(sector), sectors).tagged(tags);
    medium.submit(&mut bio).await.unwrap();
    bio
}

#[test]
fn what_is_written_without_tags_is_stored_with_them() {
    for kind in ProtectionType::ALL {
        block_on(async move {
            let (device, medium, _) = protected(kind, Options::default());
            device.write(Sector(8), Buf::copy_of(&[5; 8192])).await.unwrap();
            let stored = stored(&medium, 8, 16).await;
            assert_eq!(stored.verify(&profile(kind), |_| panic!("it agrees")), Ok(()));
            assert!(stored.tags.to_single().as_slice()[8..10] != [0xff; 2], "no escape");
            assert_eq!(device.read(Sector(8), 16).await.unwrap().as_slice(), [5; 8192]);
        });
    }
}

#[test]
fn what_changes_on_the_way_is_an_error_in_both_directions() {
    for (kind, effect) in [
        (Kind::Read, Effect::Corrupt { byte: 100, mask: 4 }),
        (Kind::Write, Effect::Corrupt { byte: 100, mask: 4 }),
        (Kind::Read, Effect::Misdirect { sectors: 16 }),
    ] {
        block_on(async move {
            let (device, _, faults) = protected(ProtectionType::One, Options::default());
            device.write(Sector(24), Buf::copy_of(&[9; 4096])).await.unwrap();
            faults.add(Rule::always(kind, 8..9, effect));
            device.write(Sector(8), Buf::copy_of(&[5; 4096])).await.unwrap();
            let read = device.read(Sector(8), 8).await;
            assert_eq!(read.unwrap_err(), IoErrorKind::Protection.at(Sector(8)), "{effect:?}");
        });
    }
}

#[test]
fn zeroes_are_protected_as_any_data() {
    block_on(async {
        let (device, medium, faults) = protected(ProtectionType::One, Options::default());
        device.write(Sector(0), Buf::copy_of(&[5; 8 * 4096])).await.unwrap();
        device.submit(&mut Bio::write_zeroes(Sector(8), 24, true)).await.unwrap();
        let zeroes = stored(&medium, 8, 24).await;
        assert_eq!(zeroes.data.to_single().as_slice(), [0; 3 * 4096]);
        assert!(!device.limits().discard);
        faults.add(Rule::always(Kind::Read, 16..17, Effect::Corrupt { byte: 0, mask: 1 }));
        assert_eq!(device.read(Sector(8), 24).await.unwrap_err().sector, Sector(16));
    });
}

#[test]
fn tags_of_the_submitter_pass_untouched() {
    block_on(async {
        let (device, medium, _) = protected(ProtectionType::One, Options::default());
        let mut write =
            Bio::write(Sector(8), Buf::copy_of(&[5; 4096])).tagged(Buf::copy_of(&[0xab; 16]));
        device.submit(&mut write).await.unwrap();
        assert_eq!(stored(&medium, 8, 8).await.tags.to_single().as_slice(), [0xab; 16]);
        // Whoever asks for the tags checks for themselves.
        let mut read = Bio::read(Sector(8), 8).tagged(Buf::alloc(16));
        assert_eq!(device.submit(&mut read).await, Ok(()));
        assert!(device.read(Sector(8), 8).await.is_err());
    });
}

#[test]
fn each_half_can_be_switched_off() {
    block_on(async {
        let options = Options { write_generate: false, ..Options::default() };
        let (device, medium, _) = protected(ProtectionType::One, options);
        device.write(Sector(8), Buf::copy_of(&[5; 4096])).await.unwrap();
        assert_eq!(stored(&medium, 8, 8).await.tags.to_single().as_slice(), [0xff; 16]);

        let options = Options { read_verify: false, ..Options::default() };
        let (device, _, faults) = protected(ProtectionType::One, options);
        device.write(Sector(8), Buf::copy_of(&[5; 4096])).await.unwrap();
        faults.add(Rule::always(Kind::Read, 8..9, Effect::Corrupt { byte: 0, mask: 1 }));
        assert_eq!(device.read(Sector(8), 8).await.unwrap().as_slice()[..2], [4, 5]);
    });
}
