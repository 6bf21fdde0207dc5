//! The objects of a directory. A file that cannot be understood keeps the objects that it had before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    manifest::{self, Object},
    processes,
};

/// The files of a directory with what was last good in each.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, Content>,
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct Content {
    text: String,
    objects: Vec<Object>,
    problem: Option<String>,
}

impl Directory {
    /// A directory that nothing has been read of yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new(), problem: None }
    }

    /// Reads what has changed since the last time; whether anything did.
    pub fn read(&mut self) -> bool {
        let found = match manifests(&self.path) {
            Ok(found) => found,
            Err(error) => {
                let problem =
                    Some(format!("cannot read {}: {error}; its last good state stays", self.path.display()));
                return std::mem::replace(&mut self.problem, problem.clone()) != problem;
            }
        };
        let mut changed = self.problem.take().is_some();
        let before = self.files.len();
        self.files.retain(|path, _| found.contains(path));
        changed |= self.files.len() < before;
        for path in found {
            let content = self.files.entry(path.clone()).or_default();
            changed |= match fs::read_to_string(&path) {
                Ok(text) => content.replace(text),
                Err(error) => content.refuse(format!("cannot read it: {error}")),
            };
        }
        changed
    }

    /// All objects, each once: of two with one name, the one of the first file by name counts.
    #[must_use]
    pub fn objects(&self) -> Vec<&Object> {
        let mut seen = BTreeSet::new();
        self.files
            .values()
            .flat_map(|content| &content.objects)
            .filter(|object| seen.insert(object.title()))
            .collect()
    }

    /// What is wrong, by the name of the file.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        let mut problems = BTreeMap::new();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (path, content) in &self.files {
            let file = file_name(path);
            for title in content.objects.iter().map(Object::title) {
                if let Some(first) = seen.insert(title.clone(), file.clone()) {
                    problems.insert(
                        format!("{file} {title}"),
                        format!("{file}: {title} is also in {first}, which counts"),
                    );
                    seen.insert(title, first);
                }
            }
            if let Some(problem) = &content.problem {
                problems.insert(file.clone(), format!("{file}:{problem}"));
            }
        }
        if let Some(problem) = &self.problem {
            problems.insert(String::new(), problem.clone());
        }
        problems
    }
}

impl Content {
    fn replace(&mut self, text: String) -> bool {
        if self.problem.is_none() && self.text == text {
            return false;
        }
        // An editor that writes a file in place empties it first, and may be seen between the two.
        if text.is_empty() && !self.objects.is_empty() {
            return self.refuse(" the file is empty; remove it to remove its objects".into());
        }
        match manifest::parse(&text) {
            Ok(objects) => *self = Self { text, objects, problem: None },
            Err(error) => return self.refuse(error.to_string()),
        }
        true
    }

    fn refuse(&mut self, problem: String) -> bool {
        let problem = Some(problem);
        let changed = self.problem != problem;
        self.problem = problem;
        changed
    }
}

/// The files of a directory, without those below it, that hold objects.
fn manifests(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = file_name(&path);
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_manifest = matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with('.');
        if is_manifest && name != processes::FILE && path.is_file() {
            found.insert(path);
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
    }

    fn titles(directory: &Directory) -> Vec<String> {
        directory.objects().into_iter().map(Object::title).collect()
    }

    fn with(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let mut directory = Directory::new(folder.path());
        assert!(directory.read());
        (folder, directory)
    }

    #[test]
    fn only_manifests_are_read_and_processes_are_none() {
        let (_folder, directory) = with(&[
            ("a.yaml", &service("a")),
            ("b.yml", &service("b")),
            ("c.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"}}"#),
            (".hidden.yaml", &service("hidden")),
            ("notes.txt", "nothing"),
            ("processes.yaml", "processes: []"),
        ]);
        assert_eq!(titles(&directory), ["Service default/a", "Service default/b", "Service default/c"]);
        assert!(directory.problems().is_empty());
    }

    #[test]
    fn a_broken_file_keeps_what_it_had_and_others_go_on() {
        let (folder, mut directory) = with(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]);
        fs::write(folder.path().join("a.yaml"), "kind: [").expect("written");
        fs::write(folder.path().join("b.yaml"), service("b2")).expect("written");
        assert!(directory.read());
        assert_eq!(titles(&directory), ["Service default/a", "Service default/b2"]);
        let problems = directory.problems();
        assert!(problems["a.yaml"].starts_with("a.yaml:1:"), "{problems:?}");

        assert!(!directory.read(), "nothing has changed since");
        fs::write(folder.path().join("a.yaml"), service("a")).expect("written");
        assert!(directory.read());
        assert!(directory.problems().is_empty());
    }

    #[test]
    fn a_file_caught_between_emptying_and_writing_keeps_its_objects() {
        let (folder, mut directory) = with(&[("a.yaml", &service("a"))]);
        fs::write(folder.path().join("a.yaml"), "").expect("written");
        directory.read();
        assert_eq!(titles(&directory), ["Service default/a"]);
        fs::remove_file(folder.path().join("a.yaml")).expect("removed");
        assert!(directory.read());
        assert!(titles(&directory).is_empty());
    }

    #[test]
    fn of_two_objects_with_one_name_the_first_file_counts_and_the_other_is_named() {
        let (_folder, directory) = with(&[("a.yaml", &service("x")), ("b.yaml", &service("x"))]);
        assert_eq!(titles(&directory), ["Service default/x"]);
        let problems: Vec<_> = directory.problems().into_values().collect();
        assert_eq!(problems, ["b.yaml: Service default/x is also in a.yaml, which counts"]);
    }

    #[test]
    fn a_directory_that_vanishes_keeps_its_objects() {
        let (folder, mut directory) = with(&[("a.yaml", &service("a"))]);
        folder.close().expect("removed");
        assert!(directory.read());
        assert_eq!(titles(&directory), ["Service default/a"]);
        assert_eq!(directory.problems().len(), 1);
    }
}
