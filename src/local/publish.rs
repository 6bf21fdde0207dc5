//! The objects for the proxies, as one file that is replaced as a whole: no proxy ever sees half of a state.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Where the proxies read.
#[derive(Debug)]
pub struct Publication {
    directory: PathBuf,
    content: String,
}

impl Publication {
    /// Makes the directory, inside of one that is ours alone.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(parent: &Path) -> io::Result<Self> {
        let directory = parent.join("objects");
        fs::create_dir(&directory)?;
        Ok(Self { directory, content: String::new() })
    }

    /// The directory that the proxies watch.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts a new state in the place of the last; whether they differ.
    ///
    /// # Errors
    /// When the file can't be written; the last state then stays.
    pub fn publish(&mut self, content: String) -> io::Result<bool> {
        if content == self.content {
            return Ok(false);
        }
        // A name that no reader takes for a manifest, beside the target so that the rename is atomic.
        let temporary = self.directory.join(".mesh.tmp");
        fs::write(&temporary, &content)?;
        fs::rename(&temporary, self.directory.join("mesh.yaml"))?;
        self.content = content;
        Ok(true)
    }
}

/// Appends an object as a document of its own. JSON on one line is YAML too.
///
/// # Errors
/// When it has no JSON form; objects of Kubernetes always have.
pub fn append(content: &mut String, object: &impl Serialize) -> Result<(), serde_json::Error> {
    content.push_str("---\n");
    content.push_str(&serde_json::to_string(object)?);
    content.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_once_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut publication = Publication::new(folder.path()).expect("made");
        let mut content = String::new();
        append(&mut content, &serde_json::json!({"kind": "Service"})).expect("JSON");
        assert!(publication.publish(content.clone()).expect("written"));
        assert!(!publication.publish(content.clone()).expect("written"));
        let files: Vec<_> = fs::read_dir(publication.directory()).expect("a directory").flatten().collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read_to_string(files[0].path()).expect("a file"), content);
    }
}
