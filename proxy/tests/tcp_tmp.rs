mod support;
use std::time::Instant;
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::*};
use support::World;
#[tokio::test]
async fn tmp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let a = listener.local_addr().unwrap();
    tokio::spawn(async move { loop { let (mut s, _) = listener.accept().await.unwrap(); eprintln!("app accepted"); s.write_all(b"220 ready\r\n").await.unwrap(); std::mem::forget(s); } });
    let world = World::new();
    let v = [("FERRULE_LIMIT_DETECT", "1s")];
    let i = world.proxy_with(&[], &[a], &v).await;
    for _ in 0..2 {
        let b = Instant::now();
        let mut s = TcpStream::connect(i.listeners[0]).await.unwrap();
        s.read_exact(&mut [0; 11]).await.unwrap();
        eprintln!("inbound {:?}", b.elapsed());
    }
    world.service("db", &[i.listeners[0]]);
    let o = world.proxy_with(&["db"], &[], &v).await;
    for _ in 0..2 {
        let b = Instant::now();
        let mut s = TcpStream::connect(o.listeners[0]).await.unwrap();
        s.read_exact(&mut [0; 11]).await.unwrap();
        eprintln!("outbound {:?}", b.elapsed());
    }
}
