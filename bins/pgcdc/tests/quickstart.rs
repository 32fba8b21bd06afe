//! Quickstart as far as it gets without a server.

use crate::{directory, pgcdc};

#[test]
fn without_a_url_nothing_is_written() {
    let dir = directory();
    let run = pgcdc(dir.path(), &["quickstart"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--url"), "{}", run.stderr);
    assert!(!dir.path().join("pgcdc").exists());
}

#[test]
fn the_file_it_writes_has_no_secret_and_is_used_the_next_time() {
    let dir = directory();
    let url = "postgresql://u:hunter2@127.0.0.1:1/d?connect_timeout=2";
    let args = ["quickstart", "--url", url, "--dir", "q", "--no-start"];
    let run = pgcdc(dir.path(), &args);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stdout.contains("configuration: wrote "), "{}", run.stdout);
    assert!(!run.shown().contains("hunter2"), "{}", run.shown());
    let file = dir.path().join("q/pgcdc.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("url: \"${PGCDC_URL}\"") && !text.contains("hunter2"), "{text}");
    let again = pgcdc(dir.path(), &args);
    assert!(again.stdout.contains("configuration: using "), "{}", again.stdout);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}
