use tokio::{io::DuplexStream, task::LocalSet, time::sleep};

use super::*;
use crate::{drain, http2::hpack::Field, limits::Http2Limits};

const NEVER: Duration = Duration::from_secs(3600);

/// A client and a server that gives `:status` and one field of its own to each request.
fn pair(rest: Duration) -> (Rc<Connection>, Rc<Connection>) {
    let times = Times { idle: NEVER, rest, head: NEVER, stall: NEVER };
    let (here, there) = tokio::io::duplex(64 * 1024);
    let client = Connection::new(Role::Client, Http2Limits::default());
    let server = Connection::new(Role::Server, Http2Limits::default());
    let run = |connection: &Rc<Connection>, io: DuplexStream| {
        let connection = Rc::clone(connection);
        tokio::task::spawn_local(async move {
            let (_control, drain) = drain::channel();
            let answer = |event| {
                let Event::Opened(stream) = event else { return };
                tokio::task::spawn_local(async move {
                    stream.send_section(true, |each| {
                        each(Field::new(b":status", b"200"));
                        each(Field::new(b"x-served-by", b"a pod"));
                    });
                });
            };
            connection.drive(io, Buffer::default(), times, &drain, answer).await.expect("no errors");
        });
    };
    run(&client, here);
    run(&server, there);
    (client, server)
}

async fn requests(client: &Rc<Connection>, count: usize) {
    for _ in 0..count {
        let stream = client.open(false, true, |each| {
            for (name, value) in
                [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "cart")]
            {
                each(Field::new(name.as_bytes(), value.as_bytes()));
            }
        });
        let head = stream.expect("there is room").response_head().await.expect("a response");
        assert_eq!((head.status(), head.value(b"x-served-by")), (200, Some(&b"a pod"[..])));
    }
}

#[tokio::test]
async fn a_pause_gives_header_tables_back_and_the_connection_goes_on() {
    LocalSet::new()
        .run_until(async {
            let (client, server) = pair(Duration::from_millis(20));
            for _ in 0..3 {
                requests(&client, 3).await;
                let given_back = async {
                    while [&client, &server].iter().any(|each| each.core().holds_header_memory()) {
                        sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(30), given_back).await.expect("it is given back");
            }
        })
        .await;
}

#[tokio::test]
async fn between_requests_header_tables_stay() {
    LocalSet::new()
        .run_until(async {
            let (client, server) = pair(NEVER);
            requests(&client, 3).await;
            sleep(Duration::from_millis(60)).await;
            assert!([&client, &server].iter().all(|each| each.core().holds_header_memory()));
        })
        .await;
}
