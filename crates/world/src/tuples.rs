//! The simulated application's tuples: it makes them for what it writes, and checks them when it reads.
//!
//! What it says in its tag follows from the data, so that a block with another block's tag is found out.

use crate::rng::hash_bytes;
use bio::{Bio, Buf, Device, IoResult, Limits};
use dif::{Profile, Tuple};
use units::Sector;

/// Gives a write its tuples, if the device keeps any.
pub(crate) fn sign(bio: &mut Bio, limits: &Limits) {
    let Some(profile) = limits.protection else { return };
    bio.sign(&profile);
    let data = bio.data.to_single();
    let mut tags = Buf::copy_of(bio.tags.to_single().as_slice());
    each(&profile, data.as_slice(), tags.as_mut_slice(), |data, tuple| {
        tuple.application = application(data);
    });
    bio.tags = tags.into();
}

/// Reads data and what belongs to it; what is wrong with that, if it is not for the device to say.
///
/// # Errors
/// What the device says, and `Protection` where data and tuples disagree: the application finds it out.
pub(crate) async fn read(
    device: &Device,
    sector: Sector,
    sectors: u64,
) -> IoResult<(Buf, Option<String>)> {
    let limits = device.limits();
    let Some(profile) = limits.protection else {
        return Ok((device.read(sector, sectors).await?, None));
    };
    let blocks = units::usize_of(sectors / limits.logical_block.sectors());
    let mut bio = Bio::read(sector, sectors).tagged(Buf::alloc(blocks * limits.tag_size));
    device.submit(&mut bio).await?;
    bio.verify(&profile, drop)?;
    let (data, tags) = (bio.data.into_single(), bio.tags.to_single());
    let mut tags = Buf::copy_of(tags.as_slice());
    let (mut wrong, mut at) = (None, 0_u64);
    each(&profile, data.as_slice(), tags.as_mut_slice(), |data, tuple| {
        let (found, expected) = (tuple.application, application(data));
        if found != expected && !tuple.is_escaped(&profile.format, profile.kind) {
            let text = format!("application tag {found:#x} of interval {at}, not {expected:#x}");
            wrong.get_or_insert(text);
        }
        at += 1;
    });
    Ok((data, wrong))
}

fn each(profile: &Profile, data: &[u8], tags: &mut [u8], mut visit: impl FnMut(&[u8], &mut Tuple)) {
    let format = &profile.format;
    let intervals = data.chunks_exact(format.interval());
    for (data, tag) in intervals.zip(tags.chunks_exact_mut(format.metadata())) {
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let mut tuple = Tuple::decode(format, &tag[place.clone()]);
        visit(data, &mut tuple);
        tuple.encode(format, &mut tag[place]);
    }
}

/// What the application says of a block: nothing of zeroes, which others write too.
fn application(data: &[u8]) -> u16 {
    if data.iter().all(|&byte| byte == 0) {
        return 0;
    }
    // Never all ones: that is the escape.
    u16::try_from(hash_bytes(0, data) & 0x7FFF).expect("fifteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bio::IoErrorKind;
    use dif::{Format, Guard, ProtectionType};
    use layers::memory::MemoryDevice;
    use runtime::block_on;
    use units::BlockSize;

    #[test]
    fn an_application_tag_that_is_not_its_blocks_is_found_and_a_guard_is_an_error() {
        let format = Format::new(Guard::Crc16, 512).unwrap();
        let profile = Profile { format, kind: ProtectionType::One };
        let device = Device::new(MemoryDevice::with_protection(8, BlockSize::B512, profile));
        block_on(async move {
            let mut write = Bio::write(Sector(1), Buf::copy_of(&[7; 1024]));
            sign(&mut write, device.limits());
            device.submit(&mut write).await.unwrap();
            assert_eq!(read(&device, Sector(1), 2).await.unwrap().1, None);
            let mut tags = Buf::copy_of(write.tags.to_single().as_slice());
            // The application tag of the second interval.
            tags.as_mut_slice()[8 + 3] ^= 1;
            let mut other = Bio::write(Sector(1), write.data.clone()).tagged(tags);
            device.submit(&mut other).await.unwrap();
            let wrong = read(&device, Sector(1), 2).await.unwrap().1.unwrap();
            assert!(wrong.contains("interval 1"), "{wrong}");
            let mut other = Bio::write(Sector(1), Buf::copy_of(&[8; 1024]));
            other.tags = write.tags.clone();
            device.submit(&mut other).await.unwrap();
            let refused = read(&device, Sector(1), 2).await.unwrap_err();
            assert_eq!(refused, IoErrorKind::Protection.at(Sector(1)));
        });
    }
}
