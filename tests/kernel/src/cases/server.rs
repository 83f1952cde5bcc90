//! The kernel as a client of our server, and then as the owner of the same volume.

use crate::disks::Disks;
use crate::format::Format;
use crate::lab::Lab;
use crate::subject::Subject;
use anyhow::{Context, ensure};

/// A file system is made and filled through NBD; then the kernel opens the member itself and finds
/// all of it. Its blocks are those of the tags: over NBD, mke2fs sees sectors of 512 bytes and would
/// take blocks of 1024, which cannot be mounted where the kernel sees 4096.
///
/// # Errors
/// If it does not.
pub(super) fn ext4(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let subject = Subject::integrity(Format::CRC32C_4096);
    let (members, _) = lab.create(&subject)?;
    let server = lab.program.serve_to_guest(&members)?;
    let port = server.uri.trim_end_matches('/').rsplit(':').next().context("a port")?.to_owned();
    let script = format!(
        "modprobe virtio_net; modprobe nbd; modprobe ext4
         ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0 2>/dev/null || true
         nbd-client -N '' {HOST} {port} /dev/nbd0 >/tmp/nbd 2>&1 || {{ cat /tmp/nbd; fail nbd; }}
         /sbin/mke2fs -q -t ext4 -b 4096 /dev/nbd0
         mount -t ext4 /dev/nbd0 /mnt
         mkdir /mnt/folder
         for i in $(seq 40); do echo $i > /mnt/folder/$i; done
         dd if=$PATTERN of=/mnt/file bs=1M count=8 2>/dev/null
         rm /mnt/folder/7
         sync; {SUMS}
         umount /mnt
         e2fsck -fn /dev/nbd0 >/tmp/fsck 2>&1 || {{ cat /tmp/fsck; fail fsck; }}
         nbd-client -d /dev/nbd0 >/dev/null 2>&1\n"
    );
    let written = lab.guest(&Disks::default(), &script)?;
    server.stop()?;
    lab.must_be_sound(&members)?;

    let device = subject.device();
    let script = format!(
        "e2fsck -fn {device} >/tmp/fsck 2>&1 || {{ cat /tmp/fsck; fail fsck; }}
         mount -t ext4 -o ro {device} /mnt
         {SUMS}
         umount /mnt\n"
    );
    let found = lab.guest(&members, &[subject.open(), script, subject.close()].concat())?;
    let sums = |answer: &crate::lab::Answer| answer.all("sum").map(str::to_owned).collect();
    let (written, found): (Vec<String>, Vec<String>) = (sums(&written), sums(&found));
    ensure!(written.len() == 40, "{} files were written", written.len());
    ensure!(written == found, "written: {written:?}\nfound: {found:?}");
    Ok(())
}

/// Where the guest's network (qemu's own) finds the host.
const HOST: &str = "10.0.2.2";
const SUMS: &str = "(cd /mnt; find . -type f | sort | xargs sha256sum | sed 's/^/sum /')";
