//! The images of the real kernel against their manifest: every file named, every byte as it was.

use crate::process::root;
use anyhow::{Context, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// # Errors
/// With everything that is wrong in one message.
pub(crate) fn run() -> anyhow::Result<()> {
    let problems = check(&root().join("golden"))?;
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("golden images are as the manifest says");
    Ok(())
}

/// What is wrong in `folder`, a sentence each.
///
/// # Errors
/// If the manifest cannot be read, or zstd cannot be run.
pub(crate) fn check(folder: &Path) -> anyhow::Result<Vec<String>> {
    let manifest = folder.join("manifest.json");
    let text = std::fs::read(&manifest).with_context(|| manifest.display().to_string())?;
    let promised = promises(&serde_json::from_slice(&text).context("golden/manifest.json")?)?;

    let mut problems = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let described = ["manifest.json", "README.md", "recipes"].contains(&name.as_str());
        if !described && !promised.contains_key(&name) {
            problems.push(format!(
                "golden/{name}: not in the manifest; add an entry that says how it was made"
            ));
        }
    }
    for (name, promise) in &promised {
        let path = folder.join(name);
        if !path.is_file() {
            problems.push(format!("golden/{name}: named in the manifest, but not there"));
            continue;
        }
        let found = Promise::of(&path)?;
        if found != *promise {
            problems.push(format!(
                "golden/{name}: holds {} bytes, sha256 {}; the manifest says {} and {}; \
                 restore it from history",
                found.bytes, found.sha256, promise.bytes, promise.sha256
            ));
        }
    }
    Ok(problems)
}

/// What a raw image is.
#[derive(Debug, Eq, PartialEq)]
struct Promise {
    bytes: u64,
    sha256: String,
}

impl Promise {
    fn of(compressed: &Path) -> anyhow::Result<Self> {
        let mut zstd = Command::new("zstd")
            .arg("-dcq")
            .arg(compressed)
            .stdout(Stdio::piped())
            .spawn()
            .context("start zstd (Debian package zstd; `cargo xtask packages` installs it)")?;
        let mut raw = zstd.stdout.take().context("the output of zstd")?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let count = raw.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            bytes += u64::try_from(count)?;
        }
        let status = zstd.wait()?;
        if !status.success() {
            bail!("zstd -dc {}: {status}", compressed.display());
        }
        let mut sha256 = String::new();
        for byte in hash.finalize() {
            write!(sha256, "{byte:02x}")?;
        }
        Ok(Self { bytes, sha256 })
    }
}

fn promises(manifest: &Value) -> anyhow::Result<BTreeMap<String, Promise>> {
    let entries = manifest["entries"].as_array().context("the manifest has no `entries`")?;
    let mut promised = BTreeMap::new();
    for entry in entries {
        for file in entry["files"].as_array().context("an entry has no `files`")? {
            let text = |key: &str| -> anyhow::Result<String> {
                Ok(file[key].as_str().with_context(|| format!("a file has no `{key}`"))?.into())
            };
            let bytes = file["image_bytes"].as_u64().context("a file has no `image_bytes`")?;
            promised.insert(text("file")?, Promise { bytes, sha256: text("image_sha256")? });
        }
    }
    Ok(promised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_each_file_with_size_and_hash() {
        let manifest = serde_json::json!({"entries": [
            {"files": [{"file": "a.img.zst", "image_bytes": 5, "image_sha256": "00"}]}
        ]});
        let promised = promises(&manifest).unwrap();
        assert_eq!(promised["a.img.zst"], Promise { bytes: 5, sha256: "00".into() });
        assert!(promises(&serde_json::json!({"entries": [{}]})).is_err());
    }
}
