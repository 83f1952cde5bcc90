//! qemu's monitor (QMP): disks come and go while the guest runs.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The monitor of one machine.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
    /// Devices that are gone.
    deleted: Vec<String>,
}

impl Monitor {
    /// # Errors
    /// If nobody answers.
    pub(crate) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut monitor = Self { stream: BufReader::new(stream), deleted: Vec::new() };
        monitor.message().context("qemu's greeting")?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Puts `image` into the logical unit `unit`.
    ///
    /// # Errors
    /// If qemu refuses.
    pub(crate) fn attach(&mut self, unit: usize, image: &Path) -> anyhow::Result<()> {
        let node = format!("image{unit}");
        self.execute(
            "blockdev-add",
            &json!({"driver": "raw", "node-name": node, "discard": "unmap",
                // What the guest flushes outlives the guest, not the host: the host's cache does.
                "cache": {"direct": false, "no-flush": true},
                "file": {"driver": "file", "filename": image, "discard": "unmap"}}),
        )?;
        self.execute(
            "device_add",
            &json!({"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": 0, "lun": unit,
                "id": format!("disk{unit}"), "drive": node}),
        )?;
        Ok(())
    }

    /// Takes out what is in the logical unit; the guest has been told before.
    ///
    /// # Errors
    /// If it does not go.
    pub(crate) fn detach(&mut self, unit: usize) -> anyhow::Result<()> {
        let disk = format!("disk{unit}");
        self.execute("device_del", &json!({"id": disk}))?;
        while !self.deleted.contains(&disk) {
            self.message().context("the disk does not go")?;
        }
        self.deleted.retain(|gone| *gone != disk);
        self.execute("blockdev-del", &json!({"node-name": format!("image{unit}")}))?;
        Ok(())
    }

    /// Lets a debugger connect to `socket`, which stops the machine then.
    ///
    /// # Errors
    /// If nobody answers.
    pub(crate) fn debug(&mut self, socket: &str) -> anyhow::Result<()> {
        let line = format!("gdbserver unix:{socket},server=on,wait=off");
        self.execute("human-monitor-command", &json!({"command-line": line}))
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<()> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{request}").context("qemu's monitor")?;
        loop {
            let message = self.message().with_context(|| command.to_owned())?;
            if let Some(error) = message.get("error") {
                bail!("qemu: {command}: {}", error["desc"]);
            }
            if message.get("return").is_some() {
                return Ok(());
            }
        }
    }

    fn message(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("qemu is gone");
        }
        let message: Value = serde_json::from_str(&line)?;
        if message["event"] == "DEVICE_DELETED"
            && let Some(device) = message["data"]["device"].as_str()
        {
            self.deleted.push(device.to_owned());
        }
        Ok(message)
    }
}

const ANSWER_MAX: Duration = Duration::from_secs(60);
