//! A directory of YAML or JSON files as a source of news: the same objects, no Kubernetes needed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    objects::{ConfigMap, EndpointSlice, Service},
    world::Change,
};
use crate::telemetry::Telemetry;

/// An edit is often several events; they are taken in together.
const SETTLE: Duration = Duration::from_millis(10);
/// Events can be lost (a full queue, a network file system), so the files are read this often all the same.
const ANYWAY: Duration = Duration::from_secs(5);
/// Largest file that is read.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Starts to watch the files of a directory, not those of its subdirectories.
pub(super) fn watch(
    directory: &Path,
    changes: mpsc::Sender<Change>,
    telemetry: Arc<Telemetry>,
) -> anyhow::Result<()> {
    let directory: PathBuf = directory.to_owned();
    let (events, mut happened) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        // One event that waits is enough: the files are read as a whole.
        let _ = events.try_send(());
    })?;
    watcher
        .watch(&directory, RecursiveMode::NonRecursive)
        .with_context(|| format!("watching {}", directory.display()))?;
    tokio::spawn(async move {
        let _watcher = watcher;
        let mut last = None;
        loop {
            match read(&directory) {
                Ok(objects) if last.as_ref() != Some(&objects) => {
                    last = Some(objects.clone());
                    let Objects { services, slices, shards } = objects;
                    if changes.send(Change::All { services, slices, shards }).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    telemetry.config_refused.inc();
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "files refused; the last good ones stay in force"
                    );
                }
            }
            let _ = tokio::time::timeout(ANYWAY, happened.recv()).await;
            tokio::time::sleep(SETTLE).await;
            let _ = happened.try_recv();
        }
    });
    Ok(())
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Objects {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    shards: Vec<ConfigMap>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

fn read(directory: &Path) -> anyhow::Result<Objects> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && matches!(path.extension().and_then(|it| it.to_str()), Some("yaml" | "yml" | "json"))
    });
    paths.sort();
    let mut objects = Objects::default();
    for path in paths {
        take_in(&path, &mut objects).with_context(|| path.display().to_string())?;
    }
    Ok(objects)
}

fn take_in(path: &Path, objects: &mut Objects) -> anyhow::Result<()> {
    anyhow::ensure!(std::fs::metadata(path)?.len() <= MAX_FILE, "file has more than {MAX_FILE} bytes");
    let text = std::fs::read_to_string(path)?;
    for document in serde_saphyr::from_multiple::<serde_json::Value>(&text)? {
        if document.is_null() {
            continue;
        }
        let Kind { kind } = Kind::deserialize(&document)?;
        match kind.as_str() {
            "Service" => objects.services.push(serde_json::from_value(document)?),
            "EndpointSlice" => objects.slices.push(serde_json::from_value(document)?),
            "ConfigMap" => objects.shards.push(serde_json::from_value(document)?),
            // Routes and other resources are the operator's to read.
            _ => {}
        }
    }
    Ok(())
}
