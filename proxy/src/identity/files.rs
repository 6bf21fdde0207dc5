//! What the injector mounts for the identity service: token, trust bundle, address.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ferrule_config::names::{IDENTITY_ADDRESS_KEY, TRUST_BUNDLE_KEY};
use zeroize::Zeroizing;

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Files(PathBuf);

/// What comes from the ConfigMap; it may be missing, and appear later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Text of the trust bundle.
    pub(super) bundle: Option<String>,
    /// Where the service is.
    pub(super) address: Option<SocketAddr>,
}

impl Files {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Reads the parts of one state: the kubelet exchanges all files at once, by a link.
    pub(super) fn mounted(&self) -> Mounted {
        let directory = fs::canonicalize(self.0.join("..data")).unwrap_or_else(|_| self.0.clone());
        let read = |key| fs::read_to_string(directory.join(key)).ok().filter(|text| !text.is_empty());
        let address = read(IDENTITY_ADDRESS_KEY).and_then(|text| text.trim().parse().ok());
        Mounted { bundle: read(TRUST_BUNDLE_KEY), address }
    }

    /// Read anew each time: the kubelet renews it.
    pub(super) fn token(&self) -> io::Result<Zeroizing<String>> {
        fs::read_to_string(self.0.join("token")).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_no_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(directory.path());
        assert_eq!(files.mounted(), Mounted::default());
        assert!(files.token().is_err());
        fs::write(directory.path().join("ca.crt"), "roots").expect("written");
        fs::write(directory.path().join("address"), "10.96.0.7:15113\n").expect("written");
        let mounted = files.mounted();
        assert_eq!(mounted.bundle.as_deref(), Some("roots"));
        assert_eq!(mounted.address, Some(([10, 96, 0, 7], 15113).into()));
    }

    #[cfg(unix)]
    #[test]
    fn all_parts_are_of_one_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let old = directory.path().join("..old");
        fs::create_dir(&old).expect("made");
        fs::write(old.join("ca.crt"), "one").expect("written");
        std::os::unix::fs::symlink(&old, directory.path().join("..data")).expect("linked");
        assert_eq!(Files::new(directory.path()).mounted().bundle.as_deref(), Some("one"));
    }
}
