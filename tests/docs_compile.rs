//! Every example of Ferrule's resources in the documentation is accepted by the compiler.

use std::{fs, path::Path};

use ferrule::local::{manifest, report::Statement, state};

/// What the examples apply to.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: grpc, port: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v1, namespace: shop}
spec: {ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2, namespace: shop}
spec: {ports: [{port: 8080}]}
";

/// The blocks of YAML that hold resources of Ferrule's.
fn examples(markdown: &str) -> Vec<&str> {
    let blocks = markdown.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    blocks.map(|(block, _)| block).filter(|block| block.contains("apiVersion: ferrule.dev/")).collect()
}

fn check(file: &str, example: &str) {
    let objects = manifest::parse(&format!("{SERVICES}---\n{example}"))
        .unwrap_or_else(|error| panic!("{file}: {error}\n{example}"));
    let state = state::build(&objects.iter().collect::<Vec<_>>(), &[])
        .unwrap_or_else(|error| panic!("{file}: {error}\n{example}"));
    assert!(!state.statements.is_empty(), "{file}: nothing is said of\n{example}");
    for (object, statement) in state.statements {
        assert_eq!(statement, Statement::Accepted, "{file}: {object}\n{example}");
    }
}

#[test]
fn examples_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(root.join("docs")).expect("docs/");
    let mut files: Vec<_> = in_docs.map(|entry| entry.expect("an entry").path()).collect();
    files.push(root.join("README.md"));
    let mut found = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(file).expect("a text file");
        for example in examples(&text) {
            check(&file.display().to_string(), example);
            found += 1;
        }
    }
    assert!(found >= 7, "README.md has one and docs/balancing.md six, but only {found} were found");
}
