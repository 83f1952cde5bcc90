//! What the kernel keeps protected blocks on, and how we come by their bytes.

use super::tuples::{Layout, Stored, Tuples};
use crate::content::index;
use crate::disks::Disks;
use crate::lab::{Answer, Lab, NAMESPACE_BYTES};
use crate::machine::memory::Memory;
use anyhow::{Context, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A medium of protected blocks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Medium {
    /// A namespace of qemu's NVMe device, by its number: a file of ours.
    Nvme(usize),
    /// A disk of the kernel's SCSI target: two files of the guest's.
    Target,
    /// The disk of `scsi_debug`: memory of the guest's kernel.
    ScsiDebug,
}

impl Medium {
    /// How many blocks it has.
    pub(super) const fn blocks(self, tuples: &Tuples) -> u64 {
        match self {
            Self::Nvme(_) => NAMESPACE_BYTES / (tuples.block + tuples.metadata),
            Self::Target => TARGET_BYTES / tuples.block,
            Self::ScsiDebug => SCSI_DEBUG_BYTES / tuples.block,
        }
    }

    /// How its bytes lie in files for `steadfast dif`.
    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::Nvme(_) => Layout::Nvme,
            Self::Target | Self::ScsiDebug => Layout::Separate,
        }
    }

    /// Lets the kernel run `script` with its device as `$DEV`, and gives what lies on it then.
    ///
    /// # Errors
    /// If the script fails.
    pub(super) fn written(
        self,
        lab: &mut Lab<'_>,
        tuples: &Tuples,
        script: &str,
    ) -> anyhow::Result<Stored> {
        let blocks = self.blocks(tuples);
        let script = format!("{}{script}sync_to $DEV\n", self.open(tuples));
        let bytes = match self {
            Self::Nvme(number) => {
                lab.guest(&Disks::default(), &script)?;
                std::fs::read(lab.namespace(number))?
            }
            Self::Target => {
                let (data, all) =
                    (blocks * tuples.block, blocks * (tuples.block + tuples.metadata));
                let copy = format!(
                    "dd if=/tmp/target of=$OUT bs=64K oflag=direct conv=notrunc 2>/dev/null
                     dd if=/tmp/target.protection of=$OUT bs=4K oflag=direct,seek_bytes \
                       conv=notrunc seek={data} 2>/dev/null
                     echo sectors {}\n",
                    all / 512
                );
                let answer = lab.guest(&Disks::default(), &(script + &copy + self.close()))?;
                lab.given(&answer)?
            }
            Self::ScsiDebug => {
                let answer = lab.guest(&Disks::default(), &(script + STORE))?;
                let mut memory = lab.memory()?;
                let [data, metadata] = store(&mut memory, &answer)?;
                let data = memory.read(data, index(blocks * tuples.block))?;
                let metadata = memory.read(metadata, index(blocks * tuples.metadata))?;
                drop(memory);
                lab.guest(&Disks::default(), self.close())?;
                [data, metadata].concat()
            }
        };
        Stored::split(bytes, tuples, blocks)
    }

    /// Puts `stored` on it, and lets the kernel run `script` with its device as `$DEV`.
    ///
    /// # Errors
    /// If the script fails.
    pub(super) fn loaded(
        self,
        lab: &mut Lab<'_>,
        tuples: &Tuples,
        stored: &Stored,
        script: &str,
    ) -> anyhow::Result<Answer> {
        let open = self.open(tuples);
        match self {
            Self::Nvme(number) => {
                let image = File::options().write(true).open(lab.namespace(number))?;
                image.write_all_at(&stored.joined(), 0)?;
                lab.guest(&Disks::default(), &(open + script))
            }
            Self::Target => {
                let file = lab.path("disk.img");
                std::fs::write(&file, stored.joined())?;
                let data = stored.data.len();
                let load = format!(
                    "dd if=$D0 of=/tmp/target bs=64K conv=notrunc iflag=direct,count_bytes \
                       count={data} 2>/dev/null
                     dd if=$D0 of=/tmp/target.protection bs=4K conv=notrunc \
                       iflag=direct,skip_bytes,count_bytes skip={data} count={} 2>/dev/null\n",
                    stored.metadata.len()
                );
                lab.guest(&Disks::of(file), &(open + &load + script + self.close()))
            }
            Self::ScsiDebug => {
                let answer = lab.guest(&Disks::default(), &(open + STORE))?;
                let mut memory = lab.memory()?;
                let [data, metadata] = store(&mut memory, &answer)?;
                memory.write(data, &stored.data)?;
                memory.write(metadata, &stored.metadata)?;
                drop(memory);
                let script = format!("DEV=$(scsi_disk Linux)\n{script}{}", self.close());
                lab.guest(&Disks::default(), &script)
            }
        }
    }

    /// The commands after which its device is `$DEV`.
    fn open(self, tuples: &Tuples) -> String {
        let Tuples { kind, block, .. } = tuples;
        match self {
            Self::Nvme(number) => format!("DEV=$(namespace {number})\n"),
            Self::Target => {
                format!("target_up {TARGET_BYTES} {block} {kind}\nDEV=$(scsi_disk LIO-ORG)\n")
            }
            Self::ScsiDebug => {
                let guard = u8::from(tuples.guard == "ip");
                let mib = SCSI_DEBUG_BYTES >> 20;
                format!(
                    "modprobe scsi_debug dev_size_mb={mib} sector_size={block} dif={kind} dix=1 \
                     guard={guard} delay=0\nDEV=$(scsi_disk Linux)\n"
                )
            }
        }
    }

    const fn close(self) -> &'static str {
        match self {
            Self::Nvme(_) => "",
            Self::Target => "target_down\n",
            Self::ScsiDebug => "rmmod scsi_debug\n",
        }
    }
}

/// Says where the module keeps what it keeps.
const STORE: &str = "echo store $(awk '$3 == \"per_store_arr\" { print $1 }' /proc/kallsyms)\n";

/// Where the only store of `scsi_debug` has its data, and its tuples.
///
/// Nothing gives its tuples out, so this is what the module's symbol leads to: an array in the
/// kernel's form (lock and flags, eight bytes; then, while it has one element, that element's
/// address), whose element begins with locks, then the two addresses, which are those of pages.
fn store(memory: &mut Memory, answer: &Answer) -> anyhow::Result<[u64; 2]> {
    let array = answer.all("store").last().context("the guest says where the store is")?;
    let element = memory.word(u64::from_str_radix(array.trim(), 16)? + 8)?;
    ensure!(element.is_multiple_of(8) && element != 0, "{element:#x} is not the only store");
    let words: Vec<u64> =
        (0..STORE_WORDS).map(|word| memory.word(element + 8 * word)).collect::<Result<_, _>>()?;
    let is_page = |address: u64| address >= VIRTUAL && address.is_multiple_of(4096);
    let pair = words.windows(2).find(|pair| pair.iter().all(|&address| is_page(address)));
    let pair = pair.with_context(|| format!("no two pages in {words:x?}"))?;
    Ok([pair[0], pair[1]])
}

/// How far into the element the addresses may be.
const STORE_WORDS: u64 = 16;
/// Where the kernel maps what it allocated with `vmalloc` (its documented memory map of x86-64).
const VIRTUAL: u64 = 0xffff_c900_0000_0000;
const TARGET_BYTES: u64 = 4 << 20;
/// Data of `scsi_debug`; all of it goes through the debugger stub.
const SCSI_DEBUG_BYTES: u64 = 1 << 20;
