//! Notices edits of a directory, and waits until an edit is complete.

use std::{path::Path, time::Duration};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// An edit is over when nothing more has happened for this long: an editor may write, rename and set times.
const QUIET: Duration = Duration::from_millis(5);
/// An edit that never ends is taken as it is after this long.
const LONGEST: Duration = Duration::from_millis(50);

/// A watch on a directory.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::UnboundedReceiver<()>,
    /// When the edit that is under way was first seen.
    began: Option<Instant>,
    // Dropping it ends the watch.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts to watch a directory, without those below it.
    ///
    /// # Errors
    /// When the system refuses, for example for want of inotify watches.
    pub fn start(directory: &Path) -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is what we do ourselves; an error means that events were lost, so look as well.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                // Nobody listens any more only when the program ends.
                sender.send(()).ok();
            }
        })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(Self { events, began: None, _watcher: watcher })
    }

    /// Waits for an edit and until it is complete; returns when it was first seen. A call that is dropped loses
    /// nothing.
    pub async fn edited(&mut self) -> Instant {
        let began = match self.began {
            Some(began) => began,
            None => {
                self.event().await;
                *self.began.insert(Instant::now())
            }
        };
        loop {
            let until = (Instant::now() + QUIET).min(began + LONGEST);
            tokio::select! {
                () = self.event() => {}
                () = sleep_until(until) => {
                    self.began = None;
                    return began;
                }
            }
        }
    }

    async fn event(&mut self) {
        if self.events.recv().await.is_none() {
            // The watcher holds the other end for as long as `self` lives; were it gone, nothing would come.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn an_edit_is_seen_once_however_many_steps_it_takes() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut watch = Watch::start(folder.path()).expect("watched");
        for step in 0..3 {
            fs::write(folder.path().join("a.yaml"), format!("{step}")).expect("written");
        }
        let patience = Duration::from_secs(5);
        tokio::time::timeout(patience, watch.edited()).await.expect("the edit is seen");
        let again = tokio::time::timeout(Duration::from_millis(200), watch.edited()).await;
        assert!(again.is_err(), "nothing more has happened");
    }

    #[tokio::test]
    async fn reading_is_no_edit() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join("a.yaml"), "a").expect("written");
        let mut watch = Watch::start(folder.path()).expect("watched");
        fs::read(folder.path().join("a.yaml")).expect("read");
        let seen = tokio::time::timeout(Duration::from_millis(200), watch.edited()).await;
        assert!(seen.is_err());
    }
}
