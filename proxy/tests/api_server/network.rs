//! The way to the API server, on which connections can freeze or break.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weather {
    /// Connections up to this number carry nothing any more, and nobody is told.
    frozen: usize,
    /// Those up to this number are closed.
    broken: usize,
    /// New ones are closed.
    down: bool,
    /// New ones are taken and carry nothing.
    hole: bool,
}

/// A network with one server in it.
pub struct Network {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepted: Arc<AtomicUsize>,
}

impl Network {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let weather = watch::Sender::new(Weather::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let (forecast, count) = (weather.clone(), Arc::clone(&accepted));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, SeqCst) + 1;
                let weather = forecast.subscribe();
                if weather.borrow().down {
                    continue;
                }
                if weather.borrow().hole {
                    forecast.send_modify(|weather| weather.frozen = number);
                }
                tokio::spawn(carry(client, server, number, weather));
            }
        });
        Self { address, weather, accepted }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    /// What is connected now carries nothing any more; new connections work.
    pub fn freeze(&self) {
        let now = self.connections();
        self.weather.send_modify(|weather| weather.frozen = now);
    }

    /// What is connected now is closed; new connections work.
    pub fn cut(&self) {
        let now = self.connections();
        self.weather.send_modify(|weather| weather.broken = now);
    }

    /// Everything is closed, and nothing can be connected while it is set.
    pub fn down(&self, down: bool) {
        self.cut();
        self.weather.send_modify(|weather| weather.down = down);
    }

    /// Everything is swallowed while it is set.
    pub fn swallow(&self, hole: bool) {
        self.freeze();
        self.weather.send_modify(|weather| weather.hole = hole);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, number: usize, mut weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let forecast = weather.clone();
    let pump = async |mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf| {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if number <= forecast.borrow().frozen {
                std::future::pending::<()>().await;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = pump(client_read, server_write) => {}
        () = pump(server_read, client_write) => {}
        _ = weather.wait_for(|weather| number <= weather.broken) => {}
    }
}
