//! From one schema of a table to the next: columns are followed by `attnum`, so that a rename keeps
//! its field id and a column that was dropped and added again gets a new one.

use std::fmt;

use crate::schema::omission;
use crate::{
    Column, FieldId, Identity, OmittedColumn, SourceColumn, SourceTable, StoredAs, StoredType,
    TableSchema, TypeFit, TypePolicy,
};

/// What decides the form of a column that is new or of another type.
#[derive(Clone, Copy)]
pub struct SchemaRules<'a> {
    /// The type map.
    pub policy: &'a TypePolicy,
    /// The configured form of a column, by name.
    pub declared: &'a dyn Fn(&str) -> Option<StoredAs>,
    /// Whether the publication sends stored generated columns.
    pub publishes_generated: bool,
}

/// The form of a column whose type on the source is as it was.
#[derive(Clone, Copy)]
enum Forms<'a> {
    /// That of the files which are there.
    AsKnown(SchemaRules<'a>),
    /// The one that is declared now.
    AsDeclared(SchemaRules<'a>),
}

/// One difference between two schemas of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStep {
    /// A column is new.
    Added {
        /// The column.
        column: String,
    },
    /// A column is gone.
    Dropped {
        /// The column.
        column: String,
    },
    /// A column has another name and its old field id.
    Renamed {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A column has another type.
    Retyped {
        /// The column, as it is named now.
        column: String,
        /// PostgreSQL's name of the type before.
        from: String,
        /// And now.
        to: String,
        /// What becomes of the values in older files.
        fit: TypeFit,
    },
    /// A column allows NULL that did not, or the other way round.
    Nullability {
        /// The column.
        column: String,
        /// Whether it does now.
        nullable: bool,
    },
    /// Rows are told apart by other columns.
    Identity {
        /// Before, as [`Identity::label`] and columns.
        from: String,
        /// Now.
        to: String,
    },
    /// Other columns than before are left out.
    Omitted {
        /// Those that are now.
        columns: Vec<String>,
    },
}

impl SchemaStep {
    /// One word for metrics (`pgcdc_schema_reconciles_total`).
    pub fn kind(&self) -> &'static str {
        match self {
            SchemaStep::Added { .. } => "add",
            SchemaStep::Dropped { .. } => "drop",
            SchemaStep::Renamed { .. } => "rename",
            SchemaStep::Retyped { .. } => "type",
            SchemaStep::Nullability { .. } => "nullability",
            SchemaStep::Identity { .. } => "identity",
            SchemaStep::Omitted { .. } => "omitted",
        }
    }
}

impl fmt::Display for SchemaStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaStep::Added { column } => write!(f, "+{column}"),
            SchemaStep::Dropped { column } => write!(f, "-{column}"),
            SchemaStep::Renamed { from, to } => write!(f, "~{from} renamed to {to}"),
            SchemaStep::Retyped { column, from, to, .. } => write!(f, "~{column} {from} to {to}"),
            SchemaStep::Nullability { column, nullable: true } => write!(f, "~{column} nullable"),
            SchemaStep::Nullability { column, .. } => write!(f, "~{column} not null"),
            SchemaStep::Identity { from, to } => write!(f, "~identity {from} to {to}"),
            SchemaStep::Omitted { columns } => write!(f, "~omitted ({})", columns.join(", ")),
        }
    }
}

impl TableSchema {
    /// The schema of the table as `source` describes it now, one version on. A column that goes on
    /// keeps its field id; others get ids that were never used, those of `ahead` first: a schema of
    /// this table that was written and not committed, whose files may be there already.
    pub fn evolved(
        &self,
        source: &SourceTable,
        identity: Identity,
        rules: SchemaRules<'_>,
        ahead: Option<&TableSchema>,
    ) -> TableSchema {
        self.next(source, identity, Forms::AsKnown(rules), ahead)
    }

    /// The schema under which all rows of the table are written anew: as [`TableSchema::evolved`],
    /// but in the forms that the configuration declares now. It is `self` where nothing differs.
    pub fn recopied(
        &self,
        source: &SourceTable,
        identity: Identity,
        rules: SchemaRules<'_>,
        ahead: Option<&TableSchema>,
    ) -> TableSchema {
        let mut next = self.next(source, identity, Forms::AsDeclared(rules), ahead);
        if let Some(ahead) = ahead {
            // the rows of one version have one schema, whoever reads them
            next.version = next.version.max(ahead.version.saturating_add(1));
        }
        let is_same = ahead.is_none()
            && next.columns == self.columns
            && next.identity == self.identity
            && next.omitted == self.omitted;
        if is_same { self.clone() } else { next }
    }

    fn next(
        &self,
        source: &SourceTable,
        identity: Identity,
        forms: Forms<'_>,
        ahead: Option<&TableSchema>,
    ) -> TableSchema {
        let (Forms::AsKnown(rules) | Forms::AsDeclared(rules)) = forms;
        let reserved = ahead.map_or(FieldId(0), |ahead| ahead.next_field_id);
        let mut next = TableSchema {
            table: self.table.clone(),
            version: self.version.saturating_add(1),
            columns: Vec::with_capacity(source.columns.len()),
            identity,
            next_field_id: self.next_field_id.max(reserved),
            omitted: Vec::new(),
        };
        for column in &source.columns {
            match omission(column, rules.publishes_generated) {
                Some(reason) => {
                    next.omitted.push(OmittedColumn { name: column.name.clone(), reason });
                }
                None => {
                    let column = next.follow(self, column, forms, ahead);
                    next.columns.push(column);
                }
            }
        }
        next
    }

    fn follow(
        &mut self,
        before: &TableSchema,
        source: &SourceColumn,
        forms: Forms<'_>,
        ahead: Option<&TableSchema>,
    ) -> Column {
        let (Forms::AsKnown(rules) | Forms::AsDeclared(rules)) = forms;
        let known = before.columns.iter().find(|column| column.attnum == source.attnum);
        let mapped = rules.policy.map(&source.pg_type, (rules.declared)(&source.name));
        let (stored, lossy) = match (known, forms) {
            // another choice in the configuration is no change of the source
            (Some(known), Forms::AsKnown(_)) if known.pg_type == source.pg_type => {
                (known.stored.clone(), known.lossy)
            }
            _ => (mapped.stored, mapped.lossy),
        };
        let goes_on = known.filter(|known| {
            let (from, to) = (&known.pg_type, &source.pg_type);
            TypeFit::of(from, &known.stored, to, &stored) != TypeFit::Retired
        });
        let (field_id, element_id) = match goes_on {
            Some(known) => (known.field_id, known.element_id),
            None => self.give_ids(before, source.attnum, &stored, ahead),
        };
        Column {
            name: source.name.clone(),
            field_id,
            element_id,
            attnum: source.attnum,
            pg_type: source.pg_type.clone(),
            stored,
            nullable: source.nullable,
            lossy: lossy || goes_on.is_some_and(|known| known.lossy),
        }
    }

    fn give_ids(
        &mut self,
        before: &TableSchema,
        attnum: i16,
        stored: &StoredType,
        ahead: Option<&TableSchema>,
    ) -> (FieldId, Option<FieldId>) {
        let given = ahead.and_then(|ahead| {
            let same = |column: &&Column| column.attnum == attnum && column.stored == *stored;
            ahead.columns.iter().find(same)
        });
        if let Some(given) = given.filter(|given| given.field_id >= before.next_field_id) {
            return (given.field_id, given.element_id);
        }
        let field_id = self.allocate();
        (field_id, matches!(stored, StoredType::List(_)).then(|| self.allocate()))
    }

    /// What differs in `next`; empty if the two describe the same table.
    pub fn steps_to(&self, next: &TableSchema) -> Vec<SchemaStep> {
        let mut steps = Vec::new();
        let is_kept = |before: &Column| next.columns.iter().any(|c| c.attnum == before.attnum);
        let dropped = self.columns.iter().filter(|column| !is_kept(column));
        steps.extend(dropped.map(|c| SchemaStep::Dropped { column: c.name.clone() }));
        for column in &next.columns {
            match self.columns.iter().find(|before| before.attnum == column.attnum) {
                Some(before) => column_steps(before, column, &mut steps),
                None => steps.push(SchemaStep::Added { column: column.name.clone() }),
            }
        }
        let (from, to) = (self.identity_text(), next.identity_text());
        if self.identity_key() != next.identity_key() {
            steps.push(SchemaStep::Identity { from, to });
        }
        let names = |omitted: &[OmittedColumn]| -> Vec<String> {
            omitted.iter().map(|column| column.name.clone()).collect()
        };
        let (before, columns) = (names(&self.omitted), names(&next.omitted));
        if before != columns {
            steps.push(SchemaStep::Omitted { columns });
        }
        steps
    }

    fn identity_text(&self) -> String {
        match self.identity.columns() {
            [] => self.identity.label(),
            columns => format!("{}({})", self.identity.label(), columns.join(", ")),
        }
    }

    /// The identity by its columns' field ids, so that a rename does not change it.
    fn identity_key(&self) -> (String, Vec<FieldId>) {
        let ids = self.identity_positions().into_iter().map(|at| self.columns[at].field_id);
        (self.identity.label(), ids.collect())
    }
}

fn column_steps(before: &Column, column: &Column, steps: &mut Vec<SchemaStep>) {
    if before.name != column.name {
        let (from, to) = (before.name.clone(), column.name.clone());
        steps.push(SchemaStep::Renamed { from, to });
    }
    if before.pg_type != column.pg_type {
        steps.push(SchemaStep::Retyped {
            column: column.name.clone(),
            from: before.pg_type.name.clone(),
            to: column.pg_type.name.clone(),
            fit: TypeFit::of(&before.pg_type, &before.stored, &column.pg_type, &column.stored),
        });
    }
    if before.nullable != column.nullable {
        let (column, nullable) = (column.name.clone(), column.nullable);
        steps.push(SchemaStep::Nullability { column, nullable });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generated, PgType, ReplicaIdentity, TableKind, TableName, oid};

    fn column(name: &str, attnum: i16, type_oid: u32) -> SourceColumn {
        SourceColumn {
            name: name.to_owned(),
            attnum,
            pg_type: PgType::base(type_oid, &format!("type{type_oid}")),
            nullable: true,
            generated: Generated::No,
        }
    }

    fn source(columns: &[SourceColumn]) -> SourceTable {
        SourceTable {
            oid: 16_400,
            name: TableName::new("public", "t"),
            kind: TableKind::Table,
            partition_root: None,
            columns: columns.to_vec(),
            primary_key: vec![columns[0].name.clone()],
            replica_identity: ReplicaIdentity::Default,
            estimated_rows: -1,
            heap_bytes: 0,
        }
    }

    fn key(name: &str) -> Identity {
        Identity::PrimaryKey(vec![name.to_owned()])
    }

    fn rules(policy: &TypePolicy) -> SchemaRules<'_> {
        SchemaRules { policy, declared: &|_| None, publishes_generated: false }
    }

    fn first(columns: &[SourceColumn]) -> TableSchema {
        let policy = TypePolicy::default();
        TableSchema::first(&source(columns), key(&columns[0].name), &policy, |_| None, false)
    }

    fn evolve(before: &TableSchema, columns: &[SourceColumn]) -> TableSchema {
        let policy = TypePolicy::default();
        before.evolved(&source(columns), key(&columns[0].name), rules(&policy), None)
    }

    fn ids(schema: &TableSchema) -> Vec<i32> {
        schema.columns.iter().map(|column| column.field_id.0).collect()
    }

    fn told(before: &TableSchema, next: &TableSchema) -> Vec<String> {
        before.steps_to(next).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ids_follow_attnum_through_rename_drop_and_add() {
        let before = first(&[column("id", 1, oid::INT4), column("a", 2, 25), column("b", 3, 25)]);
        assert_eq!(ids(&before), [100, 101, 102]);
        let next = evolve(
            &before,
            &[column("key", 1, oid::INT8), column("b2", 3, 25), column("a", 4, 25)],
        );
        assert_eq!(ids(&next), [100, 102, 103]);
        assert_eq!((next.version, next.next_field_id), (2, FieldId(104)));
        let expected =
            ["-a", "~id renamed to key", "~key type23 to type20", "~b renamed to b2", "+a"];
        assert_eq!(told(&before, &next), expected);
        let kinds: Vec<_> = before.steps_to(&next).iter().map(SchemaStep::kind).collect();
        assert_eq!(kinds, ["drop", "rename", "type", "rename", "add"]);
    }

    #[test]
    fn an_incompatible_type_retires_the_field_id() {
        let before = first(&[column("id", 1, oid::INT4), column("n", 2, oid::INT4)]);
        let next = evolve(&before, &[column("id", 1, oid::INT4), column("n", 2, oid::TEXT)]);
        assert_eq!(ids(&next), [100, 102]);
        assert!(matches!(
            before.steps_to(&next)[..],
            [SchemaStep::Retyped { fit: TypeFit::Retired, .. }]
        ));
    }

    #[test]
    fn a_table_that_is_copied_anew_takes_the_forms_that_are_declared_now() {
        let columns = [column("id", 1, oid::INT4), column("n", 2, oid::NUMERIC)];
        let (before, policy) = (first(&columns), TypePolicy::default());
        let copy = |columns: &[SourceColumn], rules| {
            before.recopied(&source(columns), key(&columns[0].name), rules, None)
        };
        assert_eq!(copy(&columns, rules(&policy)), before);
        let declared = |name: &str| (name == "n").then_some(StoredAs::Decimal(20, 4));
        let declaring = SchemaRules { declared: &declared, ..rules(&policy) };
        let next = copy(&columns, declaring);
        assert_eq!((ids(&next), next.version), (vec![100, 102], 2));
        assert_eq!(next.columns[1].stored, StoredType::Decimal { precision: 20, scale: 4 });
        let evolved = before.evolved(&source(&columns), key("id"), declaring, None);
        assert_eq!(evolved.columns, before.columns);
        let renamed =
            copy(&[column("id", 1, oid::INT8), column("m", 2, oid::NUMERIC)], rules(&policy));
        assert_eq!(ids(&renamed), [100, 101]);
    }

    #[test]
    fn ids_of_a_schema_that_was_written_ahead_are_used_again() {
        let before = first(&[column("id", 1, oid::INT4)]);
        let ahead = evolve(&before, &[column("id", 1, oid::INT4), column("a", 2, oid::TEXT)]);
        let policy = TypePolicy::default();
        let again = |columns: &[SourceColumn]| {
            before.evolved(&source(columns), key("id"), rules(&policy), Some(&ahead))
        };
        assert_eq!(ids(&again(&[column("id", 1, 23), column("renamed", 2, 25)])), [100, 101]);
        // the column that had 101 was dropped meanwhile
        assert_eq!(ids(&again(&[column("id", 1, 23), column("b", 3, 25)])), [100, 102]);
        assert_eq!(ids(&again(&[column("id", 1, 23), column("a", 2, oid::INT8)])), [100, 102]);
    }

    #[test]
    fn a_renamed_key_is_the_same_identity_and_another_key_is_not() {
        let before = first(&[column("id", 1, oid::INT4), column("b", 2, oid::INT4)]);
        let renamed = evolve(&before, &[column("pk", 1, oid::INT4), column("b", 2, oid::INT4)]);
        assert_eq!(told(&before, &renamed), ["~id renamed to pk"]);
        let policy = TypePolicy::default();
        let columns = [column("id", 1, oid::INT4), column("b", 2, oid::INT4)];
        let other = before.evolved(&source(&columns), key("b"), rules(&policy), None);
        assert_eq!(told(&before, &other), ["~identity primary_key(id) to primary_key(b)"]);
        assert!(before.steps_to(&before).is_empty());
    }
}
