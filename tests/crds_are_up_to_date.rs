//! The files in `crds/` are what the types generate.

use std::{collections::BTreeMap, fs, path::Path};

use ferrule::api::crd;

#[test]
fn crds_are_up_to_date() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let generated: BTreeMap<String, String> = crd::all()
        .expect("schemas")
        .iter()
        .map(|crd| (crd::file_name(crd), crd::yaml(crd).expect("YAML")))
        .collect();
    let committed: BTreeMap<String, String> = fs::read_dir(&directory)
        .expect("crds/")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let text = fs::read_to_string(entry.path()).expect("a text file");
            (entry.file_name().into_string().expect("a name"), text)
        })
        .collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "run `make crds`");
    for (name, text) in &generated {
        assert!(committed[name] == *text, "crds/{name} is not what src/api generates; run `make crds`");
    }
}
