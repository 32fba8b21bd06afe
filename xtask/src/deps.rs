//! `cargo xtask deps`: who may import whom, checked from `cargo metadata`.
//!
//! The rules are the table of docs/ARCHITECTURE.md. They keep two promises of the product: the
//! planes meet only in durable files, and the read plane has no way back to PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::{repo, shell};

/// One row of the table: a crate of ours, what it may import of ours, what it must never reach.
struct Rule {
    name: &'static str,
    may_import: &'static [&'static str],
    never: &'static [&'static str],
}

/// Clients of PostgreSQL. A name that ends with `*` stands for all names that begin like it.
const POSTGRES_CLIENTS: &[&str] = &[
    "cdc-wal",
    "diesel*",
    "pg_walstream",
    "pgwire*",
    "postgres*",
    "pq-sys",
    "sea-orm*",
    "sqlx*",
    "tokio-postgres*",
];

const RULES: &[Rule] = &[
    Rule {
        name: "cdc-core",
        may_import: &[],
        never: &["tokio*", "futures*", "async-*", "object_store", "arrow*", "parquet", "cdc-*"],
    },
    Rule {
        name: "cdc-wal",
        may_import: &["cdc-core"],
        never: &[
            "arrow*",
            "parquet",
            "object_store",
            "datafusion*",
            "iceberg*",
            "cdc-manifest",
            "cdc-iceberg",
            "cdc-sink",
            "cdc-pipeline",
            "cdc-governance",
            "cdc-query",
            "cdc-serve",
            "cdc-runtime",
        ],
    },
    Rule {
        name: "cdc-manifest",
        may_import: &["cdc-core"],
        never: &["arrow*", "parquet", "datafusion*", "cdc-wal"],
    },
    Rule { name: "cdc-iceberg", may_import: &["cdc-core"], never: &["cdc-wal", "datafusion*"] },
    Rule {
        name: "cdc-sink",
        may_import: &["cdc-core", "cdc-manifest", "cdc-iceberg"],
        never: &["cdc-wal", "cdc-governance", "datafusion*"],
    },
    Rule {
        name: "cdc-pipeline",
        may_import: &[
            "cdc-core",
            "cdc-wal",
            "cdc-manifest",
            "cdc-iceberg",
            "cdc-sink",
            "cdc-governance",
        ],
        never: &["cdc-query", "cdc-serve", "cdc-runtime", "datafusion*"],
    },
    Rule {
        name: "cdc-governance",
        may_import: &["cdc-core"],
        never: &["cdc-wal", "arrow*", "datafusion*"],
    },
    Rule {
        name: "cdc-query",
        may_import: &["cdc-core", "cdc-manifest", "cdc-iceberg", "cdc-governance"],
        never: &["cdc-sink", "cdc-pipeline"],
    },
    Rule {
        name: "cdc-serve",
        may_import: &["cdc-core", "cdc-manifest", "cdc-governance", "cdc-query"],
        never: &["cdc-sink", "cdc-pipeline"],
    },
    Rule {
        name: "cdc-runtime",
        may_import: &["cdc-core"],
        never: &[
            "cdc-wal",
            "cdc-manifest",
            "cdc-iceberg",
            "cdc-sink",
            "cdc-pipeline",
            "cdc-governance",
            "cdc-query",
            "cdc-serve",
        ],
    },
    Rule {
        name: "pgcdc",
        may_import: &[
            "cdc-core",
            "cdc-wal",
            "cdc-manifest",
            "cdc-iceberg",
            "cdc-sink",
            "cdc-pipeline",
            "cdc-governance",
            "cdc-runtime",
        ],
        never: &["cdc-query", "cdc-serve", "datafusion*"],
    },
    Rule {
        name: "pgcdc-serve",
        may_import: &[
            "cdc-core",
            "cdc-manifest",
            "cdc-iceberg",
            "cdc-governance",
            "cdc-query",
            "cdc-serve",
            "cdc-runtime",
        ],
        never: &["cdc-sink", "cdc-pipeline"],
    },
    Rule {
        name: "pgcdc-acl",
        may_import: &["cdc-core", "cdc-manifest", "cdc-governance", "cdc-runtime"],
        never: &["cdc-sink", "cdc-pipeline", "datafusion*"],
    },
    Rule { name: "xtask", may_import: &[], never: &["cdc-*"] },
];

/// The crates and binaries of the read plane: no PostgreSQL client, however far away.
const READ_PLANE: &[&str] = &["cdc-query", "cdc-serve", "pgcdc-serve", "pgcdc-acl"];

/// Checks the workspace and prints one line, or every rule that is broken.
pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .cargo_path(repo::cargo())
        .manifest_path(repo::root().join("Cargo.toml"))
        .other_options(["--filter-platform".to_owned(), host()?])
        .exec()
        .context("cargo metadata failed")?;
    let graph = Graph::read(&metadata)?;
    let broken = check(&graph);
    if broken.is_empty() {
        println!("deps: {} packages keep the rules", graph.members.len());
        return Ok(());
    }
    for line in &broken {
        eprintln!("deps: {line}");
    }
    bail!("{} import rules broken; hint: see docs/ARCHITECTURE.md", broken.len())
}

/// The platform that we build for; other platforms pull in crates that never reach our binaries.
fn host() -> Result<String> {
    let about = shell::stdout(shell::command("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// What is imported in a normal or build dependency; tests may import anything.
#[derive(Default)]
struct Graph {
    /// The packages of this workspace.
    members: BTreeSet<String>,
    /// Package to the packages it names itself.
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Metadata) -> Result<Self> {
        let names: BTreeMap<&PackageId, String> = metadata
            .packages
            .iter()
            .map(|package| (&package.id, package.name.to_string()))
            .collect();
        let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
        let mut graph = Self::default();
        for id in &metadata.workspace_members {
            graph.members.insert(names[id].clone());
        }
        for node in &resolve.nodes {
            let imports = graph.imports.entry(names[&node.id].clone()).or_default();
            for dep in &node.deps {
                let is_shipped =
                    dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
                if is_shipped {
                    imports.insert(names[&dep.pkg].clone());
                }
            }
        }
        Ok(graph)
    }

    /// Everything that `package` reaches, each with the way there.
    fn reach(&self, package: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut open = vec![(package.to_owned(), Vec::new())];
        while let Some((name, way)) = open.pop() {
            for next in self.imports.get(&name).into_iter().flatten() {
                if ways.contains_key(next.as_str()) {
                    continue;
                }
                let mut longer = way.clone();
                longer.push(next.as_str());
                ways.insert(next, longer.clone());
                open.push((next.clone(), longer));
            }
        }
        ways
    }
}

fn check(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for member in &graph.members {
        let Some(rule) = RULES.iter().find(|rule| rule.name == member) else {
            broken.push(format!("{member} has no rule; hint: decide who may import it"));
            continue;
        };
        for import in graph.imports.get(member).into_iter().flatten() {
            if graph.members.contains(import) && !rule.may_import.contains(&import.as_str()) {
                broken.push(format!("{member} imports {import}, which is above or beside it"));
            }
        }
        let clients: &[&str] = if READ_PLANE.contains(&rule.name) { POSTGRES_CLIENTS } else { &[] };
        for (reached, way) in graph.reach(member) {
            if rule.never.iter().chain(clients).any(|pattern| matches(pattern, reached)) {
                broken.push(format!("{member} reaches {reached}: {member} > {}", way.join(" > ")));
            }
        }
    }
    broken
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(members: &[&str], arrows: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        graph.members.extend(members.iter().map(|name| (*name).to_owned()));
        for (from, to) in arrows {
            graph.imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn arrows_of_the_table_are_accepted() {
        let graph = graph(
            &["cdc-core", "cdc-manifest", "cdc-iceberg", "cdc-sink"],
            &[
                ("cdc-sink", "cdc-core"),
                ("cdc-sink", "cdc-manifest"),
                ("cdc-sink", "cdc-iceberg"),
                ("cdc-sink", "parquet"),
                ("cdc-iceberg", "cdc-core"),
            ],
        );
        assert_eq!(check(&graph), Vec::<String>::new());
    }

    #[test]
    fn a_planted_arrow_upwards_is_named() {
        let graph = graph(&["cdc-manifest", "cdc-sink"], &[("cdc-manifest", "cdc-sink")]);
        let broken = check(&graph);
        assert!(broken.iter().any(|line| line.contains("cdc-manifest imports cdc-sink")));
    }

    #[test]
    fn a_postgres_client_is_found_behind_an_innocent_crate() {
        let graph = graph(
            &["pgcdc-serve"],
            &[("pgcdc-serve", "innocent"), ("innocent", "tokio-postgres-rustls")],
        );
        assert_eq!(
            check(&graph),
            ["pgcdc-serve reaches tokio-postgres-rustls: \
              pgcdc-serve > innocent > tokio-postgres-rustls"]
        );
    }

    #[test]
    fn a_new_member_without_a_rule_is_refused() {
        let broken = check(&graph(&["cdc-surprise"], &[]));
        assert_eq!(broken.len(), 1);
        assert!(broken[0].contains("cdc-surprise has no rule"));
    }
}
