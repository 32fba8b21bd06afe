//! The comparison of two cuts, as the caller may see them.

use cdc_core::TableName;
use cdc_manifest::{ContractDiff, Cut, CutSpec};

use crate::Result;
use crate::caller::{Caller, Decisions};
use crate::evidence::Evidence;
use crate::plane::{CutRequest, ReadPlane};

/// A comparison and what is to be said of the cut compared to.
#[derive(Clone, Debug)]
pub struct DiffAnswer {
    /// The comparison.
    pub diff: ContractDiff,
    /// Of the cut compared to.
    pub evidence: Evidence,
    /// The cut compared to, as the caller may see it.
    pub to: Cut,
}

impl ReadPlane {
    /// What changes from one ref to another in the tables that the caller may see.
    ///
    /// # Errors
    /// [`cdc_query::Error::NoSuchCut`] for a ref that does not exist or was pruned; see
    /// [`crate::Error::code`].
    pub async fn diff(&self, caller: &Caller, from: &str, to: &str) -> Result<DiffAnswer> {
        let manifest = self.manifest().await?;
        let decisions = self.policy().decide(caller, &manifest)?;
        let at = |name: &str| CutRequest { at: CutSpec::of_ref(name), ..CutRequest::default() };
        let before = visible_part(self.cut(&at(from)).await?, &decisions);
        let after = visible_part(self.cut(&at(to)).await?, &decisions);
        let diff = ContractDiff::between((from, &before), (to, &after));
        let tables: Vec<TableName> = after.tables.keys().cloned().collect();
        let evidence = self.evidence(&after, &tables, caller).await?;
        Ok(DiffAnswer { diff, evidence, to: after })
    }
}

/// The cut as the caller may see it: hidden tables and columns are absent, as if they were not there.
fn visible_part(mut cut: Cut, decisions: &Decisions<'_>) -> Cut {
    cut.tables.retain(|table, _| decisions.access(table).is_some());
    for (table, entry) in &mut cut.tables {
        let Some(visible) = decisions.columns(table) else { continue };
        let is_hidden = |column: &String| !visible.contains(column);
        if let Some(columns) = &mut entry.columns {
            columns.retain(|column| visible.contains(&column.name));
        }
        // the names of a key, and of an index, tell of columns
        if entry.primary_key.as_ref().is_none_or(|key| key.iter().any(is_hidden)) {
            (entry.primary_key, entry.identity) = (None, None);
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use cdc_manifest::Manifest;

    use super::*;
    use crate::caller::LocalPolicy;

    /// A table `t (ssn, note)` with the key `ssn`, of which the role `reader` sees `note` alone, and a
    /// table `hidden` that it does not see.
    const MANIFEST: &str = r#"{"version":1,"lake_id":"l","source":{"name":"s","postgres_version":"PostgreSQL 15",
        "init_lsn":"0/1","init_timestamp":"2026-01-01T00:00:00Z","database":"d","system_identifier":"1","timeline":1,
        "slot":"s","publication":"p"},"epoch":1,"commit_lsn":"0/2","commit_ts":"2026-01-01T00:00:00Z",
        "covered_lsn":"0/2","covered_at":"2026-01-01T00:00:00Z","batch_id":"b","generation":1,
        "catalog":{"type":"iceberg","backend":"sqlite","database":"d"},
        "tables":{
          "public.t":{"status":"active","state":"streaming","primary_key":["ssn"],"identity":"primary_key",
            "schema_version":1,"base_epoch":0,"latest_delta_epoch":1,"path":"public.t"},
          "public.hidden":{"status":"active","state":"streaming","schema_version":1,"base_epoch":0,
            "latest_delta_epoch":1,"path":"public.hidden"}},
        "schemas":{"public.t":{"version":1,"next_field_id":102,"columns":[
          {"name":"ssn","pg_type":"text","parquet_type":"UTF8","nullable":false,"field_id":100,"attnum":1,
            "type_oid":25,"pg_type_full":"text","iceberg_type":"string"},
          {"name":"note","pg_type":"text","parquet_type":"UTF8","nullable":true,"field_id":101,"attnum":2,
            "type_oid":25,"pg_type_full":"text","iceberg_type":"string"}]}},
        "roles":{"reader":{"tables":{"public.t":{"columns":["note"]}}}},
        "compaction":{"last_compacted_at":"0001-01-01T00:00:00Z"},"updated_at":"2026-01-01T00:00:00Z"}"#;

    fn seen_by(role: Option<&str>) -> String {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).unwrap();
        let role = role.map(str::to_owned);
        let caller = Caller { principal: "user:ana".into(), role, request_id: "r".into() };
        let decisions = LocalPolicy::default().decide(&caller, &manifest).unwrap();
        format!("{:?}", visible_part(Cut::of_manifest(&manifest), &decisions).tables)
    }

    #[test]
    fn what_is_hidden_leaves_no_name_in_a_comparison() {
        let seen = seen_by(Some("reader"));
        assert!(seen.contains("note"), "{seen}");
        for name in ["ssn", "hidden"] {
            assert!(seen_by(None).contains(name), "the whole cut names {name}");
            assert!(!seen.contains(name), "{name} is in {seen}");
        }
    }
}
