//! How a running server is asked: a control socket for each served volume.
//!
//! A served volume's members are locked, so `status`, `scrub`, `add`, `replace`, `fail`, `remove` and
//! `rebuild` ask the server instead. It listens
//! on a Unix socket (mode 0600, in a directory of the user's own), which is found by any of its
//! members: a symbolic link named after the member's device and inode number points to it.
//!
//! One JSON object per line. The request: `{"verb":"status"}`, `{"verb":"scrub","mode":"check"}`,
//! `{"verb":"add","new":"/dev/sdx","yes":false}`.
//! The answer: any number of `{"progress":{...}}`, then `{"result":{...},"exit_code":N}` or
//! `{"error":"...","exit_code":N}`.
//!
//! Whoever asked has left when his side of the connection is closed. What is done for his eyes only ends then
//! (a scrub, which keeps its position and still answers, if somebody listens); a change of the members is
//! carried through.

use crate::commands::Context;
use crate::error::Failure;
use bio::Buf;
use runtime::{Listener, Stream};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::rc::Rc;

/// The longest request line that is read.
const REQUEST_BYTES_MAX: usize = 4096;
/// The longest line of an answer: a scrub lists at most a thousand findings.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The directory of this user's control sockets.
fn directory() -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if uid == 0 => PathBuf::from("/run/steadfast"),
        Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("steadfast"),
        _ => std::env::temp_dir().join(format!("steadfast-{uid}")),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    // Somebody else's directory of that name could hold sockets that lie.
    if fs::symlink_metadata(&directory)?.uid() != uid {
        let text = format!("{} belongs to somebody else", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(directory)
}

/// The name by which a member's server is found.
fn key(member: &str) -> String {
    match fs::metadata(member) {
        Ok(metadata) if metadata.rdev() != 0 => format!("device-{:x}", metadata.rdev()),
        Ok(metadata) => format!("{:x}-{:x}", metadata.dev(), metadata.ino()),
        Err(_) => {
            let mut hasher = DefaultHasher::new();
            member.hash(&mut hasher);
            format!("name-{:x}", hasher.finish())
        }
    }
}

/// The server's end.
pub struct Control {
    listener: Listener,
}

/// What makes a server findable: the socket, and the links to it. Gone when dropped.
pub struct Files(Vec<PathBuf>);

impl Drop for Files {
    fn drop(&mut self) {
        for file in self.0.iter().rev() {
            // A link that a later server has replaced is still removed by name at worst: then that
            // server is found by its other members only.
            let _gone = fs::remove_file(file);
        }
    }
}

impl Control {
    /// Listens for the volume that these members make, as long as the files are there.
    pub fn bind(members: &[String]) -> io::Result<(Self, Files)> {
        let directory = directory()?;
        let socket = directory.join(format!("{}.sock", std::process::id()));
        let _stale = fs::remove_file(&socket);
        let listener = Listener::bind_unix(&socket)?;
        let mut files = Files(vec![socket.clone()]);
        for member in members {
            let link = directory.join(key(member));
            let _stale = fs::remove_file(&link);
            symlink(&socket, &link)?;
            files.0.push(link);
        }
        Ok((Self { listener }, files))
    }

    /// Answers requests with `answer`, which is given the request and a way to tell progress. Ends
    /// never: the task is dropped with the server.
    pub async fn run<F>(self, answer: impl Fn(Value, Teller) -> F + 'static)
    where
        F: Future<Output = Value> + 'static,
    {
        let answer = Rc::new(answer);
        loop {
            let Ok(stream) = self.listener.accept().await else {
                runtime::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let answer = Rc::clone(&answer);
            drop(runtime::spawn(async move {
                let stream = Rc::new(stream);
                if let Some(request) = receive(&stream).await {
                    let teller = Teller { stream: Rc::clone(&stream), left: Rc::default() };
                    drop(runtime::spawn(watch(teller.clone())));
                    let result = answer(request, teller).await;
                    // Whoever asked and left needs no answer.
                    let _left = send(&stream, &result).await;
                }
            }));
        }
    }
}

/// Tells whoever asked how far it is.
#[derive(Clone)]
pub struct Teller {
    stream: Rc<Stream>,
    left: Rc<Cell<bool>>,
}

impl Teller {
    /// Whether whoever asked has left.
    pub fn has_left(&self) -> bool {
        self.left.get()
    }

    /// `done` of `total`.
    pub async fn progress(&self, done: u64, total: u64) {
        let line = json!({"progress": {"done": done, "total": total}});
        let _left = send(&self.stream, &line).await;
    }
}

/// Notices when whoever asked leaves. What else he says is not listened to.
async fn watch(teller: Teller) {
    while let (Ok(1..), _) = teller.stream.recv(Buf::alloc(64)).await {}
    teller.left.set(true);
}

async fn send(stream: &Stream, value: &Value) -> io::Result<()> {
    stream.send_all(Buf::copy_of(format!("{value}\n").as_bytes())).await
}

async fn receive(stream: &Stream) -> Option<Value> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let (received, buf) = stream.recv(Buf::alloc(REQUEST_BYTES_MAX)).await;
        let length = received.ok().filter(|&length| length > 0)?;
        line.extend_from_slice(&buf.as_slice()[..length]);
        if line.len() > REQUEST_BYTES_MAX {
            return None;
        }
    }
    serde_json::from_slice(&line).ok()
}

/// Asks the server of the volume that `members` make. None: there is none.
pub fn ask(
    context: &Context,
    members: &[String],
    request: &Value,
    on_progress: impl FnMut(u64, u64) + 'static,
) -> Result<Option<Value>, Failure> {
    asked(context, members, request, false, on_progress)
}

/// The same of a request that ends when whoever asked leaves: after SIGINT or SIGTERM the answer says how far
/// it came.
pub fn ask_and_stop(
    context: &Context,
    members: &[String],
    request: &Value,
    on_progress: impl FnMut(u64, u64) + 'static,
) -> Result<Option<Value>, Failure> {
    asked(context, members, request, true, on_progress)
}

fn asked(
    context: &Context,
    members: &[String],
    request: &Value,
    stops: bool,
    on_progress: impl FnMut(u64, u64) + 'static,
) -> Result<Option<Value>, Failure> {
    let Ok(directory) = directory() else { return Ok(None) };
    let paths: Vec<PathBuf> = members.iter().map(|member| directory.join(key(member))).collect();
    let (line, interrupted) = (format!("{request}\n"), stops.then(|| context.until_interrupted()));
    context.block_on(async move {
        let mut found = None;
        for path in paths {
            found = Stream::connect_unix(&path).await.ok();
            if found.is_some() {
                break;
            }
        }
        let Some(stream) = found.map(Rc::new) else { return Ok(None) };
        if let Some(interrupted) = interrupted {
            let asked = Rc::clone(&stream);
            drop(runtime::spawn(async move {
                interrupted.await;
                // If it is gone already, so is the server.
                let _gone = asked.shutdown_send();
            }));
        }
        let answer = converse(&stream, &line, on_progress).await;
        answer.map(Some).map_err(|error| Failure::io("the volume's server does not answer", &error))
    })
}

async fn converse(
    stream: &Stream,
    request: &str,
    mut on_progress: impl FnMut(u64, u64),
) -> io::Result<Value> {
    stream.send_all(Buf::copy_of(request.as_bytes())).await?;
    let mut received = Vec::new();
    while received.len() < ANSWER_BYTES_MAX {
        let (length, buf) = stream.recv(Buf::alloc(1 << 16)).await;
        let length = length?;
        if length == 0 {
            break;
        }
        received.extend_from_slice(&buf.as_slice()[..length]);
        while let Some(end) = received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            if let Some(answer) = heard(&line, &mut on_progress)? {
                return Ok(answer);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
}

/// What a line of an answer is: the answer, or progress.
fn heard(line: &[u8], on_progress: &mut impl FnMut(u64, u64)) -> io::Result<Option<Value>> {
    let value: Value = serde_json::from_slice(line)?;
    let progress = &value["progress"];
    if progress.is_null() {
        return Ok(Some(value));
    }
    on_progress(progress["done"].as_u64().unwrap_or(0), progress["total"].as_u64().unwrap_or(0));
    Ok(None)
}
