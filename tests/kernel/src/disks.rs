//! The disks of a volume, and what `steadfast` must be told about them to open it.

use crate::format::Format;
use crate::machine::boot::{KEYS, key};
use crate::subject::Subject;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Files in the order in which the guest gets them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    /// Each member's, with its data behind it if they are apart.
    all: Vec<PathBuf>,
    /// Data are apart: two files are one member.
    data_apart: bool,
    /// Algorithms and keys that no disk says, as options.
    options: Vec<String>,
    /// The mode, as an option of what opens them.
    running: Vec<String>,
}

impl Disks {
    /// Names in `folder` for the disks of `subject`, none of which is there yet; its keys are.
    ///
    /// # Errors
    /// If the keys cannot be written.
    pub(crate) fn named(folder: &Path, subject: &Subject) -> anyhow::Result<Self> {
        for (name, first) in KEYS {
            std::fs::write(folder.join(name), key(*first)).with_context(|| (*name).to_owned())?;
        }
        let format = subject.integrity.as_ref();
        Ok(Self {
            all: (0..subject.disks()).map(|disk| folder.join(format!("disk{disk}.img"))).collect(),
            data_apart: format.is_some_and(|format| format.data_device),
            options: format.map(|format| format.open_options(folder)).unwrap_or_default(),
            running: format.map(Format::running_options).unwrap_or_default(),
        })
    }

    /// A file that is no volume's.
    pub(crate) fn of(file: PathBuf) -> Self {
        Self { all: vec![file], ..Self::default() }
    }

    /// Every file, as the guest gets them.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.all
    }

    /// How many members they are.
    pub(crate) fn members(&self) -> usize {
        self.all.len() / self.each()
    }

    /// One of the members, by itself.
    pub(crate) fn member(&self, index: usize) -> Self {
        let first = index * self.each();
        Self { all: self.all[first..first + self.each()].to_vec(), ..self.clone() }
    }

    /// Some of the members, in this order.
    pub(crate) fn choose(&self, indexes: &[usize]) -> Self {
        let all = indexes.iter().flat_map(|&index| self.member(index).all);
        Self { all: all.collect(), ..self.clone() }
    }

    /// Where the tags of a member lie.
    pub(crate) fn metadata(&self, member: usize) -> &Path {
        &self.all[member * self.each()]
    }

    /// Where the data of a member lie.
    pub(crate) fn data(&self, member: usize) -> &Path {
        &self.all[(member + 1) * self.each() - 1]
    }

    /// The arguments of `steadfast` that name the volume.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let members = 0..self.members();
        let mut arguments: Vec<String> =
            members.clone().map(|member| shown(self.metadata(member))).collect();
        arguments.extend(self.options.iter().cloned());
        for member in members.filter(|_| self.data_apart) {
            let pair = format!("{}={}", shown(self.metadata(member)), shown(self.data(member)));
            arguments.extend(["--data-device".into(), pair]);
        }
        arguments
    }

    /// The same for what opens the volume.
    pub(crate) fn opening(&self) -> Vec<String> {
        [self.arguments(), self.running.clone()].concat()
    }

    /// The same disks, run as `format` says.
    pub(crate) fn run_as(&self, format: &Format) -> Self {
        Self { running: format.running_options(), ..self.clone() }
    }

    /// Copies of all of them, beside them.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) fn copies(&self) -> anyhow::Result<Self> {
        self.copies_as("copy")
    }

    /// The same with another ending.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) fn copies_as(&self, ending: &str) -> anyhow::Result<Self> {
        let copy = |file: &PathBuf| -> anyhow::Result<PathBuf> {
            let copy = file.with_extension(ending);
            std::fs::copy(file, &copy).with_context(|| file.display().to_string())?;
            Ok(copy)
        };
        Ok(Self { all: self.all.iter().map(copy).collect::<Result<_, _>>()?, ..self.clone() })
    }

    const fn each(&self) -> usize {
        if self.data_apart { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_named_with_its_data_and_its_keys() {
        let format = Format { data_device: true, integrity: "hmac-sha256", ..Format::CRC32C };
        let folder = tempfile::tempdir().unwrap();
        let disks = Disks::named(folder.path(), &Subject::stacked(1, 2, format)).unwrap();
        assert_eq!((disks.members(), disks.files().len()), (2, 4));
        let text = disks.member(1).arguments().join(" ");
        let text = text.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(
            text,
            "disk2.img --integrity hmac-sha256 --integrity-key-file k.hmac \
             --data-device disk2.img=disk3.img"
        );
    }
}
