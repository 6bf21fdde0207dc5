use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ferrule_config::trust;

use super::{
    testing::{Answer, Authority, HOST, issued, service},
    *,
};

const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const PATIENCE: Duration = Duration::from_secs(30);

/// What is mounted, and an identity that lives on it.
struct Pod {
    files: tempfile::TempDir,
    identity: Identity,
}

impl Pod {
    fn start() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let service = Service { host: HOST.to_owned(), port: 1 };
        let id = OWN.parse().expect("an identity");
        let settings = Settings { service, id, files: files.path().to_owned() };
        let identity = Identity::start(Some(&settings), Arc::default());
        Self { files, identity }
    }

    fn mount(&self, authority: &Authority, address: SocketAddr) {
        write(self.files.path(), "token", "the-token\n");
        write(self.files.path(), "address", &address.to_string());
        write(self.files.path(), "ca.crt", &trust::write(1, [authority.pem()]));
    }

    async fn until(&self, what: &str, holds: impl Fn(&Report) -> bool) {
        let wait = async {
            while !holds(&self.identity.report()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let report = || self.identity.report();
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}: {:?}", report());
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("written");
}

#[tokio::test]
async fn an_identity_comes_when_its_parts_have_come() {
    let pod = Pod::start();
    assert!(pod.identity.current().is_none(), "and nothing waited for it");
    assert_eq!(pod.identity.report(), Report::default());
    let authority = Arc::new(Authority::new());
    let signs = Arc::clone(&authority);
    let address = service(&authority, HOST, move |head, csr| {
        assert!(head.contains("authorization: bearer the-token"), "{head}");
        assert!(head.starts_with("post /v1/certificates "), "{head}");
        issued(&signs, csr, &[OWN], 7)
    })
    .await;
    let mut changes = pod.identity.changes();
    pod.mount(&authority, address);
    pod.until("an identity", |report| report.id.as_deref() == Some(OWN)).await;
    let report = pod.identity.report();
    assert_eq!(report.bundle.expect("a bundle").generation, 7, "that of the answer is the later one");
    assert_eq!(report.root, pod.identity.bundle().map(|bundle| bundle.signing_root()));
    assert!(report.not_after.is_some() && report.chain.is_some());
    assert_eq!(report.last_failure, None);
    assert!(changes.has_changed().expect("the sender lives"));
    changes.mark_unchanged();
    assert_eq!(pod.identity.metrics().renewals(), 1);
}

#[tokio::test]
async fn a_service_of_another_authority_or_name_is_told_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (authority, host) in [(&theirs, HOST), (&ours, "kubernetes.default.svc")] {
        let address = service(authority, host, |_, _| panic!("it was asked")).await;
        let pod = Pod::start();
        pod.mount(&ours, address);
        pod.until("a failure", |report| {
            report.last_failure.as_deref().is_some_and(|text| text.contains("TLS with"))
        })
        .await;
        assert!(pod.identity.current().is_none());
    }
}

#[tokio::test]
async fn answers_that_can_not_be_right_change_nothing() {
    let authority = Arc::new(Authority::new());
    let other = Arc::new(Authority::new());
    let names: &[&[&str]] =
        &[&["spiffe://cluster.local/ns/shop/sa/admin"], &[], &[OWN, "spiffe://x/ns/a/sa/b"]];
    for (index, expected) in [(0, "is not for"), (1, "is not for"), (2, "is not for")] {
        let signs = Arc::clone(&authority);
        let address = service(&authority, HOST, move |_, csr| issued(&signs, csr, names[index], 2)).await;
        refused(&authority, address, expected).await;
    }
    let (signs, trusts) = (Arc::clone(&other), Arc::clone(&authority));
    let address = service(&authority, HOST, move |_, csr| {
        let Answer(status, body) = issued(&signs, csr, &[OWN], 2);
        let mut issued: ferrule_config::identity::Issued = serde_json::from_str(&body).expect("JSON");
        issued.bundle = trust::write(2, [trusts.pem()]);
        Answer(status, serde_json::to_string(&issued).expect("JSON"))
    })
    .await;
    refused(&authority, address, "not verified by the trust bundle").await;
    for (body, expected) in [("{}", "can't be understood"), ("", "can't be understood")] {
        let address = service(&authority, HOST, |_, _| Answer("200 OK", body.to_owned())).await;
        refused(&authority, address, expected).await;
    }
    let huge = "x".repeat(1 << 20);
    let address = service(&authority, HOST, move |_, _| Answer("200 OK", huge.clone())).await;
    refused(&authority, address, "can't be understood").await;
    let refusal = r#"{"cause": "pod-gone", "message": "the pod is gone"}"#;
    let address = service(&authority, HOST, |_, _| Answer("403 Forbidden", refusal.to_owned())).await;
    refused(&authority, address, "403 Forbidden: the pod is gone").await;
}

async fn refused(authority: &Authority, address: SocketAddr, expected: &str) {
    let pod = Pod::start();
    pod.mount(authority, address);
    pod.until(expected, |report| report.last_failure.as_deref().is_some_and(|text| text.contains(expected)))
        .await;
    assert!(pod.identity.current().is_none());
}

#[tokio::test]
async fn a_service_that_asks_for_patience_gets_it() {
    let authority = Authority::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = service(&authority, HOST, move |_, _| {
        count.fetch_add(1, Relaxed);
        Answer(
            "429 Too Many Requests\r\nretry-after: 60",
            r#"{"cause": "rate-limited", "message": "wait"}"#.into(),
        )
    })
    .await;
    let pod = Pod::start();
    pod.mount(&authority, address);
    pod.until("a failure", |report| report.last_failure.is_some()).await;
    // The backoff alone would have asked again by now.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_failure_is_tried_again() {
    let authority = Arc::new(Authority::new());
    let signs = Arc::clone(&authority);
    let mut failures = 2;
    let address = service(&authority, HOST, move |_, csr| {
        if failures > 0 {
            failures -= 1;
            return Answer("503 Service Unavailable", String::new());
        }
        issued(&signs, csr, &[OWN], 2)
    })
    .await;
    let pod = Pod::start();
    pod.mount(&authority, address);
    pod.until("an identity", |report| report.id.is_some() && report.last_failure.is_none()).await;
}

#[tokio::test]
async fn an_older_bundle_never_comes_back() {
    let (one, two) = (Authority::new(), Authority::new());
    let identity = Identity::none(Arc::default());
    let bundle = |generation, authority: &Authority| {
        Bundle::parse(&trust::write(generation, [authority.pem()])).expect("a bundle")
    };
    assert!(identity.trust(bundle(5, &one)));
    assert!(!identity.trust(bundle(4, &two)));
    assert!(!identity.trust(bundle(5, &two)));
    assert_eq!(identity.bundle().expect("a bundle").signing_root(), bundle(0, &one).signing_root());
    assert!(identity.trust(bundle(6, &two)));
}
