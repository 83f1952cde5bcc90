//! A running `steadfast serve`.

use super::{Said, program, text};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Output, Stdio};

/// A server, killed when dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    command: String,
    errors: PathBuf,
    /// Where clients find it.
    pub uri: String,
    pub socket: PathBuf,
}

impl Server {
    /// Serves on a socket in `folder`, and is ready.
    pub fn start(members: &[PathBuf], folder: &Path, options: &[&str]) -> Self {
        let socket = folder.join("nbd.sock");
        let errors = folder.join("serve.stderr");
        let file = File::create(&errors).expect("the folder is ours");
        let mut command = program();
        command.arg("serve").args(members).args(["--nbd", &format!("unix:{}", text(&socket))]);
        command.args(options).stdout(Stdio::piped()).stderr(file);
        let text = format!("{command:?}");
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is a pipe");
        let mut server = Self {
            child,
            stdout: BufReader::new(stdout),
            command: text,
            errors,
            uri: String::new(),
            socket,
        };
        let mut line = String::new();
        server.stdout.read_line(&mut line).expect("it can be read");
        match line.strip_prefix("ready ") {
            Some(uri) => server.uri = uri.trim_end().to_owned(),
            None => panic!("not ready: {}{line}", server.stop()),
        }
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.errors).expect("the file is there")
    }

    /// Ends it as a person does.
    pub fn stop(mut self) -> Said {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended already.
        let _gone = kill_process(pid.expect("a process"), Signal::TERM);
        self.end()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        let said = self.end();
        assert_eq!(said.code, -9, "{said}");
    }

    fn end(&mut self) -> Said {
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).expect("it can be read");
        let status = self.child.wait().expect("it is our child");
        let stderr = self.stderr().into_bytes();
        Said::of(self.command.clone(), Output { status, stdout, stderr })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever stopped it has waited for it.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
