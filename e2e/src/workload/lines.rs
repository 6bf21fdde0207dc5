//! A protocol of lines over TCP, that tells a connection that was ended in order from one that was lost.
//!
//! ```text
//!   client                       server
//!   a line            ──▶
//!                     ◀──        its pod's name, a space, the line
//!   bye               ──▶
//!                     ◀──        bye, and the end of its side
//!   lines, unanswered ──▶        counted
//!   the end           ──▶        the connection is over
//!   late              ──▶        (on another connection)
//!                     ◀──        the name, a space, how many lines came after a bye
//! ```
//!
//! A server that is told to stop says bye by itself.

use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{clock, dns::Resolver, report::LinesReport};

const BYE: &str = "bye";
const LATE: &str = "late";
/// How long the client waits for anything; a server's goodbye included.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time for a reset to come back, if somebody has given the connection up.
const RESET_TIME: Duration = Duration::from_millis(100);
const MAX_FAILURES: usize = 20;

/// Serves until `stop` turns true, then goes on for `grace`, then says goodbye and returns when all clients have gone.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    pod: &str,
    grace: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let late = Arc::new(AtomicU64::new(0));
    let (ending, ends) = watch::channel(false);
    // Every connection holds a sender: when the last is gone, `recv` returns.
    let (alive, mut finished) = mpsc::channel::<()>(1);
    let mut over = Box::pin(async move {
        // An error means that nobody can tell any more; then it is over as well.
        let _ = stop.wait_for(|&stop| stop).await;
        sleep(grace).await;
    });
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = &mut over => break,
        };
        stream.set_nodelay(true)?;
        let (pod, late, ends, alive) = (pod.to_owned(), Arc::clone(&late), ends.clone(), alive.clone());
        tokio::spawn(async move {
            // An error here is the client's to notice.
            let _ = answer(stream, &pod, &late, ends).await;
            drop(alive);
        });
    }
    drop(listener);
    drop(alive);
    ending.send_replace(true);
    finished.recv().await;
    Ok(())
}

async fn answer(
    stream: TcpStream,
    pod: &str,
    late: &AtomicU64,
    mut ends: watch::Receiver<bool>,
) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    loop {
        let line = tokio::select! {
            biased;
            line = lines.next_line() => line?,
            _ = ends.wait_for(|&ends| ends) => Some(BYE.to_owned()),
        };
        match line.as_deref() {
            None => return write.shutdown().await,
            Some(BYE) => break,
            Some(LATE) => {
                write.write_all(format!("{pod} {}\n", late.load(Ordering::SeqCst)).as_bytes()).await?;
            }
            Some(line) => write.write_all(format!("{pod} {line}\n").as_bytes()).await?,
        }
    }
    write.write_all(format!("{BYE}\n").as_bytes()).await?;
    write.shutdown().await?;
    while lines.next_line().await?.is_some() {
        late.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// What `testclient lines` does.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Host.
    host: String,
    /// Port.
    port: u16,
    /// Connections that are kept; one that is said goodbye to is opened again at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Milliseconds between two lines of a connection.
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
    /// Connections, at a time, that are opened, say one line, and end.
    #[arg(long, default_value_t = 0)]
    short: usize,
    /// Stop after this many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Stop when standard input ends.
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// Say goodbye after the first line, rather than wait for the server's.
    #[arg(long)]
    goodbye: bool,
}

struct Client {
    address: SocketAddr,
    plan: Plan,
    report: Mutex<LinesReport>,
}

/// Runs the plan until it ends or `stop` turns true.
///
/// # Errors
/// When the name can't be resolved; failed connections are in the report.
pub async fn run(plan: Plan, stop: watch::Receiver<bool>) -> Result<LinesReport> {
    let address = SocketAddr::new(Resolver::system()?.resolve(&plan.host).await?, plan.port);
    let end = plan.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let (connections, short) = (plan.connections, plan.short);
    let client = Arc::new(Client { address, plan, report: Mutex::default() });
    let mut tasks = JoinSet::new();
    for number in 0..connections + short {
        let (client, stop) = (Arc::clone(&client), stop.clone());
        tasks.spawn(async move { client.repeat(number >= connections, end, stop).await });
    }
    tasks.join_all().await;
    Ok(client.noted(|report| report.clone()))
}

impl Client {
    async fn repeat(&self, short: bool, end: Option<Instant>, mut stop: watch::Receiver<bool>) {
        let interval = Duration::from_millis(self.plan.interval_ms);
        let mut over = Box::pin(async move {
            let stopped = async { stop.wait_for(|&stop| stop).await.map(drop) };
            match end {
                Some(end) => drop(timeout(end.saturating_duration_since(Instant::now()), stopped).await),
                None => drop(stopped.await),
            }
        });
        loop {
            let ended = match Conversation::open(self.address).await {
                Ok(conversation) if short => conversation.once(self).await,
                Ok(conversation) => conversation.keep(self, interval, &mut over).await,
                Err(error) => Err(error),
            };
            let again = match ended {
                Ok(again) => again,
                Err(error) => {
                    self.noted(|report| {
                        report.failed += 1;
                        if report.failures.len() < MAX_FAILURES {
                            report.failures.push(format!("{} {error}", clock::wall_us()));
                        }
                    });
                    true
                }
            };
            if !again {
                return;
            }
            // A kept connection is opened again at once, but for a moment that bounds a loop of failures.
            let pause = if short { interval } else { Duration::from_millis(10) };
            tokio::select! {
                () = sleep(pause) => {}
                () = &mut over => return,
            }
        }
    }

    fn noted<T>(&self, note: impl FnOnce(&mut LinesReport) -> T) -> T {
        note(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection, and how many lines it has sent.
struct Conversation {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    sent: u64,
}

enum Said {
    Line,
    Goodbye,
}

impl Conversation {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = patient("connect", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { lines: BufReader::new(read), write, sent: 0 })
    }

    /// One line, then the end; tells that there is more to do.
    async fn once(mut self, client: &Client) -> Result<bool> {
        match self.say(client).await? {
            Said::Line => self.end().await?,
            Said::Goodbye => self.part(client).await?,
        }
        Ok(true)
    }

    /// Lines until the plan is over, or the server says goodbye; tells whether to go on.
    async fn keep(
        mut self,
        client: &Client,
        interval: Duration,
        over: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<bool> {
        loop {
            if let Said::Goodbye = self.say(client).await? {
                self.part(client).await?;
                return Ok(true);
            }
            if client.plan.goodbye {
                self.write.write_all(format!("{BYE}\n").as_bytes()).await?;
                self.goodbye().await?;
                self.part(client).await?;
                return Ok(false);
            }
            let mut early = [0];
            tokio::select! {
                () = sleep(interval) => {}
                () = &mut *over => {
                    self.end().await?;
                    return Ok(false);
                }
                // Nothing but a goodbye comes unasked.
                peeked = self.write.as_ref().peek(&mut early) => {
                    peeked.map_err(|error| context("while idle", &error))?;
                    self.goodbye().await?;
                    self.part(client).await?;
                    return Ok(true);
                }
            }
        }
    }

    async fn say(&mut self, client: &Client) -> Result<Said> {
        let text = format!("line {}", self.sent);
        self.write
            .write_all(format!("{text}\n").as_bytes())
            .await
            .map_err(|error| self.lost("send", &error))?;
        let line = self.line().await.map_err(|error| self.lost("answer", &error))?;
        if line == BYE {
            return Ok(Said::Goodbye);
        }
        let (pod, rest) = line.split_once(' ').unwrap_or_default();
        if rest != text {
            return Err(Error::new(ErrorKind::InvalidData, format!("sent {text:?}, got {line:?}")));
        }
        client.noted(|report| {
            report.opened += u64::from(self.sent == 0);
            report.lines += 1;
            *report.pods.entry(pod.to_owned()).or_default() += 1;
        });
        self.sent += 1;
        Ok(Said::Line)
    }

    async fn goodbye(&mut self) -> Result<()> {
        let line = self.line().await.map_err(|error| self.lost("goodbye", &error))?;
        if line == BYE {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidData, format!("expected a goodbye, got {line:?}")))
    }

    /// After the server's goodbye: its side has ended, and ours still carries lines.
    async fn part(mut self, client: &Client) -> Result<()> {
        self.at_end().await.map_err(|error| context("after the goodbye", &error))?;
        for _ in 0..2 {
            let sent = self.write.write_all(b"after the goodbye\n").await;
            sent.map_err(|error| context("sending after the goodbye", &error))?;
            sleep(RESET_TIME).await;
        }
        self.write.shutdown().await.map_err(|error| context("ending after the goodbye", &error))?;
        client.noted(|report| report.goodbyes += 1);
        Ok(())
    }

    /// Ends our side and waits for the server's end.
    async fn end(mut self) -> Result<()> {
        self.write.shutdown().await?;
        let mut rest = Vec::new();
        patient("the server's end", self.lines.read_to_end(&mut rest)).await?;
        let rest = String::from_utf8_lossy(&rest);
        if rest.is_empty() || rest == format!("{BYE}\n") {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidData, format!("after the end came {rest:?}")))
    }

    async fn at_end(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        patient("the server's end", self.lines.read_to_end(&mut rest)).await?;
        if rest.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::InvalidData, "something came")) }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = patient("an answer", self.lines.read_line(&mut line)).await?;
        if length == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "ended without a goodbye"));
        }
        Ok(line.trim_end().to_owned())
    }

    fn lost(&self, doing: &str, error: &Error) -> Error {
        context(&format!("{doing}, after {} lines", self.sent), error)
    }
}

async fn patient<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(ErrorKind::TimedOut, format!("{what}: nothing within {PATIENCE:?}"));
    timeout(PATIENCE, future).await.map_err(|_| late())?.map_err(|error| context(what, &error))
}

fn context(doing: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Running {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        server: tokio::task::JoinHandle<Result<()>>,
    }

    async fn start(grace: Duration) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        Running {
            address,
            stop,
            server: tokio::spawn(async move { serve(listener, "pod", grace, stopped).await }),
        }
    }

    fn client(address: SocketAddr, goodbye: bool) -> Client {
        let plan = Plan {
            host: address.ip().to_string(),
            port: address.port(),
            connections: 1,
            interval_ms: 10,
            short: 0,
            seconds: None,
            until_stdin_ends: false,
            goodbye,
        };
        Client { address, plan, report: Mutex::default() }
    }

    #[tokio::test]
    async fn a_server_that_stops_says_goodbye_and_counts_what_comes_after() {
        let running = start(Duration::ZERO).await;
        let client = client(running.address, false);
        let conversation = Conversation::open(running.address).await.expect("listening");
        let mut never = Box::pin(std::future::pending());
        let (kept, ()) =
            tokio::join!(conversation.keep(&client, Duration::from_millis(10), &mut never), async {
                while client.noted(|report| report.lines) < 3 {
                    sleep(Duration::from_millis(5)).await;
                }
                running.stop.send(true).expect("server runs");
            });
        assert!(kept.expect("ended in order"));
        let report = client.noted(|report| report.clone());
        assert_eq!((report.opened, report.goodbyes), (1, 1));
        running.server.await.expect("joined").expect("no error");
    }

    #[tokio::test]
    async fn lines_after_a_goodbye_are_counted() {
        let running = start(Duration::ZERO).await;
        let client = client(running.address, true);
        let conversation = Conversation::open(running.address).await.expect("listening");
        let mut never = Box::pin(std::future::pending());
        conversation.keep(&client, Duration::from_millis(10), &mut never).await.expect("in order");
        let mut other = Conversation::open(running.address).await.expect("listening");
        other.write.write_all(b"late\n").await.expect("open");
        assert_eq!(other.line().await.expect("an answer"), "pod 2");
    }

    #[tokio::test]
    async fn an_end_without_a_goodbye_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut line = [0; 64];
            let length = stream.read(&mut line).await.expect("a line");
            let echo = [b"pod ", &line[..length]].concat();
            stream.write_all(&echo).await.expect("open");
        });
        let client = client(address, false);
        let conversation = Conversation::open(address).await.expect("listening");
        let mut never = Box::pin(std::future::pending());
        let error =
            conversation.keep(&client, Duration::from_millis(500), &mut never).await.expect_err("no goodbye");
        assert!(error.to_string().contains("without a goodbye"), "{error}");
    }
}
