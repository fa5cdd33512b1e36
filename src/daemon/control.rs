//! The daemon's control socket.
//!
//! One request per connection, one line: `sync` (the kernel has forgotten every name that changed before: `ok`), `stats` (request
//! counters, then end of file), `users` (who works inside or has a part mounted elsewhere, a JSON object per line),
//! `hold` (a blob on each of the next lines, then an empty one: held open from `ok` until the asker hangs up), `freed` (what was held
//! has been freed: `ok`),
//! `share VOLUME` (the kernel has forgotten what it kept of it, others may change its data: `ok`), `stop` (unmount and end: `ok`),
//! `replace PROGRAM` (the daemon ends, and one that runs that program goes on: `ok`). Anything else gets `error: ...`. Only the daemon's own user and root may ask: the directory is closed to
//! others, and so is the socket; whoever comes all the same is hung up on.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::SocketFlags;

use crate::oci::Digest;
use crate::store::VolumeId;
use crate::store::freeing::HeldFiles;
use crate::sys::local_socket::{is_ours, listen_at};

/// A request is a word or two, the second perhaps a path; a line longer than this is none.
const MAX_LINE: u64 = 4200;
/// A list of blobs is no longer than this.
const MAX_LIST: u64 = 1 << 16;
/// So long files are held for somebody who neither goes on nor ends.
const MOST_HELD: Duration = Duration::from_secs(60);
/// Whoever connects and says nothing, or does not read the answer, is hung up on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before a connection is taken again that could not be: descriptors may be had again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// What requests ask for; called from a thread per request.
pub(super) trait Handler: Send + Sync + 'static {
    fn sync(&self) -> Result<(), String>;
    fn stats(&self) -> String;
    /// Who uses the mount, for other processes' eyes.
    fn users(&self) -> String;
    /// Others are to get at the data of a volume: returns when the kernel has forgotten what it kept of it.
    fn share(&self, volume: &VolumeId) -> Result<(), String>;
    /// Holds the files of blobs and layers that are about to be unlinked.
    fn hold(&self, blobs: &[Digest]) -> HeldFiles;
    /// Whether all that was held has been freed.
    fn freed(&self) -> bool;
    /// The next server runs `program`, and follows at once; why not, if it cannot.
    fn replace(&self, program: &Path) -> Result<(), String>;
    fn stop(&self);
}

/// The listening socket.
#[derive(Debug)]
pub(super) struct Control(UnixListener);

impl Control {
    /// Listens at `path`, however long it is: the address goes through a descriptor of the directory.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let socket = listen_at(path, SocketFlags::NONBLOCK)?;
        Ok(Control(UnixListener::from(socket)))
    }

    /// Takes every connection that waits.
    pub(super) fn accept(&self, handler: &Arc<impl Handler>) {
        loop {
            let stream = match self.0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One connection, or a shortage: poll calls again at once.
                Err(error) => {
                    log::debug!("control socket: {error}");
                    thread::sleep(SHORTAGE_PAUSE);
                    return;
                }
            };
            if !is_ours(&stream) {
                log::warn!("control socket: somebody else has asked, and gets no answer");
                continue;
            }
            let handler = Arc::clone(handler);
            let thread = thread::Builder::new()
                .name("mica-control".to_owned())
                .stack_size(512 * 1024)
                .spawn(move || {
                    if let Err(error) = answer(&stream, &*handler) {
                        log::debug!("control socket: {error}");
                    }
                });
            if let Err(error) = thread {
                log::warn!("control socket: {error}");
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn answer(stream: &UnixStream, handler: &impl Handler) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    let mut asked = BufReader::new(stream.take(MAX_LINE));
    asked.read_line(&mut line)?;
    let text = match line.trim() {
        "hold" => {
            asked.get_mut().set_limit(MAX_LIST);
            return hold(stream, asked, handler);
        }
        "freed" => match handler.freed() {
            true => "ok\n".to_owned(),
            false => "error: not yet\n".to_owned(),
        },
        "sync" => match handler.sync() {
            Ok(()) => "ok\n".to_owned(),
            Err(error) => format!("error: {error}\n"),
        },
        "stats" => handler.stats(),
        "users" => handler.users(),
        "stop" => {
            handler.stop();
            "ok\n".to_owned()
        }
        line if line.starts_with("replace /") => {
            let program = line.trim_start_matches("replace ");
            match handler.replace(Path::new(program)) {
                Ok(()) => "ok\n".to_owned(),
                Err(error) => format!("error: {error}\n"),
            }
        }
        line => match line.strip_prefix("share ").and_then(VolumeId::parse) {
            Some(volume) => match handler.share(&volume) {
                Ok(()) => "ok\n".to_owned(),
                Err(error) => format!("error: {error}\n"),
            },
            None => "error: unknown request\n".to_owned(),
        },
    };
    let mut stream = stream;
    stream.write_all(text.as_bytes())
}

fn hold(mut stream: &UnixStream, asked: impl BufRead, handler: &impl Handler) -> io::Result<()> {
    let mut blobs = Vec::new();
    for line in asked.lines() {
        match line? {
            line if line.is_empty() => break,
            line => match Digest::from_hex(&line) {
                Ok(blob) => blobs.push(blob),
                Err(_) => return stream.write_all(b"error: not a blob\n"),
            },
        }
    }
    let _held = handler.hold(&blobs);
    stream.write_all(b"ok\n")?;
    stream.set_read_timeout(Some(MOST_HELD))?;
    // Whatever the end is like: done, killed, too late.
    let _ = stream.read(&mut [0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::store::Layout;
    use crate::store::freeing::Freeing;

    #[derive(Default)]
    struct Counting(AtomicUsize, Arc<Freeing>);

    impl Handler for Counting {
        fn sync(&self) -> Result<(), String> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(()),
                _ => Err("again".to_owned()),
            }
        }
        fn stats(&self) -> String {
            "lookup 1\n".to_owned()
        }
        fn users(&self) -> String {
            "{}\n".to_owned()
        }
        fn share(&self, _: &VolumeId) -> Result<(), String> {
            Err("not now".to_owned())
        }
        fn hold(&self, blobs: &[Digest]) -> HeldFiles {
            self.0.fetch_add(blobs.len(), Ordering::SeqCst);
            self.1
                .hold_blobs(&Layout::new("/nonexistent".into()), blobs)
        }
        fn freed(&self) -> bool {
            self.1.wait(Duration::ZERO)
        }
        fn replace(&self, program: &Path) -> Result<(), String> {
            Err(format!("not {}", program.display()))
        }
        fn stop(&self) {
            self.0.store(100, Ordering::SeqCst);
        }
    }

    #[test]
    fn requests_are_answered_at_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let control = Control::listen(&deep.join("c.sock")).unwrap();
        let handler = Arc::new(Counting::default());
        let ask = |request: &str| {
            let link = tempfile::tempdir().unwrap();
            let short = link.path().join("s");
            std::os::unix::fs::symlink(&deep, &short).unwrap();
            let mut stream = UnixStream::connect(short.join("c.sock")).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            control.accept(&handler);
            let mut text = Vec::new();
            // A request that is not read to its end is hung up on with a reset, after the answer.
            let _ = stream.read_to_end(&mut text);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(ask("sync\n"), "ok\n");
        assert_eq!(ask("sync\n"), "error: again\n");
        assert_eq!(ask("stats\n"), "lookup 1\n");
        assert_eq!(ask("users\n"), "{}\n");
        let volume = "0123456789abcdef0123456789abcdef";
        assert_eq!(ask(&format!("share {volume}\n")), "error: not now\n");
        assert_eq!(ask("share ../x\n"), "error: unknown request\n");
        assert_eq!(ask("replace /a b\n"), "error: not /a b\n");
        assert!(ask("nonsense\n").starts_with("error: "));
        assert!(ask(&"x".repeat(10_000)).starts_with("error: "));
        assert_eq!(ask("freed\n"), "ok\n");
        let before = handler.0.load(Ordering::SeqCst);
        let blob = Digest::of(b"1").hex();
        assert_eq!(ask(&format!("hold\n{blob}\n{blob}\n\n")), "ok\n");
        assert_eq!(handler.0.load(Ordering::SeqCst), before + 2);
        assert_eq!(ask("hold\n../x\n"), "error: not a blob\n");
        assert_eq!(ask("stop\n"), "ok\n");
        assert_eq!(handler.0.load(Ordering::SeqCst), 100);
    }
}
