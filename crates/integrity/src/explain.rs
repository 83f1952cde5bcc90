//! The same facts in words: for `inspect`, `explain` and error messages.

use crate::layout::Layout;
use crate::superblock::{Flags, Superblock};

/// A superblock's fields by the names that the kernel's own tools print, with their values.
#[must_use]
pub fn fields(superblock: &Superblock) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("superblock_version", superblock.version.to_string()),
        ("log2_interleave_sectors", superblock.log2_interleave.unwrap_or(0).to_string()),
        ("integrity_tag_size", superblock.tag_size.to_string()),
        ("journal_sections", superblock.journal_sections.to_string()),
        ("provided_data_sectors", superblock.provided_sectors.to_string()),
        ("sector_size", superblock.block.to_string()),
    ];
    if superblock.version >= 2 && superblock.flags.has(Flags::RECALCULATING) {
        fields.push(("recalc_sector", superblock.recalc_sector.to_string()));
    }
    fields.push(("log2_blocks_per_bitmap", superblock.log2_blocks_per_bitmap_bit.to_string()));
    fields.push(("flags", flag_names(superblock.flags)));
    if superblock.flags.has(Flags::FIX_HMAC) {
        fields.push(("salt", superblock.salt.iter().map(|byte| format!("{byte:02x}")).collect()));
    }
    fields
}

/// The flags by name, separated by spaces; unknown bits as one hexadecimal number.
#[must_use]
pub fn flag_names(flags: Flags) -> String {
    let known = Flags::NAMES.into_iter().filter(|(flag, _)| flags.has(*flag));
    let mut names: Vec<String> = known.map(|(_, name)| name.to_owned()).collect();
    if flags.unknown() != 0 {
        names.push(format!("{:#x}", flags.unknown()));
    }
    names.join(" ")
}

/// What the layout adds up to, as name and value.
#[must_use]
pub fn geometry(layout: &Layout) -> Vec<(&'static str, String)> {
    vec![
        ("journal_sectors", layout.journal.sectors().to_string()),
        ("section_sectors", layout.journal.section_sectors.to_string()),
        ("entries_per_section", layout.journal.entries_per_section.to_string()),
        ("initial_sectors", layout.initial_sectors.to_string()),
        ("metadata_run", layout.metadata_run.to_string()),
    ]
}

/// A tag as it is printed everywhere: the stored bytes in hexadecimal.
#[must_use]
pub fn tag_text(tag: &[u8]) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_flags_are_shown_not_hidden() {
        assert_eq!(flag_names(Flags(0x18)), "fix_padding fix_hmac");
        assert_eq!(flag_names(Flags(0x8000_0001)), "have_journal_mac 0x80000000");
        assert_eq!(flag_names(Flags(0)), "");
    }

    #[test]
    fn a_tag_is_printed_as_it_lies_on_disk() {
        assert_eq!(tag_text(&[0x0a, 0xff]), "0aff");
    }
}
