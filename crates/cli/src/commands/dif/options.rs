//! The flags of `steadfast dif`, and what they mean to the library.

use crate::error::Failure;
use ::dif::{Checks, Coding, Expected, Format, Guard, Place, Profile, Protection, ProtectionType};
use serde_json::{Value, json};
use stack::dif_file::{Image, Layout, Outputs, Request, Source};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What the bytes are, and what the tuples ought to say.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The file or block device that is read
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where the metadata is: interleaved (behind each interval), separate (in --metadata-file) or
    /// nvme-qemu (behind all data: what QEMU's NVMe device keeps). Without it interleaved, or separate if
    /// there is a --metadata-file
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<String>,

    /// The metadata of --layout separate: read, or by 'insert' written. 'generate' takes the owner's
    /// bytes from it, if metadata is larger than the tuple
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,

    /// Bytes of data of a logical block
    #[arg(long, value_name = "BYTES", default_value = "512")]
    block_size: String,

    /// Bytes of metadata of a logical block, in equal parts for its intervals; the tuples alone, if not
    /// given. As many as one tuple are those of each interval
    #[arg(long, value_name = "BYTES")]
    metadata_size: Option<String>,

    /// What the reference tag means: 1 (the block's address), 2 (counts from --ref-tag) or 3 (the
    /// application's)
    #[arg(long = "type", value_name = "1|2|3", default_value = "1")]
    kind: String,

    /// The checksum: crc16, ip, crc32c or crc64
    #[arg(long, value_name = "GUARD", default_value = "crc16")]
    guard: String,

    /// Where the tuple lies in metadata that is larger: first (the guard covers the data) or last (and
    /// the metadata before it)
    #[arg(long, value_name = "first|last", default_value = "last")]
    tuple: String,

    /// Bytes that one tuple vouches for: the block, half of it, a quarter, ...
    #[arg(long, value_name = "BYTES")]
    interval: Option<String>,

    /// Bits of the storage tag; if not given none, with crc32c 16
    #[arg(long, value_name = "N")]
    storage_tag_bits: Option<String>,

    /// The application tag, written, or compared in the bits of MASK (all of them); if not given 0 is
    /// written and nothing compared
    #[arg(long, value_name = "V[/MASK]")]
    app_tag: Option<String>,

    /// The reference tag of the first interval that is read; its number in the file, if not given (0
    /// for type 3)
    #[arg(long, value_name = "N")]
    ref_tag: Option<String>,

    /// The storage tag, as --app-tag
    #[arg(long, value_name = "V[/MASK]")]
    storage_tag: Option<String>,

    /// What is checked, of guard, app, ref and storage, with commas between; all, if not given
    #[arg(long, value_name = "LIST")]
    check: Option<String>,

    /// Every interval was written protected: escapes are bad application tags, and blocks of QEMU's
    /// layout that are all zero are checked like others
    #[arg(long)]
    no_escapes: bool,

    /// Only these logical blocks, the end excluded; A- is all from A on. What is written holds them alone
    #[arg(long, value_name = "A-B")]
    range: Option<String>,
}

/// Where to write.
#[derive(Debug, clap::Args)]
#[group(id = "output")]
pub struct Output {
    /// The file to write, which has its name only when it is whole
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Overwrite existing files
    #[arg(long)]
    yes: bool,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Output {
    /// Its flags, for the library; `metadata` is written beside it.
    pub fn outputs<'a>(&'a self, metadata: Option<&'a Path>) -> Result<Outputs<'a>, Failure> {
        match &self.out {
            Some(out) => Ok(self.to(out, metadata)),
            None => Err(Failure::usage("--out: not given, expected the file to write")
                .advise("name it with --out FILE")),
        }
    }

    /// The same to a file that another flag names.
    pub fn to<'a>(&self, out: &'a Path, metadata: Option<&'a Path>) -> Outputs<'a> {
        Outputs { out, metadata, map: None, overwrite: self.yes, dry_run: self.dry_run }
    }

    /// Refuses --out where nothing is written to it.
    pub fn refuse(&self) -> Result<(), Failure> {
        match &self.out {
            None => Ok(()),
            Some(_) => {
                Err(Failure::usage("--out: nothing is written to it, expected --from as well")
                    .advise(
                        "tags are written with --from FILE --out FILE, and read with --to FILE",
                    ))
            }
        }
    }
}

/// What the flags mean.
pub struct Options {
    pub image: Image,
    expected: Expected,
    checks: Checks,
    /// As given.
    ref_tag: Option<u64>,
    range: Option<(u64, Option<u64>)>,
    file: PathBuf,
    metadata_file: Option<PathBuf>,
}

impl Flags {
    /// What they mean; a usage error names the flag.
    pub fn options(&self) -> Result<Options, Failure> {
        let layout = self.layout()?;
        let block = size("--block-size", &self.block_size)?;
        let image = self.image(layout, block)?;
        let app_tag = tagged("--app-tag", self.app_tag.as_deref(), u16::MAX.into())?;
        let storage_mask = image.profile().format.storage_mask();
        let storage = tagged("--storage-tag", self.storage_tag.as_deref(), storage_mask)?;
        let ref_tag = self.ref_tag.as_deref().map(|text| number("--ref-tag", text)).transpose()?;
        let short = |value: u64| u16::try_from(value).expect("bounded by the mask");
        let expected = Expected {
            application: short(app_tag.0),
            application_mask: short(app_tag.1),
            reference: ref_tag.unwrap_or(0),
            storage: storage.0,
            storage_mask: storage.1,
        };
        let options = Options {
            image,
            expected,
            checks: self.checks()?,
            ref_tag,
            range: self.range.as_deref().map(range).transpose()?,
            file: self.file.clone(),
            metadata_file: self.metadata_file.clone(),
        };
        options.protection(0)?;
        Ok(options)
    }

    fn layout(&self) -> Result<Layout, Failure> {
        let layout = match self.layout.as_deref() {
            None if self.metadata_file.is_some() => Layout::Separate,
            None => Layout::default(),
            Some(name) => Layout::from_name(name)
                .ok_or_else(|| wrong("--layout", name, "interleaved, separate or nvme-qemu"))?,
        };
        if self.metadata_file.is_some() && layout != Layout::Separate {
            let text = format!("--metadata-file: --layout {layout} has its metadata in FILE");
            return Err(Failure::usage(text).advise("leave it out, or use --layout separate"));
        }
        Ok(layout)
    }

    fn image(&self, layout: Layout, block: usize) -> Result<Image, Failure> {
        let kind = self.kind.parse().ok().and_then(ProtectionType::from_number);
        let kind = kind.ok_or_else(|| wrong("--type", &self.kind, "1, 2 or 3"))?;
        let guard = Guard::from_name(&self.guard);
        let guard =
            guard.ok_or_else(|| wrong("--guard", &self.guard, "crc16, ip, crc32c or crc64"))?;
        let place = match self.tuple.as_str() {
            "first" => Place::First,
            "last" => Place::Last,
            other => return Err(wrong("--tuple", other, "first or last")),
        };
        let interval = self.interval.as_deref().map(|text| size("--interval", text)).transpose()?;
        let flag = if interval.is_some() { "--interval" } else { "--block-size" };
        let interval = interval.unwrap_or(block);
        let format = Format::new(guard, interval).map_err(|error| {
            Failure::usage(format!("{flag}: {error}")).advise("choose another, or another --guard")
        })?;
        let mut profile = Profile { format, kind };
        let image = Image::new(layout, block, profile).map_err(|error| {
            Failure::usage(format!("--interval: {error}")).advise("choose another --block-size")
        })?;
        if let Some(text) = &self.metadata_size {
            let bytes = self.metadata_of_each(size("--metadata-size", text)?, &image)?;
            let format = format.with_metadata(bytes, place);
            profile.format = format.map_err(|error| {
                Failure::usage(format!("--metadata-size: {error}")).advise("choose another")
            })?;
        }
        if let Some(text) = &self.storage_tag_bits {
            let bits = number("--storage-tag-bits", text)?;
            let bits = u8::try_from(bits).unwrap_or(u8::MAX);
            let format = profile.format.with_storage_bits(bits);
            profile.format = format.map_err(|error| {
                Failure::usage(format!("--storage-tag-bits: {error}")).advise("choose another")
            })?;
        }
        Image::new(layout, block, profile).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Metadata of an interval, where a block has `bytes`.
    fn metadata_of_each(&self, bytes: usize, image: &Image) -> Result<usize, Failure> {
        let (count, tuple) = (image.per_block(), image.profile().format.tuple_bytes());
        let count = units::usize_of(count);
        if bytes == tuple || count == 1 {
            return Ok(bytes);
        }
        if !bytes.is_multiple_of(count) {
            let text = format!(
                "--metadata-size: {bytes} bytes are not {count} equal parts, one an interval"
            );
            return Err(Failure::usage(text).advise(format!("choose a multiple of {count}")));
        }
        Ok(bytes / count)
    }

    fn checks(&self) -> Result<Checks, Failure> {
        let all = Checks { escape: !self.no_escapes, ..Checks::ALL };
        let Some(list) = &self.check else { return Ok(all) };
        let mut checks = Checks { escape: all.escape, ..Checks::NONE };
        for name in list.split(',') {
            *match name {
                "guard" => &mut checks.guard,
                "app" => &mut checks.application,
                "ref" => &mut checks.reference,
                "storage" => &mut checks.storage,
                other => return Err(wrong("--check", other, "guard, app, ref or storage")),
            } = true;
        }
        Ok(checks)
    }
}

impl Options {
    /// Opens the image.
    pub fn source(&self) -> Result<Source, Failure> {
        if self.image.layout() == Layout::Separate {
            self.metadata_file()?;
        }
        Ok(Source::open(&self.file, self.metadata_file.as_deref(), self.image)?)
    }

    /// Opens data alone.
    pub fn data_source(&self) -> Result<Source, Failure> {
        Ok(Source::open_data(&self.file, self.image)?)
    }

    /// Opens what `generate` reads: of a separate image the data, and metadata if there is any.
    pub fn source_to_sign(&self) -> Result<Source, Failure> {
        match (self.image.layout(), &self.metadata_file) {
            (Layout::Separate, None) => self.data_source(),
            _ => self.source(),
        }
    }

    /// The file of separate metadata; none in other layouts.
    pub fn metadata_file(&self) -> Result<Option<&Path>, Failure> {
        match (self.image.layout(), &self.metadata_file) {
            (Layout::Separate, None) => {
                let text = "--metadata-file: not given, expected the file of --layout separate";
                Err(Failure::usage(text).advise("name it with --metadata-file FILE"))
            }
            (_, file) => Ok(file.as_deref()),
        }
    }

    /// The blocks that were asked for, as far as that is known without the file.
    pub fn blocks(&self, source: &Source) -> Option<Range<u64>> {
        self.range.map(|(first, end)| first..end.unwrap_or_else(|| source.blocks()))
    }

    /// What is asked of the blocks in `range`.
    pub fn request(&self, range: Range<u64>) -> Result<Request, Failure> {
        let protection = self.protection(range.start)?;
        Ok(Request { protection, range })
    }

    fn protection(&self, first_block: u64) -> Result<Protection, Failure> {
        let profile = *self.image.profile();
        let counted = if profile.kind.counts() { first_block } else { 0 };
        let numbered = counted.wrapping_mul(self.image.per_block());
        let expected = Expected { reference: self.ref_tag.unwrap_or(numbered), ..self.expected };
        Protection::new(profile, expected, self.checks).map_err(|error| {
            let flag = match error {
                ::dif::ProtectionError::Escape { .. } => "--app-tag",
                ::dif::ProtectionError::Storage { .. } => "--storage-tag",
            };
            Failure::usage(format!("{flag}: {error}")).advise("choose another")
        })
    }

    /// How a walk that was stopped at `block` goes on with the blocks up to `end`.
    pub fn resume(&self, range: &Range<u64>, block: u64) -> String {
        let done = (block - range.start).wrapping_mul(self.image.per_block());
        let reference =
            self.ref_tag.map(|tag| format!(" --ref-tag 0x{:x}", tag.wrapping_add(done)));
        format!("--range {block}-{}{}", range.end, reference.unwrap_or_default())
    }

    /// What was assumed, for programs.
    pub fn object(&self, range: &Range<u64>) -> Value {
        let (format, kind) = (&self.image.profile().format, self.image.profile().kind);
        json!({
            "file": self.file, "metadata_file": self.metadata_file,
            "layout": self.image.layout().name(),
            "block_size": self.image.block(), "metadata_size": self.image.metadata(),
            "interval": format.interval(), "type": kind.number(), "guard": format.guard().name(),
            "tuple": if format.place() == Place::First { "first" } else { "last" },
            "storage_tag_bits": format.storage_bits(), "range": [range.start, range.end],
        })
    }

    /// The same for a person.
    pub fn describe(&self, range: &Range<u64>) -> String {
        let (layout, profile) = (self.image.layout(), self.image.profile());
        let (file, Range { start, end }) = (self.file.display(), range);
        format!("{file}: {layout}, {profile}, blocks {start} to {end} (end excluded)")
    }
}

/// A value that a flag does not take.
pub fn wrong(flag: &str, found: &str, expected: &str) -> Failure {
    Failure::usage(format!("{flag}: found '{found}', expected {expected}"))
        .advise("see 'steadfast dif --help'")
}

/// The coding called `name`.
pub fn coding(name: &str) -> Result<Coding, Failure> {
    match name {
        "plain" => Ok(Coding::Plain),
        "safe" => Ok(Coding::Safe),
        other => Err(wrong("--coding", other, "plain or safe")),
    }
}

/// The guard called `name`, given for `flag`.
pub fn guard(flag: &str, name: Option<&str>) -> Result<Guard, Failure> {
    let expected = "crc16, ip, crc32c or crc64";
    let name = name.ok_or_else(|| missing(flag, expected))?;
    Guard::from_name(name).ok_or_else(|| wrong(flag, name, expected))
}

/// A flag that has to be given.
pub fn missing(flag: &str, expected: &str) -> Failure {
    Failure::usage(format!("{flag}: not given, expected {expected}"))
        .advise("see 'steadfast dif --help'")
}

/// A number, in decimal or behind 0x in hexadecimal digits.
pub fn number(flag: &str, text: &str) -> Result<u64, Failure> {
    parsed(text).ok_or_else(|| wrong(flag, text, "a number such as 17 or 0x11"))
}

fn parsed(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard library would take a sign.
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    is_number.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// Bytes, as a number or as 4K.
fn size(flag: &str, text: &str) -> Result<usize, Failure> {
    let bytes = parsed(text).or_else(|| stack::parse_size(text).ok());
    let bytes = bytes.filter(|&bytes| bytes > 0 && bytes <= BYTES_MAX);
    let bytes = bytes.ok_or_else(|| wrong(flag, text, "bytes such as 512, 0x200 or 4K"))?;
    Ok(units::usize_of(bytes))
}

/// No block or interval is larger.
const BYTES_MAX: u64 = 1 << 24;

/// A tag and its mask, of which no bits beyond `most` may be set; nothing given: nothing compared.
fn tagged(flag: &str, text: Option<&str>, most: u64) -> Result<(u64, u64), Failure> {
    let Some(text) = text else { return Ok((0, 0)) };
    let (tag, mask) = match text.split_once('/') {
        Some((tag, mask)) => (number(flag, tag)?, number(flag, mask)?),
        None => (number(flag, text)?, most),
    };
    if (tag | mask) & !most != 0 {
        let expected = match most {
            0 => "none: the format has no storage tag, see --storage-tag-bits".to_owned(),
            most => format!("at most 0x{most:x}, as mask too"),
        };
        return Err(wrong(flag, text, &expected));
    }
    Ok((tag, mask))
}

/// Blocks from A to B, or from A on.
fn range(text: &str) -> Result<(u64, Option<u64>), Failure> {
    let parse = || {
        let (first, end) = text.split_once('-')?;
        let first = parsed(first)?;
        let end = if end.is_empty() { None } else { Some(parsed(end)?) };
        end.is_none_or(|end| first < end).then_some((first, end))
    };
    parse().ok_or_else(|| wrong("--range", text, "A-B with A below B, in logical blocks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_nothing_else() {
        for (text, value) in [("0", 0), ("17", 17), ("0x1F", 31), ("0Xff", 255)] {
            assert_eq!(parsed(text), Some(value), "{text}");
        }
        assert_eq!(parsed("0xffffffffffffffff"), Some(u64::MAX));
        for text in ["", "0x", "-1", "+1", "1K", "0x+1", "18446744073709551616", "ten", "1 "] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn ranges_are_not_empty_and_may_have_no_end() {
        assert_eq!(range("0x10-32").unwrap(), (16, Some(32)));
        assert_eq!(range("7-").unwrap(), (7, None));
        for text in ["", "-", "-5", "5", "5-5", "6-5", "a-b", "1-2-3"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tag_has_no_bits_beyond_its_width() {
        assert_eq!(tagged("--app-tag", Some("0x12/0xff"), 0xffff).unwrap(), (0x12, 0xff));
        assert_eq!(tagged("--app-tag", Some("5"), 0xffff).unwrap(), (5, 0xffff));
        assert_eq!(tagged("--app-tag", None, 0xffff).unwrap(), (0, 0));
        for text in ["0x10000", "1/0x10000", "1/", "/1", "x"] {
            assert!(tagged("--app-tag", Some(text), 0xffff).is_err(), "{text}");
        }
        assert!(tagged("--storage-tag", Some("1"), 0).is_err());
    }
}
