//! Log lines on their way to standard error: a bounded queue, which a thread of its own empties.
//!
//! Whoever reads standard error may stop reading. Writing there then waits for ever, so nothing but the thread does:
//! * a line never waits: what finds the queue full is dropped and counted (`a_full_queue_drops_and_counts`);
//! * once the reader is back, the number of dropped lines is logged (`drops_are_reported_when_the_reader_is_back`);
//! * the end of the process waits for the queue for a bounded time ([`LogQueue::flush`]).
//!
//! Held end to end by `a_log_that_no_process_reads_stops_nothing` (`tests/process/log.rs`).

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::tasks::locked;

/// The most that waits to be written, in bytes.
const LIMIT: usize = 256 << 10;
/// How long a pipe that does not block is left alone when it is full.
const PAUSE: Duration = Duration::from_millis(20);
/// The thread formats at most a line.
const STACK: usize = 256 << 10;

pub(crate) static LOG: LogQueue = LogQueue::new(LIMIT);

pub(crate) struct LogQueue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

struct State {
    lines: VecDeque<Box<[u8]>>,
    /// Bytes of `lines`, and of the line that is being written.
    bytes: usize,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// The caller of [`LogQueue::push`].
    Caller,
    /// A thread, from the first line on.
    ThreadOnDemand,
    Thread,
}

impl LogQueue {
    const fn new(limit: usize) -> Self {
        let state = State { lines: VecDeque::new(), bytes: 0, writer: Writer::Caller };
        Self { limit, state: Mutex::new(state), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// Has a thread write the lines from now on; it starts with the first one. Before this call, and where no thread
    /// can be started, lines are written where they arise.
    pub(crate) fn start(&'static self) {
        let mut state = locked(&self.state);
        if state.writer == Writer::Caller {
            state.writer = Writer::ThreadOnDemand;
        }
    }

    /// Queues one line, its end included. Never waits for a reader.
    pub(crate) fn push(&'static self, line: &[u8]) {
        let mut state = locked(&self.state);
        if state.writer == Writer::ThreadOnDemand {
            let thread = thread::Builder::new().name("log".into()).stack_size(STACK);
            let started = thread.spawn(|| self.write_all_to(io::stderr(), report_dropped));
            state.writer = if started.is_ok() { Writer::Thread } else { Writer::Caller };
        }
        if state.writer == Writer::Caller {
            drop(state);
            let _ = io::stderr().write_all(line); // there is no other place to report it
            return;
        }
        if state.bytes + line.len() > self.limit {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until everything is written, for no longer than `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let state = locked(&self.state);
        let _ = self.changed.wait_timeout_while(state, limit, |state| state.bytes > 0);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes lines as they come, for ever. `report` gets the number of dropped lines when a write succeeds after it
    /// has grown.
    fn write_all_to(&self, mut out: impl Write, report: impl Fn(u64)) {
        let mut reported = 0;
        loop {
            let line = self.next();
            let written = write(&mut out, &line);
            locked(&self.state).bytes -= line.len();
            self.changed.notify_all();
            let dropped = self.dropped();
            // The report takes a place in the queue like any line.
            let has_room = locked(&self.state).bytes <= self.limit / 2;
            match written {
                Ok(()) if dropped > reported && has_room => {
                    report(dropped - reported);
                    reported = dropped;
                }
                Ok(()) => {}
                Err(_) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn next(&self) -> Box<[u8]> {
        let mut state = locked(&self.state);
        loop {
            if let Some(line) = state.lines.pop_front() {
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn report_dropped(lines: u64) {
    tracing::warn!(lines, "log lines dropped: standard error was not read");
}

/// Writes all of the line, also where standard error is a pipe that does not block.
fn write(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A line as the formatter writes it, whole.
pub(crate) struct Line(pub &'static LogQueue);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::mpsc};

    use super::*;

    fn queue(limit: usize) -> &'static LogQueue {
        let queue = Box::leak(Box::new(LogQueue::new(limit)));
        locked(&queue.state).writer = Writer::Thread;
        queue
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let queue = queue(10);
        for line in ["12345\n", "6789", "x", "", "y\n"] {
            queue.push(line.as_bytes());
        }
        assert_eq!(queue.dropped(), 2);
        assert_eq!(locked(&queue.state).lines.len(), 3);
        queue.flush(Duration::ZERO); // nothing writes: it returns all the same
    }

    #[test]
    fn drops_are_reported_when_the_reader_is_back() {
        let queue = queue(32 << 10);
        let (mut reader, writer) = io::pipe().unwrap();
        let (sender, reports) = mpsc::channel();
        // More than the pipe and the queue hold together.
        let line = [b'x'; 1 << 10];
        thread::spawn(move || queue.write_all_to(writer, |lines| sender.send(lines).unwrap()));
        while queue.dropped() == 0 {
            queue.push(&line);
            thread::yield_now();
        }
        let dropped = queue.dropped();
        let mut text = [0; 1 << 10];
        for _ in 0..32 {
            reader.read_exact(&mut text).unwrap();
        }
        assert_eq!(reports.recv(), Ok(dropped));
    }

    #[test]
    fn what_was_pushed_is_written_in_order_and_flushed() {
        let queue = queue(1 << 10);
        let (mut reader, writer) = io::pipe().unwrap();
        thread::spawn(move || queue.write_all_to(writer, |_| {}));
        (0..100).for_each(|number| queue.push(format!("{number:02}\n").as_bytes()));
        queue.flush(Duration::from_secs(60));
        let mut text = [0; 300];
        reader.read_exact(&mut text).unwrap();
        let expected: String = (0..100).map(|number| format!("{number:02}\n")).collect();
        assert_eq!(str::from_utf8(&text), Ok(expected.as_str()));
    }
}
