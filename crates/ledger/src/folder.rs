//! Where a volume's ledger lives.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The folder of the volume `identity` if none is named, after the XDG Base Directory
/// Specification: below `$XDG_STATE_HOME` if that is an absolute path (also for root, who has to
/// set it on purpose), else for root `/var/lib/steadfast`, else below `~/.local/state`. None: there
/// is no usable home.
#[must_use]
pub fn default_folder(
    is_root: bool,
    xdg_state_home: Option<&OsStr>,
    home: Option<&OsStr>,
    identity: &str,
) -> Option<PathBuf> {
    let absolute = |path: &OsStr| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let state = match xdg_state_home.and_then(absolute) {
        Some(state) => state,
        None if is_root => PathBuf::from("/var/lib"),
        None => home.and_then(absolute)?.join(".local/state"),
    };
    Some(state.join("steadfast").join(identity))
}

/// Whether none of the files that a ledger in `folder` is made of is one of `members`, by device
/// and inode number: otherwise keeping it would destroy that member.
#[must_use]
pub fn is_clear_of(folder: &Path, members: &[(u64, u64)]) -> bool {
    crate::files(folder).iter().all(|path| {
        std::fs::metadata(path).map_or(true, |found| !members.contains(&(found.dev(), found.ino())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_where_the_contract_says() {
        let folder = |root, xdg: Option<&str>, home: Option<&str>| {
            let found = default_folder(root, xdg.map(OsStr::new), home.map(OsStr::new), "ID");
            found.map(|path| path.display().to_string())
        };
        let path = |text: &str| Some(text.to_owned());
        assert_eq!(folder(false, Some("/x"), Some("/h")), path("/x/steadfast/ID"));
        assert_eq!(folder(false, None, Some("/h")), path("/h/.local/state/steadfast/ID"));
        assert_eq!(folder(true, None, Some("/root")), path("/var/lib/steadfast/ID"));
        assert_eq!(folder(true, Some("/x"), None), path("/x/steadfast/ID"));
        assert_eq!(folder(false, None, None), None);
    }

    #[test]
    fn what_is_not_an_absolute_path_counts_as_unset() {
        let folder = |xdg, home| default_folder(false, Some(xdg), Some(home), "ID");
        let (empty, relative) = (OsStr::new(""), OsStr::new("state"));
        assert_eq!(folder(empty, relative), None);
        let found = folder(relative, OsStr::new("/h"));
        assert_eq!(found, Some(PathBuf::from("/h/.local/state/steadfast/ID")));
    }
}
