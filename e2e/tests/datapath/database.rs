//! MariaDB, server and client, as Debian has them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{client::Client, namespace::Namespace, scene::Scene, suite::note};

use crate::dialled::{self, Carried};

const SERVICE: &str = "database";
const PORT: u16 = 3306;
const ROWS: usize = 1000;
/// What the proxy waits for a client that may speak first; half a second more for a busy machine.
const HELD_UP: u64 = 50 + 500;
const LATER: usize = 10;
const SILENCE: Duration = Duration::from_secs(8);

pub fn a_database_works_from_its_first_greeting(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("database", true)?;
    namespace.apply_file("database.yaml")?;
    for pod in ["database", "client"] {
        namespace.wait_for_ready(pod)?;
    }
    greeting(&namespace)?;

    rows_come_back(&namespace)?;
    a_prepared_statement_runs(&namespace)?;
    a_silent_connection_stays(&namespace)?;
    for address in dialled::cluster_addresses(&namespace, SERVICE)? {
        let version = sql(&namespace, &address, "SELECT VERSION();")?;
        ensure!(version.contains("MariaDB"), "{address}: {version:?}");
    }
    dialled::expect_passed(&namespace, "client", SERVICE, "database", PORT, Carried::Tcp, 5.0 + LATER as f64)
}

/// Only the first connection waits for the client, and that not long.
fn greeting(namespace: &Namespace) -> Result<()> {
    let client = Client::new(namespace, "client");
    let first_byte = || {
        let heard = client.tcp(SERVICE, PORT, &["--wait-first", "--send", ""])?;
        ensure!(heard.received.contains("mysql_native_password"), "no greeting of MariaDB: {heard:?}");
        heard.first_byte_ms.context("no first byte")
    };
    let first = first_byte()?;
    let later = (0..LATER).map(|_| first_byte()).collect::<Result<Vec<_>>>()?;
    note(&format!("MariaDB's greeting: first connection {first} ms, later ones {later:?} ms"));
    ensure!(first < HELD_UP, "the first greeting took {first} ms");
    let service = format!("{}/{SERVICE}", namespace.name());
    let metrics = namespace.metrics("client")?;
    let told = |by| {
        let labels = [("direction", "outbound"), ("service", service.as_str()), ("by", by)];
        metrics.sum("ferrule_detections_total", &labels)
    };
    let (waited, at_once) = (told("server-first"), told("remembered"));
    ensure!(
        waited == 1.0 && at_once == LATER as f64,
        "the client's sidecar waited {waited} times, and remembered {at_once} times that the server speaks first"
    );
    Ok(())
}

fn rows_come_back(namespace: &Namespace) -> Result<()> {
    let body = |number: usize| format!("row {number} {}", "x".repeat(number % 500));
    // A statement and an answer each, as applications do it.
    let inserts =
        (0..ROWS).map(|number| format!("INSERT INTO stock VALUES ({number}, '{}');\n", body(number)));
    let create = "CREATE TABLE stock (id INT PRIMARY KEY, body TEXT) ENGINE=InnoDB;\n".to_owned();
    let script: String = [create].into_iter().chain(inserts).collect();
    sql(namespace, SERVICE, &script)?;
    let found = sql(namespace, SERVICE, "SELECT id, body FROM stock ORDER BY id;")?;
    let expected: Vec<_> = (0..ROWS).map(|number| format!("{number}\t{}", body(number))).collect();
    let found: Vec<_> = found.lines().collect();
    ensure!(found.len() == ROWS, "{} rows of {ROWS} came back", found.len());
    for (found, expected) in found.iter().zip(&expected) {
        ensure!(found == expected, "inserted {expected:?}, selected {found:?}");
    }
    Ok(())
}

fn a_prepared_statement_runs(namespace: &Namespace) -> Result<()> {
    let script = "PREPARE one FROM 'SELECT body FROM stock WHERE id = ?'; \
                  SET @id = 1; EXECUTE one USING @id; SET @id = 2; EXECUTE one USING @id; DEALLOCATE PREPARE one;";
    let found = sql(namespace, SERVICE, script)?;
    ensure!(found == "row 1 x\nrow 2 xx\n", "{found:?}");
    Ok(())
}

/// A connection of a pool: nothing passes for a while, then it is used again.
fn a_silent_connection_stays(namespace: &Namespace) -> Result<()> {
    let silence = SILENCE.as_secs();
    let ask = "echo 'SELECT CONNECTION_ID();'";
    let script = format!("({ask}; sleep {silence}; {ask}) | {}", CLIENT.join(" "));
    let found = in_client(namespace, &["/bin/sh", "-c", &script], "")?;
    let ids: Vec<_> = found.lines().collect();
    ensure!(ids.len() == 2 && ids[0] == ids[1], "connections before and after {SILENCE:?}: {ids:?}");
    Ok(())
}

const CLIENT: [&str; 9] = [
    "/usr/bin/mariadb",
    "--no-defaults",
    "--batch",
    "--skip-column-names",
    "--unbuffered",
    "--user=shop",
    "--password=secret",
    "--database=shop",
    "--host=database",
];

fn sql(namespace: &Namespace, host: &str, script: &str) -> Result<String> {
    let host = format!("--host={host}");
    in_client(namespace, &[&CLIENT, &[host.as_str()][..]].concat(), script)
}

fn in_client(namespace: &Namespace, program: &[&str], input: &str) -> Result<String> {
    let exec = ["--namespace", namespace.name(), "exec", "-i", "client", "-c", "sql", "--"];
    let finished = namespace.cluster().try_kubectl(&[&exec, program].concat(), input)?;
    ensure!(finished.success, "{}: {}", program[0], finished.stderr);
    Ok(finished.stdout)
}
