//! Watches.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use super::{Body, Event, Selection, Shared, TooOld, status};

/// Counts a watch as open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state.lock().expect("not poisoned").open_watches -= 1;
    }
}

/// Tells what happens after `position`.
pub(super) fn answer(shared: Arc<Shared>, selection: Selection, mut position: u64) -> Response<Body> {
    let (compacted, too_old) = {
        let state = shared.state.lock().expect("not poisoned");
        (state.compacted, state.too_old)
    };
    let expired = position < compacted;
    if expired && too_old == TooOld::Status {
        return status(StatusCode::GONE, "too old resource version");
    }
    shared.state.lock().expect("not poisoned").open_watches += 1;
    let open = Open(Arc::clone(&shared));
    let (mut sender, receiver) = mpsc::channel::<String>(0);
    tokio::spawn(async move {
        let _open = open;
        if expired {
            let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
            let _ = sender.send(json!({"type": "ERROR", "object": status}).to_string()).await;
            return;
        }
        let mut changed = shared.version.subscribe();
        loop {
            for Event { version, kind, object, .. } in due(&shared, &selection, position) {
                if sender.send(json!({"type": kind, "object": object}).to_string()).await.is_err() {
                    return;
                }
                position = version;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = closed(&sender) => return,
            }
        }
    });
    let frames = receiver.map(|line| Ok(Frame::data(Bytes::from(line + "\n"))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// Waits until nobody reads any more.
async fn closed(sender: &mpsc::Sender<String>) {
    while !sender.is_closed() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn due(shared: &Shared, selection: &Selection, position: u64) -> Vec<Event> {
    let state = shared.state.lock().expect("not poisoned");
    if state.mute {
        return Vec::new();
    }
    let matches = |event: &&Event| {
        event.version > position
            && !event.lost
            && (event.kind == "BOOKMARK" || selection.matches(&event.resource, &event.object))
    };
    state.history.iter().filter(matches).cloned().collect()
}
