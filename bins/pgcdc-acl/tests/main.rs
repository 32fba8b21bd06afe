//! The governance command line through the real binary.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CONFIG: &str = "
storage: { path: lake }
governance:
  mode: strict
  require_tags: [sensitivity]
  taxonomy: { sensitivity: [public, internal, PII], domain: [sales, hr] }
  defaults: { sensitivity: internal }
  overrides:
    - { match: 'hr.*', tags: { domain: hr }, columns: { pay: { sensitivity: pii } } }
";

/// What a run left behind.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("{}{}", self.stdout, self.stderr))
    }
}

fn run(directory: &Path, args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_pgcdc-acl"))
        .args(args)
        .current_dir(directory)
        .env("USER", "ana")
        .output()
        .expect("the binary was just built");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
    }
}

/// A directory with a configuration, and what it runs.
struct Deployment(tempfile::TempDir);

impl Deployment {
    fn new() -> Deployment {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("pgcdc.yml"), CONFIG).expect("the file is written");
        Deployment(directory)
    }

    /// Runs a line that has no quotes in it.
    fn run(&self, line: &str) -> Run {
        run(self.0.path(), &line.split(' ').collect::<Vec<_>>())
    }

    fn exits(&self, line: &str, code: i32) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, Some(code), "{line}: {}{}", run.stdout, run.stderr);
        run
    }
}

#[test]
fn version_names_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let plain = run(directory.path(), &["version"]).stdout;
    assert!(plain.starts_with("pgcdc-acl 0."));
    let json = run(directory.path(), &["version", "--json"]).json();
    assert!(json["git_sha"].is_string() && json["target"].is_string(), "{json}");
}

#[test]
fn without_a_configuration_or_governance_nothing_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = run(directory.path(), &["list"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("pg-cdc.yml"), "{}", missing.stderr);
    std::fs::write(directory.path().join("pgcdc.yml"), "storage: { path: lake }\n").unwrap();
    let ungoverned = run(directory.path(), &["list"]);
    assert_eq!(ungoverned.code, Some(2));
    assert!(ungoverned.stderr.contains("no governance section"), "{}", ungoverned.stderr);
    assert!(!directory.path().join(".pgcdc").exists());
}

#[test]
fn register_applies_defaults_and_overrides_once() {
    let acl = Deployment::new();
    acl.exits("register app.hr.people", 0);
    let again = acl.exits("register app.hr.people --sensitivity=public", 0);
    assert_eq!(again.stdout, "app.hr.people: already registered\n");
    acl.exits("register app.hr.people.pay", 0);
    acl.exits("register app.public.orders --sensitivity=public", 0);
    let tags = |resource: &str| acl.exits(&format!("get {resource} --json"), 0).json();
    let people = tags("app.hr.people");
    assert_eq!(
        people["direct_tags"],
        serde_json::json!({"domain": "hr", "sensitivity": "internal"})
    );
    assert_eq!((&people["version"], &people["level"]), (&0.into(), &"table".into()));
    let pay = tags("app.hr.people.pay");
    assert_eq!(pay["resolved_tags"]["sensitivity"]["value"], "pii");
    assert_eq!(pay["resolved_tags"]["sensitivity"]["origin"], "app.hr.people.pay");
    assert_eq!(pay["resolved_tags"]["domain"]["origin"], "app.hr.people");
    assert_eq!(tags("app.public.orders")["direct_tags"]["sensitivity"], "public");
    acl.exits("register app.public.x --sensitivity=secret", 4);
    acl.exits("register a.b.c.d.e", 2);
    acl.exits("get app.public.x", 4);
}

#[test]
fn set_needs_a_reason_a_known_tag_and_the_right_version() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    acl.exits("set app.public.orders --tag domain=sales", 2);
    acl.exits("set app.public.orders --reason reviewed", 2);
    acl.exits("set app.public.orders --tag domain=sales --reason 1234567", 4);
    let unknown = acl.exits("set app.public.orders --tag domain=it --reason reviewed", 4);
    assert!(unknown.stderr.contains("the values of this key are hr, sales"), "{}", unknown.stderr);
    acl.exits("set app.public.orders --tag colour=red --reason reviewed", 4);
    acl.exits("set app.public.orders --tag domain --reason reviewed", 2);
    acl.exits("set app.public.nothing --tag domain=hr --reason reviewed", 4);
    let before = acl.exits("get app.public.orders --json", 0).json();
    assert_eq!(before["version"], 0);
    let set = acl
        .exits("set app.public.orders --tag Domain=SALES --reason reviewed --expect-version 0", 0);
    assert_eq!(set.stdout, "app.public.orders: version 1\n");
    acl.exits("set app.public.orders --tag domain=hr --reason reviewed --expect-version 0", 4);
    acl.exits("set app.public.orders --untag domain --reason reviewed", 0);
    let after = acl.exits("get app.public.orders --json --history", 0).json();
    assert_eq!((&after["version"], &after["last_intent_by"]), (&2.into(), &"user:ana".into()));
    assert_eq!(after["last_intent_reason"], "reviewed");
    assert_eq!(after["history"].as_array().map(Vec::len), Some(3));
}

#[test]
fn list_filters() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    acl.exits("register app.public.users", 0);
    acl.exits("set app.public.users --tag sensitivity=pii --reason reviewed", 0);
    let names = |line: &str| -> Vec<String> {
        let found = acl.exits(line, 0).json();
        let rows = found.as_array().expect("a list").iter();
        rows.map(|row| row["resource_id"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names("list --unclassified --json"), ["app", "app.public", "app.public.orders"]);
    assert_eq!(names("list --tag sensitivity=PII --json"), ["app.public.users"]);
    assert_eq!(names("list --state archived --json"), Vec::<String>::new());
    let table = acl.exits("list", 0).stdout;
    assert!(table.contains("RESOURCE") && table.contains("sensitivity=pii"), "{table}");
    acl.exits("list --state gone", 2);
}

#[test]
fn grants_are_made_shown_and_revoked() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    let who = "grant --principal user:bob --reason reviewed";
    let granted = acl.exits(
        &format!("{who} --select --changes --where-tags sensitivity=public|internal --json"),
        0,
    );
    let id = granted.json()["id"].as_str().expect("an id").to_owned();
    acl.exits(
        &format!("{who} --select --on app.public.orders --columns * --mask id=null --ttl 1h"),
        0,
    );
    acl.exits(&format!("{who} --select --on app.public.orders"), 2);
    acl.exits(&format!("{who} --on app.public.orders --columns id"), 2);
    acl.exits(&format!("{who} --select"), 2);
    acl.exits(&format!("{who} --select --on app.public.x --columns id"), 4);
    acl.exits(&format!("{who} --select --where-tags sensitivity=unclassified"), 2);
    acl.exits(&format!("{who} --select --where-tags sensitivity=secret"), 4);
    acl.exits(
        &format!("{who} --select --on app.public.orders --columns id --row-filter f(x)=1"),
        2,
    );
    acl.exits("grant --principal bob --select --where-tags domain=hr --reason reviewed", 2);
    let shown = acl.exits("grants --principal user:bob --json", 0).json();
    assert_eq!(shown.as_array().map(Vec::len), Some(2));
    assert_eq!(shown[0]["target"], "where sensitivity=internal|public");
    assert_eq!(shown[1]["masks"]["id"], "null");
    acl.exits(&format!("revoke {id} --reason reviewed"), 0);
    acl.exits(&format!("revoke {id} --reason reviewed"), 4);
    assert!(acl.exits("grants", 0).stdout.contains("revoked"));
}

#[test]
fn emergency_grants_are_bounded() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    let who = "break-glass grant --principal user:bob --resource app.public.orders --reason outage-12 --ticket INC-1";
    acl.exits(&format!("{who} --columns id --ttl 5h"), 4);
    acl.exits(&format!("{who} --columns id --approver user:ana"), 4);
    acl.exits(who, 2);
    let given = acl.exits(&format!("{who} --columns id --approver user:cyn --json"), 0).json();
    let id = given["id"].as_str().expect("an id");
    acl.exits(&format!("break-glass revoke {id} --reason restored"), 0);
    acl.exits(&format!("break-glass revoke {id} --reason restored"), 4);
    let listed = acl.exits("break-glass list --json", 0).json();
    assert_eq!(listed[0]["ended_by"], "user:ana");
}

#[test]
fn an_embedded_deployment_is_clean_and_its_audit_trail_whole() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    assert_eq!(acl.exits("diff", 0).stdout, "clean\n");
    assert_eq!(acl.exits("sync --json", 0).json()["healed"], serde_json::json!([]));
    acl.exits("sync --prune", 2);
    acl.exits("preflight", 0);
    let whole = acl.exits("audit verify --json", 0).json();
    let lines = acl.exits("audit tail", 0).stdout;
    assert_eq!(whole["records"], lines.lines().count());
    assert_eq!(
        acl.exits("audit tail --since 2", 0).stdout.lines().count(),
        lines.lines().count() - 1
    );
    let database = rusqlite::Connection::open(acl.0.path().join(".pgcdc/governance.db")).unwrap();
    let forge = "DROP TRIGGER audit_update; UPDATE audit SET body = replace(body, 'ana', 'eve')";
    database.execute_batch(forge).unwrap();
    drop(database);
    let broken = acl.exits("audit verify", 1);
    assert!(broken.stderr.contains("is broken at line"), "{}", broken.stderr);
    acl.exits("preflight", 1);
}

#[test]
fn a_registry_that_cannot_be_read_is_no_clean_one() {
    let acl = Deployment::new();
    acl.exits("register app.public.orders", 0);
    std::fs::write(acl.0.path().join(".pgcdc/governance.db"), "not a database at all").unwrap();
    for line in ["diff", "sync", "list", "preflight", "audit verify"] {
        acl.exits(line, 2);
    }
}

#[test]
fn explain_is_not_available_yet() {
    let acl = Deployment::new();
    let refused = acl.exits("explain user:bob app.public.orders", 2);
    assert_eq!(refused.stderr, "error: `pgcdc acl explain` is not available yet\n");
}
