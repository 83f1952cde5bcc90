//! The program under test, and clients of its server.

use crate::disks::Disks;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    command: String,
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Said {
    /// # Errors
    /// If it ended otherwise, with all that it said.
    pub(crate) fn ended(self, code: i32) -> anyhow::Result<Self> {
        self.ended_within(&[code])
    }

    /// # Errors
    /// If it ended with none of these, with all that it said.
    pub(crate) fn ended_within(self, codes: &[i32]) -> anyhow::Result<Self> {
        if !self.code.is_some_and(|code| codes.contains(&code)) {
            let Self { command, code, stdout, stderr } = self;
            let stdout = String::from_utf8_lossy(&stdout);
            bail!("{command}: exit code {code:?}, expected one of {codes:?}\n{stderr}\n{stdout}");
        }
        Ok(self)
    }

    /// # Errors
    /// If standard output is not one object.
    pub(crate) fn object(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("{}: JSON", self.command))
    }
}

/// Where the program is.
pub(crate) struct Program(pub(crate) PathBuf);

impl Program {
    /// Runs `steadfast VERB ARGUMENTS` to its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn run<'a>(
        &self,
        verb: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Said> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TIME_MAX]).arg(&self.0).arg(verb);
        finish(command.args(arguments))
    }

    /// Serves `members` on a socket in `folder`, and is ready.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn serve(&self, members: &Disks, folder: &Path) -> anyhow::Result<Server> {
        self.serve_with(members, folder, &[])
    }

    /// The same with more options.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn serve_with(
        &self,
        members: &Disks,
        folder: &Path,
        options: &[&str],
    ) -> anyhow::Result<Server> {
        let address = format!("unix:{}", folder.join("nbd.sock").display());
        Server::start(&self.0, members, &address, options)
    }

    /// Serves `members` where the guest's network finds it.
    ///
    /// # Errors
    /// If it cannot.
    pub(crate) fn serve_to_guest(&self, members: &Disks) -> anyhow::Result<Server> {
        Server::start(&self.0, members, "tcp:127.0.0.1:0", &[])
    }
}

/// Runs a command to its end.
fn finish(command: &mut Command) -> anyhow::Result<Said> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Said { command: shown, code: output.status.code(), stdout: output.stdout, stderr })
}

/// A running `steadfast serve`, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) uri: String,
}

impl Server {
    fn start(
        program: &Path,
        members: &Disks,
        address: &str,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        // However we end, it ends with us.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.arg("serve").args(members.opening()).args(["--nbd", address]).args(options);
        let shown = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown.clone())?;
        let stdout = child.stdout.take().context("its standard output")?;
        let mut server = Self { child, uri: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let uri = line.strip_prefix("ready ").with_context(|| format!("{shown}: not ready"))?;
        server.uri = uri.trim_end().to_owned();
        Ok(server)
    }

    /// Lets a client run commands, in one connection; `cache` is qemu's word for when it flushes.
    ///
    /// # Errors
    /// If one of them fails.
    pub(crate) fn qemu_io(&self, commands: &[String], cache: &str) -> anyhow::Result<()> {
        let mut command = Command::new("timeout");
        command.args([TIME_MAX, "qemu-io", "-f", "raw", "-t", cache]);
        commands.iter().for_each(|text| {
            command.args(["-c", text]);
        });
        let said = finish(command.arg(&self.uri))?;
        // Older ones end well whatever happened.
        let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), said.stderr);
        let fine = said.code == Some(0) && !text.contains("failed") && !text.contains("rror");
        ensure!(fine, "{}: {text}", said.command);
        Ok(())
    }

    /// Lets a client begin such commands, in one connection, and does not wait for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn begin_qemu_io(&self, commands: &[String], cache: &str) -> anyhow::Result<Client> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-io", "-f", "raw", "-t", cache]);
        commands.iter().for_each(|text| {
            command.args(["-c", text]);
        });
        command.arg(&self.uri).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Client(command.spawn().context("qemu-io")?))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it was gone already.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the server ended by itself");
        self.child.kill().context("kill the server")?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as a person does.
    ///
    /// # Errors
    /// If it does not end well.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop_within(&[0])
    }

    /// The same, with one of these codes.
    ///
    /// # Errors
    /// If it ends with another.
    pub(crate) fn stop_within(mut self, codes: &[i32]) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("a process")?, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        let fine = status.code().is_some_and(|code| codes.contains(&code));
        ensure!(fine, "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever stopped it has waited for it.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A client at work, killed when this is dropped.
pub(crate) struct Client(Child);

impl Client {
    /// # Errors
    /// If it has come to its end.
    pub(crate) fn must_be_at_work(&mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the client ended by itself");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Whoever lost its server has ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Seconds that a command may take.
const TIME_MAX: &str = "120";
