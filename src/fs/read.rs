//! The one reader of files that come from outside: keys, tokens, profiles, the CA bundle, the configuration.
//!
//! Whoever names such a file, or may write to its volume, can neither stop the program nor fill its memory:
//! * a file is opened without blocking, and read only if it is a regular file: `only_regular_files_are_read`
//! * it has at most `limit` bytes; more is an error, never a cut: `a_file_over_the_limit_is_an_error`
//! * each path has one pending read, on a thread for blocking work, for which no caller waits longer than [`TIME_LIMIT`];
//!   a hung volume costs one thread and the callers that read from it: `a_hung_read_delays_no_other_path`
//!
//! A process ends without waiting for such threads, since `cli` does not drop its runtime.

use std::{
    collections::BTreeMap,
    fs::{File, FileType, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

use crate::{failure::is_file_limit, tasks};

pub const TIME_LIMIT: Duration = Duration::from_secs(5);

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Why a file cannot be read; completes the sentence "cannot read PATH: …".
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is {kind}, not a regular file")]
    NotRegular { kind: &'static str },
    #[error("it is larger than the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("it is not UTF-8 text")]
    NotText,
    /// UTF-16, as editors on Windows write it.
    #[error("it is UTF-16 text, not UTF-8")]
    Utf16,
    #[error("its volume does not respond within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
}

impl ReadError {
    pub fn is_not_found(&self) -> bool {
        self.kind() == Some(io::ErrorKind::NotFound)
    }

    pub fn is_permission_denied(&self) -> bool {
        self.kind() == Some(io::ErrorKind::PermissionDenied)
    }

    pub fn is_file_limit(&self) -> bool {
        matches!(self, Self::Io(error) if is_file_limit(error))
    }

    /// Whether the file is there, and another file or content has to be put there.
    pub fn is_malformed(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::TimedOut)
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        }
    }
}

/// The content of a regular file of at most `limit` bytes, within [`TIME_LIMIT`].
pub async fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let file = path.to_owned();
    within(TIME_LIMIT, path, move || read_now(&file, limit)).await
}

/// The same as UTF-8 text, without a byte order mark.
pub async fn read_text(path: &Path, limit: usize) -> Result<Zeroizing<String>, ReadError> {
    as_text(&read(path, limit).await?)
}

/// The same as [`read`] on the caller's thread and without a time limit.
pub fn read_now(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    // Without a writer, opening a FIFO would wait for one.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    read_open(file, limit)
}

/// The content of an open file, if it is a regular one of at most `limit` bytes.
pub fn read_open(file: File, limit: usize) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular { kind: name_of(metadata.file_type()) });
    }
    let expected = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(limit);
    // Room for the byte that shows the end: a buffer that grows would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(expected + 1));
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit { Err(ReadError::TooLarge { limit }) } else { Ok(content) }
}

pub fn as_text(content: &[u8]) -> Result<Zeroizing<String>, ReadError> {
    if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
        return Err(ReadError::Utf16);
    }
    let text = std::str::from_utf8(content).map_err(|_| ReadError::NotText)?;
    Ok(Zeroizing::new(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).to_owned()))
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Works for `path` off the runtime's thread, for at most `limit`, and as the only one of that path.
pub(crate) async fn within<T: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let slot = slot_of(path);
    let reading = async move {
        let slot = slot.acquire_owned().await.map_err(io::Error::other)?;
        tasks::blocking(move || {
            let _slot = slot; // also when no caller waits any more
            work()
        })
        .await
    };
    timeout(limit, reading).await.unwrap_or(Err(ReadError::TimedOut))
}

/// Held by the one pending read of `path`.
fn slot_of(path: &Path) -> Arc<Semaphore> {
    static SLOTS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());
    let mut slots = tasks::locked(&SLOTS);
    slots.retain(|_, slot| Arc::strong_count(slot) > 1);
    Arc::clone(slots.entry(path.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, sync::mpsc};

    use tokio::sync::oneshot;

    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    fn written(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        #[expect(clippy::disallowed_methods, reason = "a test's own file")]
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let socket = folder.path().join("socket");
        let _listening = UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [folder.path(), &fifo, &link, Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read(path, 10).await.unwrap_err();
            assert!(matches!(error, ReadError::NotRegular { .. }), "{}: {error}", path.display());
        }
        assert!(read(&socket, 10).await.is_err()); // open(2) fails: ENXIO
    }

    #[tokio::test]
    async fn a_file_over_the_limit_is_an_error() {
        let (_folder, path) = written(b"12345");
        assert_eq!(read(&path, 5).await.unwrap().as_slice(), b"12345");
        assert!(matches!(read(&path, 4).await, Err(ReadError::TooLarge { limit: 4 })));
        // Files of /proc have a size of 0.
        assert!(matches!(read(Path::new("/proc/self/status"), 4).await, Err(ReadError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn other_encodings_are_named() {
        for (content, expected) in [
            (&b"\xef\xbb\xbfkey"[..], Ok("key")),
            (b"\xff\xfek\0e\0y\0", Err("UTF-16")),
            (b"\xfe\xff\0k\0e\0y", Err("UTF-16")),
            (b"k\xfc", Err("UTF-8")),
        ] {
            let (_folder, path) = written(content);
            match (read_text(&path, 100).await, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text.as_str(), expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{content:?}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_hung_read_delays_no_other_path() {
        const SHORT: Duration = Duration::from_millis(50);
        let (hung, other) = (Path::new("/hung"), Path::new("/other"));
        let (release, hangs) = mpsc::channel::<()>();
        let (done, waits) = oneshot::channel();
        let first = within(SHORT, hung, move || {
            let _ = hangs.recv();
            let _ = done.send(());
            Ok(1)
        });
        assert!(matches!(first.await, Err(ReadError::TimedOut)));
        let second = within(SHORT, hung, || -> Result<(), _> { panic!("a second thread for one path") });
        assert!(matches!(second.await, Err(ReadError::TimedOut)));
        assert_eq!(within(TIME_LIMIT, other, || Ok(2)).await.unwrap(), 2);
        drop(release);
        waits.await.unwrap();
        assert_eq!(within(TIME_LIMIT, hung, || Ok(3)).await.unwrap(), 3);
    }
}
