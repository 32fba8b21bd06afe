//! Which snapshots a table forgets. Only the metadata changes: files go later, by age, and never
//! because of this.

use std::collections::BTreeSet;

use iceberg::spec::TableMetadata;
use serde::Deserialize;

use crate::{Branch, CommitOutcome, Committer, Error, Result, Table};

/// What expiry leaves in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How many snapshots of each of our branches stay, counted from the newest (at least one).
    pub keep: usize,
    /// Snapshots that stay in any case: those that the manifest or a live ref names.
    pub pinned: BTreeSet<i64>,
}

/// How an expiry ended.
#[derive(Debug)]
pub struct Expired {
    /// The commit; also `Committed` if there was nothing to forget.
    pub outcome: CommitOutcome,
    /// How many snapshots the commit removes.
    pub removed: usize,
}

impl Committer {
    /// Forgets old snapshots in one commit without a snapshot of its own. Branch heads and tags of
    /// any name stay.
    pub async fn expire(&self, table: &Table, retention: &Retention) -> Result<Expired> {
        let expired =
            expired(&table.ident.to_string(), &table.metadata, retention, &BTreeSet::new())?;
        let outcome = self.update(table, |builder| Ok(builder.remove_snapshots(&expired))).await?;
        Ok(Expired { outcome, removed: expired.len() })
    }
}

/// The snapshots that a table does not keep. `also` are kept whatever the retention says.
pub(crate) fn expired(
    table: &str,
    metadata: &TableMetadata,
    retention: &Retention,
    also: &BTreeSet<i64>,
) -> Result<Vec<i64>> {
    let mut kept = &retention.pinned | also;
    for branch in [Branch::Main, Branch::Staging] {
        let head = metadata.snapshot_for_ref(branch.as_str()).map(|head| head.snapshot_id());
        let newest = crate::ancestry(metadata, head);
        kept.extend(newest.take(retention.keep.max(1)).map(|snapshot| snapshot.snapshot_id()));
    }
    let all = metadata.snapshots().map(|snapshot| snapshot.snapshot_id());
    let mut expired: Vec<i64> = all.filter(|id| !kept.contains(id)).collect();
    if !expired.is_empty() {
        let named = named_snapshots(table, metadata)?;
        expired.retain(|id| !named.contains(id));
    }
    Ok(expired)
}

/// The snapshots that branches and tags name. The iceberg crate lists references in the JSON form
/// of the metadata only.
fn named_snapshots(table: &str, metadata: &TableMetadata) -> Result<BTreeSet<i64>> {
    #[derive(Deserialize)]
    struct Refs {
        #[serde(default)]
        refs: std::collections::HashMap<String, Ref>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Ref {
        snapshot_id: i64,
    }
    let json = serde_json::to_value(metadata).and_then(serde_json::from_value::<Refs>);
    let refs = json.map_err(|source| Error::Build {
        table: table.to_owned(),
        what: "list of references",
        source: Box::new(source),
    })?;
    Ok(refs.refs.into_values().map(|reference| reference.snapshot_id).collect())
}
