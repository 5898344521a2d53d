//! What another program writes to standard input, for the protocols that docker and the kubelet speak.

use std::{
    io::{self, Read},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};
use zeroize::Zeroizing;

/// How long the writer may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
const LARGEST: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("standard input did not end within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    #[error("standard input is larger than the limit of {LARGEST} bytes")]
    TooLarge,
    #[error("cannot read standard input: {0}")]
    Read(#[source] io::Error),
    #[error("cannot start a thread to read standard input: {0}")]
    Thread(#[source] io::Error),
}

/// Standard input to its end, which its writer may never close. The thread that reads is not waited for when the process
/// exits.
pub(super) async fn read() -> Result<Zeroizing<String>, InputError> {
    let (sender, receiver) = oneshot::channel();
    let reader = thread::Builder::new().name("standard-input".into());
    let started = reader.spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let read = io::stdin().take(LARGEST + 1).read_to_string(&mut text);
        let _ = sender.send(read.map(|length| (length as u64, text))); // the receiver may be gone
    });
    started.map_err(InputError::Thread)?;
    match timeout(TIME_LIMIT, receiver).await {
        Ok(Ok(Ok((length, text)))) if length <= LARGEST => Ok(text),
        Ok(Ok(Ok(_))) => Err(InputError::TooLarge),
        Ok(Ok(Err(error))) => Err(InputError::Read(error)),
        Ok(Err(_)) | Err(_) => Err(InputError::TimedOut),
    }
}
