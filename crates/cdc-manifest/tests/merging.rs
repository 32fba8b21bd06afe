//! Merging two changes of one manifest: nobody's change is lost, and what excludes each other is
//! refused.

use cdc_core::{Epoch, Lsn, TableName};
use cdc_manifest::{Error, Gap, Manifest, TableEntry};
use proptest::prelude::*;

use crate::lake::{example, flushed};

fn table(manifest: &mut Manifest) -> &mut TableEntry {
    manifest.tables.values_mut().find(|entry| entry.is_active()).unwrap()
}

fn gap(from: u64) -> Gap {
    Gap {
        lsn_from: Lsn(from),
        lsn_to: Lsn(from + 1),
        reason: "test".into(),
        epoch_from: None,
        epoch_to: None,
        extra: Default::default(),
    }
}

type Edit = fn(&mut Manifest);

/// Changes that different writers make, no two of the same field.
const EDITS: [(&str, Edit); 9] = [
    ("flush", |m| *m = flushed(m)),
    ("verify", |m| {
        table(m).verified_through = Some(Lsn(7));
        table(m).verified_at = Some("2026-06-01T00:00:00Z".parse().unwrap());
    }),
    ("compaction", |m| {
        table(m).base_path = Some("public.orders/base/base_000002/".into());
        m.compaction.last_compacted_at = "2026-06-02T00:00:00Z".parse().unwrap();
    }),
    ("roles", |m| {
        m.roles.insert("auditor".into(), Default::default());
    }),
    ("timeline", |m| m.source.timeline += 1),
    ("gap", |m| table(m).gaps.push(gap(1))),
    ("excluded", |m| {
        let name = TableName::new("public", "new_table");
        m.tables.insert(name.clone(), TableEntry::excluded(&name, "removed"));
    }),
    ("unknown field", |m| {
        m.extra.insert("of_a_newer_build".into(), serde_json::json!({"a": [1, 2]}));
    }),
    ("unknown field of a table", |m| {
        table(m).extra.insert("of_a_newer_build".into(), serde_json::json!(7));
    }),
];

fn edited(base: &Manifest, edit: Edit) -> Manifest {
    let mut next = base.clone();
    edit(&mut next);
    next
}

proptest! {
    #[test]
    fn changes_of_different_fields_commute_and_none_is_lost(
        ours in prop::collection::btree_set(0..EDITS.len(), 0..5),
        theirs in prop::collection::btree_set(0..EDITS.len(), 0..5),
    ) {
        let base = example();
        let apply = |chosen: &mut dyn Iterator<Item = usize>| {
            chosen.fold(base.clone(), |next, at| edited(&next, EDITS[at].1))
        };
        // each edit belongs to one side
        let theirs: Vec<usize> = theirs.into_iter().filter(|at| !ours.contains(at)).collect();
        let (left, right) = (apply(&mut ours.iter().copied()), apply(&mut theirs.iter().copied()));
        let merged = Manifest::merge(&base, &left, &right).unwrap();
        prop_assert_eq!(&Manifest::merge(&base, &right, &left).unwrap(), &merged);
        let mut both = ours.iter().copied().chain(theirs.iter().copied()).collect::<Vec<_>>();
        both.sort_unstable();
        prop_assert_eq!(merged, apply(&mut both.into_iter()));
    }
}

#[test]
fn one_side_alone_is_taken_whole() {
    let base = example();
    for (name, edit) in EDITS {
        let changed = edited(&base, edit);
        assert_eq!(Manifest::merge(&base, &changed, &base).unwrap(), changed, "{name}");
        assert_eq!(Manifest::merge(&base, &base, &changed).unwrap(), changed, "{name}");
        assert_eq!(Manifest::merge(&base, &changed, &changed).unwrap(), changed, "{name}");
    }
}

#[test]
fn of_two_coverages_the_higher_stands_with_its_time() {
    let base = example();
    let cover = |more: u64, at: &str| {
        let mut next = base.clone();
        next.covered_lsn = Lsn(base.covered_lsn.0 + more);
        next.covered_at = at.parse().unwrap();
        next
    };
    // the higher position has the earlier time: a group is never mixed
    let (low, high) = (cover(10, "2026-06-02T00:00:00Z"), cover(20, "2026-06-01T00:00:00Z"));
    for (ours, theirs) in [(&low, &high), (&high, &low)] {
        let merged = Manifest::merge(&base, ours, theirs).unwrap();
        assert_eq!((merged.covered_lsn, merged.covered_at), (high.covered_lsn, high.covered_at));
    }
}

#[test]
fn the_gaps_of_both_sides_stay() {
    let base = example();
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    table(&mut ours).gaps = vec![gap(1), gap(5)];
    table(&mut theirs).gaps = vec![gap(1), gap(9)];
    let mut merged = Manifest::merge(&base, &ours, &theirs).unwrap();
    let from: Vec<u64> = table(&mut merged).gaps.iter().map(|gap| gap.lsn_from.0).collect();
    assert_eq!(from, [1, 9, 5]);
}

#[test]
fn a_gap_that_both_sides_stretched_is_one_gap() {
    let mut base = example();
    table(&mut base).gaps = vec![gap(1)];
    let stretched = |to: u64| {
        let mut next = base.clone();
        table(&mut next).gaps[0].lsn_to = Lsn(to);
        next
    };
    let (short, long) = (stretched(10), stretched(20));
    for (ours, theirs) in [(&short, &long), (&long, &short)] {
        let mut merged = Manifest::merge(&base, ours, theirs).unwrap();
        assert_eq!(table(&mut merged).gaps, table(&mut long.clone()).gaps);
    }
}

#[test]
fn two_epochs_of_one_number_are_refused() {
    let base = example();
    let ours = flushed(&base);
    let mut theirs = flushed(&base);
    theirs.commit_lsn = Lsn(ours.commit_lsn.0 + 1);
    theirs.covered_lsn = theirs.commit_lsn;
    theirs.batch_id = "somebody else's".into();
    assert_eq!(theirs.epoch, Epoch(base.epoch.0 + 1));
    let refused = Manifest::merge(&base, &ours, &theirs).unwrap_err();
    assert!(matches!(refused, Error::Diverged { .. }), "{refused}");
    assert_eq!(refused.kind(), cdc_core::ErrorKind::Conflict);
}
