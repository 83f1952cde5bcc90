//! Images of the real kernel: what their superblocks decode to, that encoding gives the same bytes
//! back, and that the geometry finds the array's content and its parity in them.

#![allow(clippy::unwrap_used, reason = "a test")]

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast_md::assemble::{Assembly, Candidate, LeftOut, Slot, assemble};
use steadfast_md::bitmap::{Bitmap, NewBitmap};
use steadfast_md::create::{NewArray, NewMember, add_journal, create};
use steadfast_md::geometry::{Geometry, ParityLevel, Strip};
use steadfast_md::ppl::{Entry, HEADER_BYTES, Log, Logged, Plan, encode_header};
use steadfast_md::shape::Shape;
use steadfast_md::superblock::{Features, Level, Minor, ResyncOffset, Role, Superblock};
use units::{SECTOR_BYTES, Sector, u64_of, usize_of};

/// One entry of the manifest, with its members' raw images.
#[derive(Clone)]
struct Golden {
    entry: serde_json::Value,
    images: Vec<Vec<u8>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

fn images(family: &str, prefix: &str) -> Vec<Golden> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap().iter();
    let wanted: Vec<Golden> = entries
        .filter(|entry| entry["family"] == family)
        .filter(|entry| entry["name"].as_str().unwrap().starts_with(prefix))
        .map(|entry| Golden { entry: entry.clone(), images: members(entry) })
        .collect();
    assert!(!wanted.is_empty(), "the images of this slice are there");
    wanted
}

fn members(entry: &serde_json::Value) -> Vec<Vec<u8>> {
    let files = entry["files"].as_array().unwrap().iter();
    files
        .map(|file| {
            let name = file["file"].as_str().unwrap();
            let raw = Command::new("zstd").arg("-dcq").arg(folder().join(name)).output().unwrap();
            assert!(raw.status.success(), "zstd decompresses {name}");
            raw.stdout
        })
        .collect()
}

impl Golden {
    fn text(&self, key: &str) -> &str {
        self.entry[key].as_str().unwrap_or_default()
    }

    fn superblocks(&self) -> Vec<Superblock> {
        let decode = |image: &Vec<u8>| {
            let sectors = u64_of(image.len() / SECTOR_BYTES);
            let superblock = Superblock::decode(&image[4096..8192], Minor::V2, sectors).unwrap();
            superblock.validate(sectors).unwrap();
            superblock
        };
        self.images.iter().map(decode).collect()
    }

    fn assembly(&self) -> Assembly {
        judge(&self.superblocks(), u64_of(self.images[0].len() / SECTOR_BYTES))
    }

    /// The partial parity log of a member; each of its headers is encoded to the kernel's bytes.
    fn log(&self, member: usize, superblock: &Superblock) -> Log {
        let place = superblock.ppl().unwrap();
        let start = usize_of(place.sector.bytes());
        let area = &self.images[member][start..][..usize::from(place.sectors) * SECTOR_BYTES];
        let log = Log::decode(area, superblock.set_uuid()).unwrap();
        for record in log.records() {
            let entries: Vec<Entry> = record.entries.iter().map(|logged| logged.entry).collect();
            let encoded = encode_header(superblock.set_uuid(), record.generation, &entries);
            assert!(encoded == area[usize_of(record.start_bytes)..][..HEADER_BYTES]);
            assert!(record.entries.iter().all(Logged::is_intact));
        }
        log
    }

    /// The bytes of a sector of the member's data.
    fn sector(&self, member: usize, superblock: &Superblock, sector: Sector) -> &[u8] {
        let at = usize_of((superblock.data_offset() + sector.0).bytes());
        &self.images[member][at..at + SECTOR_BYTES]
    }
}

fn judge(superblocks: &[Superblock], device_sectors: u64) -> Assembly {
    let candidates: Vec<Candidate<'_>> =
        superblocks.iter().map(|superblock| Candidate { superblock, device_sectors }).collect();
    assemble(&candidates).unwrap()
}

#[test]
fn encoding_gives_the_kernels_bytes_back() {
    for golden in images("md", "").into_iter().chain(images("md-reshape", "")) {
        for (image, superblock) in golden.images.iter().zip(golden.superblocks()) {
            assert_eq!(superblock.encode(), image[4096..8192], "{}", golden.text("name"));
        }
    }
}

#[test]
fn fields_are_what_mdadm_printed_on_the_kernels_machine() {
    for golden in images("md", "").into_iter().chain(images("md-reshape", "")) {
        let examine = golden.text("examine");
        // The text ends in one part per member, each beginning with its superblock's magic.
        let parts: Vec<&str> = examine.split("Magic : a92b4efc").skip(1).collect();
        assert_eq!(parts.len(), golden.images.len(), "{}", golden.text("name"));
        for (part, superblock) in parts.into_iter().zip(golden.superblocks()) {
            let mut expected = vec![
                format!("Array UUID : {}", superblock.set_uuid()),
                format!("Device UUID : {}", superblock.device_uuid()),
                format!("Name : {}", superblock.name()),
                format!("Feature Map : {:#x}", superblock.features().0),
                format!("Raid Level : {}", superblock.level()),
                format!("Raid Devices : {}", superblock.raid_disks()),
                format!("Data Offset : {} sectors", superblock.data_offset()),
                format!("Super Offset : {} sectors", superblock.super_offset()),
                format!("Avail Dev Size : {} sectors", superblock.data_size()),
                format!("Checksum : {:x} - correct", superblock.stored_checksum()),
                format!("Events : {}\n", superblock.events()),
            ];
            if let Some(Role::Active(slot)) = superblock.role() {
                expected.push(format!("Device Role : Active device {slot}"));
            }
            if superblock.chunk_sectors() > 0 {
                expected.push(format!("Chunk Size : {}K", superblock.chunk_sectors() / 2));
            }
            if let Some(reshape) = superblock.reshape() {
                expected.push(format!("Reshape pos'n : {} (", reshape.position.0 / 2));
                if reshape.delta_disks != 0 {
                    let (after, delta) = (superblock.raid_disks(), reshape.delta_disks);
                    let before = after.checked_add_signed(-delta).unwrap();
                    expected.push(format!("Delta Devices : {delta} ({before}->{after})"));
                }
                let moved = superblock.data_offset_after().unwrap();
                if moved != superblock.data_offset() {
                    expected.push(format!("New Offset : {moved} sectors"));
                }
            }
            let clean = superblock.resync() == ResyncOffset::Clean;
            expected.push(format!("State : {}", if clean { "clean" } else { "active" }));
            for line in expected {
                assert!(part.contains(&line), "{}: {line}\n{part}", golden.text("name"));
            }
        }
    }
}

#[test]
fn clean_arrays_assemble_whole_and_may_be_written() {
    for golden in images("md", "") {
        let name = golden.text("name");
        if name.ends_with("degraded") {
            continue;
        }
        let assembly = golden.assembly();
        assert_eq!((assembly.missing_count(), assembly.resync), (0, ResyncOffset::Clean), "{name}");
        assert_eq!(assembly.cannot_start, [], "{name}");
        assert_eq!(assembly.cannot_write, [], "{name}");
    }
}

#[test]
fn both_shapes_of_an_array_in_the_middle_of_a_reshape_are_known() {
    let golden = images("md-reshape", "");
    assert_eq!(golden.len(), 3);
    for golden in golden {
        let (name, assembly) = (golden.text("name"), golden.assembly());
        assert_eq!((assembly.missing_count(), &assembly.cannot_start[..]), (0, &[][..]), "{name}");
        let superblocks = golden.superblocks();
        let sides = superblocks[0].sides().unwrap().unwrap();
        assert_eq!(sides.backwards, name.ends_with("backwards"), "{name}");
        assert_eq!((sides.slots(), assembly.slots.len()), (superblocks.len(), superblocks.len()));
        for superblock in &superblocks {
            assert_eq!(superblock.sides(), Some(Ok(sides)), "{name}: all members agree");
        }
    }
}

#[test]
fn the_member_that_failed_is_stale_and_the_rest_is_degraded() {
    let golden = &images("md", "md-raid5-4-ls-64k-degraded")[0];
    let assembly = golden.assembly();
    assert_eq!(assembly.left_out, [(1, LeftOut::Stale { events: 19, newest: 23 })]);
    assert_eq!(assembly.slots, [Slot::InSync(0), Slot::Missing, Slot::InSync(2), Slot::InSync(3)]);
    assert_eq!((assembly.cannot_start.len(), assembly.cannot_write.len()), (0, 0));
}

#[test]
fn bitmaps_of_clean_arrays_are_believed_and_clean() {
    for golden in images("md", "").into_iter().chain(images("md-reshape", "")) {
        for (image, superblock) in golden.images.iter().zip(golden.superblocks()) {
            let Some(sector) = superblock.bitmap_sector() else { continue };
            let area = &image[usize_of(sector.bytes())..usize_of(superblock.data_offset().bytes())];
            let bitmap = Bitmap::decode(area.to_vec()).unwrap();
            assert_eq!(bitmap.encode(0..area.len()), area);
            assert_eq!(bitmap.header().believe(&superblock), Ok(()));
            let degraded = golden.text("name").ends_with("degraded");
            assert_eq!(bitmap.dirty_count(), u64::from(degraded), "{}", golden.text("name"));
            // It lies where we would have put it, and is what we would have made.
            let sectors = u64_of(image.len() / SECTOR_BYTES);
            let mut placed = superblock.clone();
            placed.place_bitmap(sectors);
            assert_eq!(placed.bitmap_sector(), Some(sector));
            let new = NewBitmap {
                superblock: &superblock,
                room_bytes: superblock.bitmap_room(sectors).unwrap(),
                chunk_bytes: Some(bitmap.header().chunk_bytes()),
                dirty: degraded,
            };
            let mut ours = Bitmap::new(&new).unwrap();
            ours.set_events_cleared(bitmap.header().events_cleared());
            let length = ours.area_bytes();
            assert_eq!(ours.encode(0..length), area[..length], "{}", golden.text("name"));
        }
    }
}

#[test]
fn geometry_finds_the_arrays_content() {
    for golden in images("md", "md-raid") {
        let superblocks = golden.superblocks();
        let assembly = golden.assembly();
        let of_slot: Vec<Option<usize>> = assembly
            .slots
            .iter()
            .map(|slot| if let Slot::InSync(member) = slot { Some(*member) } else { None })
            .collect();
        let first = &superblocks[assembly.newest];
        let shape = shape(&superblocks);
        let total = shape.array_sectors().unwrap();
        assert_eq!(total, golden.entry["array_sectors"].as_u64().unwrap());
        let mut hash = Sha256::new();
        for sector in (0..total).map(Sector) {
            let (slot, at) = match &shape {
                Shape::Parity(geometry, size) => {
                    assert_eq!(*size, first.size());
                    let place = geometry.locate(sector);
                    (place.slot, place.member_sector)
                }
                Shape::Mirror { .. } => (0, sector),
                Shape::Stripes(stripes) => {
                    let run = stripes.locate(sector);
                    (run.slot, run.member_sector)
                }
                Shape::Mirrors(mirrors) => {
                    let spots = [0, 1].map(|copy| mirrors.locate(sector, copy));
                    let [copy, other] = spots.map(|spot| {
                        golden.sector(spot.slot, &superblocks[spot.slot], spot.member_sector)
                    });
                    assert!(copy == other, "{}: copies of {sector}", golden.text("name"));
                    (spots[0].slot, spots[0].member_sector)
                }
            };
            match of_slot[slot] {
                Some(member) => hash.update(golden.sector(member, &superblocks[member], at)),
                None => hash.update(xor(&golden, &superblocks, &of_slot, at)),
            }
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, golden.text("expect_sha256"), "{}", golden.text("name"));
    }
}

/// The shape that members say they make, in order of slots.
fn shape(superblocks: &[Superblock]) -> Shape {
    let data_sizes: Vec<u64> = superblocks.iter().map(Superblock::data_size).collect();
    superblocks[0].shape(&data_sizes).unwrap()
}

fn xor(golden: &Golden, of: &[Superblock], slots: &[Option<usize>], at: Sector) -> Vec<u8> {
    let mut sum = vec![0; SECTOR_BYTES];
    for member in slots.iter().flatten() {
        let strip = golden.sector(*member, &of[*member], at);
        sum.iter_mut().zip(strip).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[test]
fn parity_lies_where_the_geometry_says() {
    for golden in images("md", "md-raid") {
        let superblocks = golden.superblocks();
        let assembly = golden.assembly();
        let Some(Ok(geometry)) = superblocks[0].geometry() else { continue };
        if assembly.missing_count() > 0 {
            continue;
        }
        let member = |slot: usize| {
            let Slot::InSync(member) = assembly.slots[slot] else { panic!("nothing is missing") };
            member
        };
        // One sector of each stripe, with the content of every slot.
        for stripe in 0..superblocks[0].size() / geometry.chunk_sectors() {
            let at = geometry.strip_start(stripe) + stripe % geometry.chunk_sectors();
            let strips: Vec<&[u8]> = (0..geometry.raid_disks())
                .map(|slot| golden.sector(member(slot), &superblocks[member(slot)], at))
                .collect();
            check_parity(&geometry, stripe, &strips);
        }
    }
}

fn check_parity(geometry: &Geometry, stripe: u64, strips: &[&[u8]]) {
    for byte in 0..SECTOR_BYTES {
        let (mut p, mut q) = (0, 0);
        for (slot, strip) in strips.iter().enumerate() {
            if let Strip::Data(d) = geometry.strip(stripe, slot) {
                p ^= strip[byte];
                if geometry.level() == ParityLevel::Raid6 {
                    let times_g = |x: u8| (x << 1) ^ if x & 0x80 != 0 { 0x1D } else { 0 };
                    let power = geometry.q_exponent(stripe, d);
                    q ^= (0..power).fold(strip[byte], |value, _| times_g(value));
                }
            }
        }
        assert_eq!(strips[geometry.p_slot(stripe)][byte], p, "P of stripe {stripe}");
        if let Some(slot) = geometry.q_slot(stripe) {
            assert_eq!(strips[slot][byte], q, "Q of stripe {stripe}");
        }
    }
}

/// The array was closed, so all that its logs name was written whole.
#[test]
fn partial_parity_of_the_kernel_and_what_is_written_make_the_parity_that_it_wrote() {
    let mut checked = 0;
    for golden in
        images("md", "md-raid").into_iter().filter(|golden| golden.text("name").contains("ppl"))
    {
        let superblocks = golden.superblocks();
        let Shape::Parity(geometry, size) = shape(&superblocks) else { panic!("a RAID 5") };
        let log = |(member, superblock)| golden.log(member, superblock);
        let logs: Vec<Log> = superblocks.iter().enumerate().map(log).collect();
        let plan = Plan::new(&geometry, size, 1, (0..).zip(logs.iter().map(Some))).unwrap();
        assert_eq!((plan.updates.len(), plan.unlogged.len()), (4, 0));
        for (update, partial) in &plan.updates {
            for (row, partial) in update.member_sectors(&geometry).zip(partial.chunks(SECTOR_BYTES))
            {
                let sector = |slot: usize| golden.sector(slot, &superblocks[slot], Sector(row));
                let mut parity = partial.to_vec();
                for strip in update.strips.clone() {
                    let data = sector(geometry.data_slot(update.stripe, strip));
                    parity.iter_mut().zip(data).for_each(|(to, from)| *to ^= from);
                }
                assert_eq!(parity, sector(geometry.p_slot(update.stripe)), "row {row}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 32, "{checked} rows");
}

/// Fields that mdadm chose when it made these arrays, and we choose when asked for the same.
#[test]
fn creation_makes_the_choices_that_mdadm_made() {
    for golden in [images("md", "md-raid"), images("md-journal", "md-raid")].concat() {
        let name = golden.text("name");
        let theirs = golden.superblocks();
        let has_journal = theirs[0].features().contains(Features::JOURNAL);
        let array = NewArray {
            level: theirs[0].level(),
            layout: theirs[0].layout(),
            chunk_sectors: theirs[0].chunk_sectors(),
            minor: Minor::V2,
            set_uuid: theirs[0].set_uuid(),
            set_name: steadfast_md::create::set_name(None, &theirs[0].name()).unwrap(),
            ctime: theirs[0].ctime(),
            resync: ResyncOffset::Clean,
            data_offset: None,
            ppl: theirs[0].ppl().is_some(),
            size: None,
        };
        let mut members: Vec<NewMember> = golden
            .images
            .iter()
            .zip(&theirs)
            .map(|(image, superblock)| NewMember {
                device_sectors: u64_of(image.len() / SECTOR_BYTES),
                device_uuid: superblock.device_uuid(),
            })
            .collect();
        let journal = has_journal.then(|| members.pop().unwrap());
        let mut ours = create(&array, &members).unwrap();
        if let Some(journal) = journal {
            let journal = add_journal(&array, &mut ours, &journal).unwrap();
            ours.push(journal);
            let named = |s: &Superblock| (s.features(), s.dev_number(), s.role());
            assert!(ours.iter().map(named).eq(theirs.iter().map(named)), "{name}");
            assert!(ours[0].roles().eq(theirs[0].roles()), "{name}");
        }
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let chosen = |s: &Superblock| {
                (s.data_offset(), s.data_size(), s.size(), s.bad_block_log(), s.roles().count())
            };
            assert_eq!(chosen(ours), chosen(theirs), "{name} member {index}");
            let mut expected = theirs.encode();
            // Everything else in the same bytes too, but for what a run changes: features, bitmap
            // place, how far a journal is home, the member's number (mdadm recovers the last one of a RAID
            // 5 as a spare), times, events, checksum and the device table.
            let run = [8..12, 96..100, 152..160, 160..164, 192..208, 216..220, 256..264, 264..268];
            let fresh = ours.encode();
            for range in run {
                expected[range.clone()].copy_from_slice(&fresh[range]);
            }
            let differing: Vec<usize> = (0..4096).filter(|&at| fresh[at] != expected[at]).collect();
            let resync = theirs.resync() != ResyncOffset::Clean;
            assert!(differing.is_empty() || resync, "{name} member {index}: bytes {differing:?}");
        }
    }
}

/// The stacks carry their superblocks inside dm-integrity, whose data lies in one piece there.
#[test]
fn superblocks_inside_of_dm_integrity_are_the_same_format() {
    for golden in images("md-on-dm-integrity", "stack-") {
        let superblocks: Vec<Superblock> = golden
            .images
            .iter()
            .map(|image| {
                let blocks = image.chunks_exact(SECTOR_BYTES);
                let at = blocks.into_iter().position(|block| block[..4] == MAGIC).unwrap();
                let bytes = &image[at * SECTOR_BYTES..];
                let superblock = Superblock::decode(bytes, Minor::V2, 1 << 20).unwrap();
                assert_eq!(superblock.encode(), bytes[..4096]);
                superblock
            })
            .collect();
        let assembly = judge(&superblocks, 1 << 20);
        assert_eq!((assembly.missing_count(), assembly.cannot_start.len()), (0, 0));
        assert_eq!(assembly.cannot_write, []);
        let first = &superblocks[0];
        let sectors = golden.entry["array_sectors"].as_u64();
        assert_eq!(shape(&superblocks).array_sectors(), sectors);
        assert!(matches!(first.level(), Level::Raid1 | Level::Raid5));
    }
}

const MAGIC: [u8; 4] = [0xFC, 0x4E, 0x2B, 0xA9];
