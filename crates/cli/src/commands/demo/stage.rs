//! The demo's volume: made, opened, served.

use super::sample::Sample;
use crate::commands::Context;
use crate::commands::open::close;
use crate::error::Failure;
use crate::exit::Outcome;
use bio::{Buf, Device};
use front::nbd::{Address, Export, Server};
use runtime::Notify;
use stack::create::{CreateLevel, CreateOptions, CreateProgress};
use stack::{Member, Node, OpenOptions, Volume};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use units::{SECTOR, Sector, usize_of};

/// Members of the volume.
pub const MEMBERS: usize = 6;
/// Members' worth of data in a RAID 6 of [`MEMBERS`].
const DATA_MEMBERS: u64 = 4;

/// Where it all happens.
pub struct Stage {
    context: Rc<Context>,
    folder: PathBuf,
    member_bytes: u64,
    /// Bytes of the sample.
    pub sample_bytes: u64,
}

impl Stage {
    /// A stage for `sample` in `folder`.
    pub fn new(context: Rc<Context>, folder: PathBuf, sample: &Sample) -> Self {
        // Data, its tags, a journal, superblocks, and some room.
        let share = sample.bytes.div_ceil(DATA_MEMBERS);
        let member_bytes = (share + share / 16 + (16 << 20)).next_multiple_of(1 << 20);
        Self { context, folder, member_bytes, sample_bytes: sample.bytes }
    }

    fn paths(&self) -> Vec<PathBuf> {
        (0..MEMBERS).map(|slot| self.folder.join(format!("member{slot}.img"))).collect()
    }

    fn members(&self) -> Vec<Member> {
        self.paths().into_iter().map(Member::Path).collect()
    }

    /// Makes the members.
    pub async fn create(&self) -> Result<(), Failure> {
        let mut options = CreateOptions::new(self.members(), CreateLevel::Raid6);
        options.member_bytes = Some(self.member_bytes);
        options.name = Some("demo".to_owned());
        let bar = self.context.report.percent("making the members");
        let mut on_progress = |_, progress: &CreateProgress| {
            bar.scale(progress.done, progress.total);
        };
        let created = stack::create::create(&options, &mut on_progress).await?;
        drop(bar);
        self.context.report.line(format!(
            "   6 members of {}, a volume of {}, tags of all blocks written, clean and in sync",
            crate::report::human(self.member_bytes),
            crate::report::human(Sector(created.sectors).bytes())
        ));
        Ok(())
    }

    /// Opens the volume; what happens to it is counted, and told with `-v`.
    pub async fn open(&self, read_only: bool) -> Result<Volume, Failure> {
        let mut options = OpenOptions::read_only(self.members());
        options.read_only = read_only;
        let context = Rc::clone(&self.context);
        options.on_event = Rc::new(move |event| context.report.detail(event.to_string()));
        Ok(stack::open(&options).await?)
    }

    /// Serves `volume` over NBD while `client` works with it through an NBD connection of its own;
    /// then closes it. How many sectors were healed meanwhile.
    pub async fn serve<F>(&self, volume: Volume, client: F) -> Result<u64, Failure>
    where
        F: AsyncFnOnce(Device) -> Result<(), Failure>,
    {
        let socket = self.folder.join("volume.sock");
        let server = Server::bind(&Address::Unix(socket))
            .map_err(|error| Failure::new(Outcome::Failed, error.to_string()))?;
        let uri = server.uri("");
        self.context.report.line(format!("   serving {uri}"));
        let stop = Rc::new(Notify::default());
        let stopped = {
            let stop = Rc::clone(&stop);
            async move { stop.notified().await }
        };
        let server = runtime::spawn(server.run(volume.device(), Export::default(), stopped));
        // The server waits for the notification before anybody can give it.
        runtime::yield_now().await;
        let result = self.connect(uri, client).await;
        stop.notify_all();
        let flushed = server.await;
        let healed = volume.status().members.iter().map(|m| m.counters.healed_sectors).sum();
        let flushed = flushed.map_err(|error| {
            Failure::new(Outcome::Failed, format!("the server's last flush failed: {error}"))
        });
        close(volume, result.and(flushed).map(|()| healed)).await
    }

    async fn connect<F>(&self, uri: nbd::Uri, client: F) -> Result<(), Failure>
    where
        F: AsyncFnOnce(Device) -> Result<(), Failure>,
    {
        let options = OpenOptions::writable(Vec::new());
        let remote = stack::open_stack(&Node::Member(Member::Nbd(uri)), &options).await?;
        let result = client(remote.device()).await;
        close(remote, result).await
    }

    /// Flips bit `bit` of byte `byte` of the member in `slot`.
    pub fn flip(&self, slot: usize, byte: u64, bit: u32) -> Result<(), Failure> {
        let path = &self.paths()[slot];
        let failed = |error| Failure::io(path.display(), &error);
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let mut found = [0];
        file.read_exact_at(&mut found, byte).map_err(failed)?;
        file.write_all_at(&[found[0] ^ (1 << bit)], byte).map_err(failed)
    }

    /// Writes the ranges (byte, bytes) of the sample into the volume again.
    pub async fn restore(&self, sample: &Sample, ranges: &[(u64, u64)]) -> Result<(), Failure> {
        let volume = self.open(false).await?;
        let device = volume.device();
        let result = async {
            for &(byte, bytes) in ranges {
                let mut content = Buf::zeroed(usize_of(bytes));
                let length = usize_of(bytes.min(sample.bytes.saturating_sub(byte)));
                let read = sample.open().and_then(|file| {
                    let content = &mut content.as_mut_slice()[..length];
                    file.read_exact_at(content, byte).map_err(|e| Failure::io("sample", &e))
                });
                read?;
                let written = device.write(Sector(byte / SECTOR), content).await;
                written.map_err(|e| Failure::new(Outcome::Failed, format!("rewriting: {e}")))?;
            }
            Ok(())
        };
        let result = result.await;
        close(volume, result).await
    }
}
