//! The options that say what no disk records: algorithms, keys, and where the data lies.
//!
//! A key is the whole of a file: never an argument, which every process on the machine could read,
//! and never printed.

use crate::error::Failure;
use crate::exit::Outcome;
use stack::{Algorithm, CipherKind, JournalKeys, KEY_BYTES_MAX, Key, Member, SuperblockArea};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the disks do not say.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "given")]
pub struct Arguments {
    #[command(flatten)]
    pub keys: Keys,

    /// MEMBER holds only metadata, and PATH its data; once for each such member
    #[arg(long, value_name = "MEMBER=PATH")]
    data_device: Vec<String>,

    /// Read MEMBER as if its dm-integrity superblock were that in FILE (which 'inspect --find --to
    /// FILE' makes); nothing is written to the volume
    #[arg(long, value_name = "MEMBER=FILE")]
    superblock: Vec<String>,
}

/// What seals and encrypts.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "keys")]
pub struct Keys {
    /// The key of tags such as hmac-sha256: the whole file
    #[arg(long, value_name = "FILE")]
    integrity_key_file: Option<PathBuf>,

    /// What the journal's MACs are made with, such as hmac-sha256
    #[arg(long, value_name = "ALG")]
    journal_integrity: Option<String>,

    /// The key of the journal's MACs: the whole file
    #[arg(long, value_name = "FILE", requires = "journal_integrity")]
    journal_integrity_key_file: Option<PathBuf>,

    /// What the journal is encrypted with
    #[arg(long, value_name = "ctr-aes|cbc-aes", requires = "journal_crypt_key_file")]
    journal_crypt: Option<String>,

    /// The key that the journal is encrypted with: the whole file
    #[arg(long, value_name = "FILE", requires = "journal_crypt")]
    journal_crypt_key_file: Option<PathBuf>,
}

impl Keys {
    /// The key of the tags' algorithm, if it takes one.
    pub fn integrity(&self, algorithm: Algorithm) -> Result<Option<Key>, Failure> {
        let file = self.integrity_key_file.as_deref();
        key_of(algorithm, "--integrity", "--integrity-key-file", file)
    }

    /// Refuses a key that nothing was named for.
    pub fn without_integrity(&self) -> Result<(), Failure> {
        match &self.integrity_key_file {
            None => Ok(()),
            Some(_) => Err(Failure::usage("--integrity-key-file: no algorithm that takes a key")
                .advise("name it with --integrity, such as hmac-sha256")),
        }
    }

    /// What journals are sealed and encrypted with.
    pub fn journal(&self) -> Result<JournalKeys, Failure> {
        let mut keys = JournalKeys::default();
        if let Some(name) = &self.journal_integrity {
            let wrong = |error| Failure::usage(format!("--journal-integrity: {error}"));
            let algorithm: Algorithm = name.parse().map_err(wrong)?;
            let file = self.journal_integrity_key_file.as_deref();
            let option = "--journal-integrity-key-file";
            keys.mac = Some((algorithm, key_of(algorithm, "--journal-integrity", option, file)?));
        }
        if let (Some(name), Some(file)) = (&self.journal_crypt, &self.journal_crypt_key_file) {
            let wrong = |error| Failure::usage(format!("--journal-crypt: {error}"));
            let kind: CipherKind = name.parse().map_err(wrong)?;
            keys.cipher = Some((kind, read_key("--journal-crypt-key-file", file)?));
        }
        Ok(keys)
    }

    fn spelled(&self) -> Vec<(&'static str, String)> {
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let options = [
            ("--integrity-key-file", file(&self.integrity_key_file)),
            ("--journal-integrity", self.journal_integrity.clone()),
            ("--journal-integrity-key-file", file(&self.journal_integrity_key_file)),
            ("--journal-crypt", self.journal_crypt.clone()),
            ("--journal-crypt-key-file", file(&self.journal_crypt_key_file)),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl Arguments {
    /// The members whose data lies elsewhere, each with that device.
    pub fn data_devices(&self, members: &[String]) -> Result<Vec<(Member, Member)>, Failure> {
        let pairs = pairs("--data-device", &self.data_device, members)?.into_iter();
        let pairs = pairs.map(|(member, data)| Ok((member, parse("--data-device", data)?)));
        pairs.collect()
    }

    /// Takes out the device that is to hold the data of a member that is yet to come, if one was given.
    pub fn take_data_device(&mut self, new: &str) -> Result<Option<Member>, Failure> {
        let is_of = |text: &str| text.strip_prefix(new).is_some_and(|rest| rest.starts_with('='));
        let of_new: Vec<String> = self.data_device.extract_if(.., |text| is_of(text)).collect();
        let pairs = pairs("--data-device", &of_new, &[new.to_owned()])?;
        pairs.first().map(|(_, data)| parse("--data-device", data)).transpose()
    }

    /// The members whose superblock is not that on the disk, each with what it is.
    pub fn superblocks(
        &self,
        members: &[String],
    ) -> Result<Vec<(Member, SuperblockArea)>, Failure> {
        let pairs = pairs("--superblock", &self.superblock, members)?.into_iter();
        pairs.map(|(member, file)| Ok((member, read_area(Path::new(file))?))).collect()
    }

    /// Whether what was given allows no writing.
    pub fn is_read_only(&self) -> bool {
        !self.superblock.is_empty()
    }

    /// The same options on a command line, each with a blank before it.
    pub fn spelled(&self) -> String {
        let data = self.data_device.iter().map(|text| ("--data-device", text.clone()));
        let superblocks = self.superblock.iter().map(|text| ("--superblock", text.clone()));
        let given = self.keys.spelled().into_iter().chain(data).chain(superblocks);
        given.map(|(name, value)| format!(" {name} {value}")).collect()
    }
}

fn parse(option: &str, name: &str) -> Result<Member, Failure> {
    Member::parse(name).map_err(|error| Failure::usage(format!("{option}: {error}")))
}

/// What was given for members as MEMBER=TEXT, at most once for each.
fn pairs<'a>(
    option: &str,
    texts: &'a [String],
    members: &[String],
) -> Result<Vec<(Member, &'a str)>, Failure> {
    let mut pairs: Vec<(Member, &str)> = Vec::new();
    for text in texts {
        // Both sides may hold an equals sign: the member is known.
        let named = |(at, _)| members.iter().any(|member| member == &text[..at]);
        let Some((at, _)) = text.match_indices('=').find(|&found| named(found)) else {
            let message = format!("{option} {text}: does not start with a member and '='");
            return Err(Failure::usage(message));
        };
        let member = parse(option, &text[..at])?;
        if pairs.iter().any(|(other, _)| *other == member) {
            return Err(Failure::usage(format!("{option}: was given twice for {member}")));
        }
        pairs.push((member, &text[at + 1..]));
    }
    Ok(pairs)
}

/// The superblock's area that is the whole of a file.
fn read_area(path: &Path) -> Result<SuperblockArea, Failure> {
    let named = format!("--superblock {}", path.display());
    let mut bytes = Vec::new();
    let limit = units::u64_of(size_of::<SuperblockArea>() + 1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| Failure::io(&named, &error))?;
    bytes.try_into().map_err(|_| {
        let message = format!("{named}: is not {} bytes long", size_of::<SuperblockArea>());
        Failure::usage(message).advise("'steadfast inspect --find --to FILE' makes one")
    })
}

/// The key of `algorithm`, if it takes one.
fn key_of(
    algorithm: Algorithm,
    option: &str,
    key_option: &str,
    file: Option<&Path>,
) -> Result<Option<Key>, Failure> {
    match (algorithm.is_keyed(), file) {
        (true, Some(file)) => read_key(key_option, file).map(Some),
        (false, None) => Ok(None),
        (true, None) => Err(Failure::usage(format!("{option} {algorithm}: needs a key"))
            .advise(format!("name its file with {key_option}"))),
        (false, Some(_)) => Err(Failure::usage(format!("{key_option}: {algorithm} takes no key"))
            .advise(format!("leave it out, or name another algorithm with {option}"))),
    }
}

/// The whole of `path`; its bytes are wiped when the key is dropped.
fn read_key(option: &str, path: &Path) -> Result<Key, Failure> {
    // Enough room at once: a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(KEY_BYTES_MAX + 2);
    let limit = units::u64_of(KEY_BYTES_MAX + 1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    let key = Key::new(bytes);
    read.map_err(|error| Failure::io(format_args!("{option} {}", path.display()), &error))?;
    key.map_err(|error| {
        Failure::new(Outcome::Usage, format!("{option} {}: {error}", path.display()))
    })
}
