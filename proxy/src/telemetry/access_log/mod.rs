//! One line for each request, and for each connection that carries bytes, on standard output. Off unless it was asked for.
//!
//! ```text
//!   worker ─┐
//!   worker ─┼─▶ a line, whole ──▶ waiting (1 MiB at most; beyond that lines are dropped and counted)
//!   worker ─┘                        └──▶ writer thread ──▶ standard output
//! ```
//!
//! No worker ever waits for whoever reads the log: the lock is held while bytes are copied, never while they are written.

mod record;

use std::{
    io::Write,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

pub use record::Record;

use super::value::Counter;

/// Bytes of lines that may wait.
const MOST: usize = 1 << 20;
/// How long the writer lets lines gather once there is one, so that many are written at once.
const GATHER: Duration = Duration::from_millis(10);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `key=value` pairs (logfmt).
    Text,
    /// A JSON object.
    Json,
}

/// Which lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// Those of what failed: see [`Record::is_error`].
    Errors,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How lines are written.
    pub shape: Shape,
    /// Which are.
    pub filter: Filter,
}

/// The log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog {
    options: Options,
    queue: Arc<Queue>,
    /// Lines that were taken.
    pub(super) lines: Counter,
    /// Lines that there was no room for.
    pub(super) dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The writer has taken bytes that it has not written yet.
    writing: bool,
    ended: bool,
}

impl AccessLog {
    /// A log that is written to `out` by a thread of its own.
    ///
    /// # Errors
    /// When there can be no such thread.
    pub fn start(options: Options, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer = Arc::clone(&queue);
        thread::Builder::new().name("access-log".into()).spawn(move || writer.write(out))?;
        Ok(Self { options, queue, lines: Counter::default(), dropped: Counter::default() })
    }

    /// Writes a line, unless it is filtered out. `space` is used for it.
    pub fn log(&self, record: &Record<'_>, space: &mut String) {
        if self.options.filter == Filter::Errors && !record.is_error() {
            return;
        }
        space.clear();
        record.write(self.options.shape, space);
        let mut state = self.queue.lock();
        if state.ended || state.waiting.len() + space.len() > MOST {
            self.dropped.inc();
            return;
        }
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(space.as_bytes());
        drop(state);
        self.lines.inc();
        if first {
            self.queue.changed.notify_all();
        }
    }

    /// Waits until what was logged is written, but not for long: whoever reads the log may be gone.
    pub fn flush(&self, patience: Duration) {
        let state = self.queue.lock();
        let waits = |state: &mut State| !state.ended && (state.writing || !state.waiting.is_empty());
        let _ = self.queue.changed.wait_timeout_while(state, patience, waits);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let state = self.changed.wait_while(self.lock(), |state| state.waiting.is_empty());
            drop(state.unwrap_or_else(PoisonError::into_inner));
            thread::sleep(GATHER);
            {
                let mut state = self.lock();
                std::mem::swap(&mut taken, &mut state.waiting);
                state.writing = true;
            }
            let written = out.write_all(&taken).and_then(|()| out.flush());
            taken.clear();
            // A burst's room is given back.
            taken.shrink_to(MOST / 16);
            let mut state = self.lock();
            state.writing = false;
            state.ended = written.is_err();
            drop(state);
            self.changed.notify_all();
            if let Err(error) = written {
                tracing::warn!(%error, "standard output can't be written to: the access log ends");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands on what is written, once it is let to.
    struct Slow {
        gate: mpsc::Receiver<()>,
        out: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.gate.recv().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            self.out.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(filter: Filter) -> (AccessLog, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let ((open, gate), (out, lines)) = (mpsc::channel(), mpsc::channel());
        let options = Options { shape: Shape::Json, filter };
        (AccessLog::start(options, Slow { gate, out }).expect("a thread"), open, lines)
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_nobody_waits() {
        let (log, open, out) = log(Filter::All);
        let path = "/x".repeat(200);
        let record = Record { path: &path, ..Record::default() };
        let mut space = String::new();
        for _ in 0..10_000 {
            log.log(&record, &mut space);
        }
        assert!(log.dropped.get() > 0);
        assert_eq!(log.lines.get() + log.dropped.get(), 10_000);
        for _ in 0..10 {
            open.send(()).expect("the writer waits");
        }
        log.flush(Duration::from_secs(60));
        let written: Vec<u8> = out.try_iter().flatten().collect();
        assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count() as u64, log.lines.get());
        // There is room again.
        let dropped = log.dropped.get();
        log.log(&record, &mut space);
        assert_eq!(log.dropped.get(), dropped);
    }

    #[test]
    fn what_did_not_fail_is_left_out_if_that_is_wanted() {
        let (log, _open, _out) = log(Filter::Errors);
        let mut space = String::new();
        for (status, count) in [(200, 0), (404, 0), (500, 1), (0, 2)] {
            log.log(&Record { status: Some(status), ..Record::default() }, &mut space);
            assert_eq!(log.lines.get(), count);
        }
    }

    #[test]
    fn an_output_that_is_closed_ends_the_log_and_nothing_else() {
        let (log, open, out) = log(Filter::All);
        drop((open, out));
        let mut space = String::new();
        log.log(&Record::default(), &mut space);
        log.flush(Duration::from_secs(60));
        log.log(&Record::default(), &mut space);
        assert_eq!((log.lines.get(), log.dropped.get()), (1, 1));
    }
}
