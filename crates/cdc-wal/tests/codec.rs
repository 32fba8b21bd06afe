//! The decoder against pg_walstream: its encoder makes the messages, its parser is a second
//! opinion on arbitrary bytes.

use bytes::Bytes;
use cdc_core::Cell;
use cdc_wal::{Message, OldKind, Tuples, decode};
use pg_walstream::protocol::{ColumnData, ColumnInfo, TupleData};
use pg_walstream::{
    LogicalReplicationMessage as Theirs, LogicalReplicationParser, StreamingReplicationMessage,
    encode_streaming_message_to_bytes,
};
use proptest::prelude::*;

/// Microseconds from 1970 to 2000.
const PG_EPOCH: i64 = 946_684_800_000_000;

fn column() -> impl Strategy<Value = ColumnData> {
    prop_oneof![
        Just(ColumnData::null()),
        Just(ColumnData::unchanged()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(ColumnData::text),
    ]
}

fn tuple() -> impl Strategy<Value = TupleData> {
    prop::collection::vec(column(), 0..12).prop_map(TupleData::new)
}

fn name() -> impl Strategy<Value = String> {
    "[^\\x00]{0,12}"
}

fn micros() -> impl Strategy<Value = i64> {
    -1_000_000_000_000_000i64..1_000_000_000_000_000
}

fn changes() -> impl Strategy<Value = Theirs> {
    prop_oneof![
        (any::<u32>(), tuple())
            .prop_map(|(relation_id, tuple)| Theirs::Insert { relation_id, tuple }),
        (any::<u32>(), prop::option::of((tuple(), prop::sample::select(vec!['K', 'O']))), tuple())
            .prop_map(|(relation_id, old, new_tuple)| {
                let (old_tuple, key_type) = old.unzip();
                Theirs::Update { relation_id, old_tuple, new_tuple, key_type }
            }),
        (any::<u32>(), tuple(), prop::sample::select(vec!['K', 'O'])).prop_map(
            |(relation_id, old_tuple, key_type)| Theirs::Delete {
                relation_id,
                old_tuple,
                key_type
            }
        ),
        (prop::collection::vec(any::<u32>(), 0..5), 0u8..4)
            .prop_map(|(relation_ids, flags)| Theirs::Truncate { relation_ids, flags }),
        (any::<u32>(), name(), name()).prop_map(|(type_id, namespace, type_name)| Theirs::Type {
            type_id,
            namespace,
            type_name
        }),
        (0u8..2, any::<u64>(), name(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(
            |(flags, lsn, prefix, content)| {
                Theirs::Message { flags, lsn, prefix, content: Bytes::from(content) }
            }
        ),
        (
            any::<u32>(),
            (name(), name()),
            prop::sample::select(b"dnfi".to_vec()),
            prop::collection::vec((0u8..2, name(), any::<u32>(), any::<i32>()), 0..5)
        )
            .prop_map(
                |(relation_id, (namespace, relation_name), replica_identity, columns)| {
                    let column =
                        |(flags, name, oid, typmod)| ColumnInfo::new(flags, name, oid, typmod);
                    Theirs::Relation {
                        relation_id,
                        namespace: namespace.into(),
                        relation_name: relation_name.into(),
                        replica_identity,
                        columns: columns.into_iter().map(column).collect(),
                    }
                }
            ),
    ]
}

fn frames() -> impl Strategy<Value = Theirs> {
    let lsns = || (any::<u64>(), any::<u64>());
    prop_oneof![
        (any::<u64>(), micros(), any::<u32>())
            .prop_map(|(final_lsn, timestamp, xid)| Theirs::Begin { final_lsn, timestamp, xid }),
        (lsns(), micros()).prop_map(|((commit_lsn, end_lsn), timestamp)| Theirs::Commit {
            flags: 0,
            commit_lsn,
            end_lsn,
            timestamp
        }),
        (any::<u64>(), name())
            .prop_map(|(origin_lsn, origin_name)| Theirs::Origin { origin_lsn, origin_name }),
        (any::<u32>(), any::<bool>())
            .prop_map(|(xid, first_segment)| Theirs::StreamStart { xid, first_segment }),
        Just(Theirs::StreamStop),
        (any::<u32>(), lsns(), micros()).prop_map(|(xid, (commit_lsn, end_lsn), timestamp)| {
            Theirs::StreamCommit { xid, flags: 0, commit_lsn, end_lsn, timestamp }
        }),
        (any::<u32>(), any::<u32>(), prop::option::of((any::<u64>(), micros()))).prop_map(
            |(xid, subtransaction_xid, abort)| {
                let (abort_lsn, abort_timestamp) = abort.unzip();
                Theirs::StreamAbort { xid, subtransaction_xid, abort_lsn, abort_timestamp }
            }
        ),
        two_phase(),
    ]
}

fn two_phase() -> impl Strategy<Value = Theirs> {
    let fields = (any::<u64>(), any::<u64>(), micros(), any::<u32>(), name());
    (fields, micros(), 0..5).prop_map(|((lsn, end_lsn, timestamp, xid, gid), later, kind)| {
        let flags = 0;
        match kind {
            0 => Theirs::BeginPrepare { prepare_lsn: lsn, end_lsn, timestamp, xid, gid },
            1 => Theirs::Prepare { flags, prepare_lsn: lsn, end_lsn, timestamp, xid, gid },
            2 => Theirs::CommitPrepared { flags, commit_lsn: lsn, end_lsn, timestamp, xid, gid },
            3 => Theirs::StreamPrepare { flags, prepare_lsn: lsn, end_lsn, timestamp, xid, gid },
            _ => Theirs::RollbackPrepared {
                flags,
                prepare_end_lsn: lsn,
                rollback_end_lsn: end_lsn,
                prepare_timestamp: timestamp,
                rollback_timestamp: later,
                xid,
                gid,
            },
        }
    })
}

fn same_tuple(theirs: Option<&TupleData>, ours: &[Cell<'_>]) -> bool {
    let columns = theirs.map(|tuple| tuple.columns.as_slice()).unwrap_or_default();
    columns.len() == ours.len()
        && columns.iter().zip(ours).all(|(theirs, ours)| match ours {
            Cell::Null => theirs.data_type == b'n',
            Cell::Unchanged => theirs.data_type == b'u',
            Cell::Text(bytes) => theirs.data_type == b't' && theirs.as_bytes() == *bytes,
        })
}

fn kind_of(key_type: Option<char>) -> OldKind {
    match key_type {
        None => OldKind::None,
        Some('K') => OldKind::Key,
        Some(_) => OldKind::Full,
    }
}

/// Whether both decoders say the same of a change.
fn same_change(theirs: &Theirs, ours: &Message<'_>, tuples: &Tuples<'_>) -> bool {
    match (theirs, ours) {
        (Theirs::Insert { relation_id, tuple }, Message::Insert { relation, .. }) => {
            relation_id == relation
                && same_tuple(None, &tuples.old)
                && same_tuple(Some(tuple), &tuples.new)
        }
        (
            Theirs::Update { relation_id, old_tuple, new_tuple, key_type },
            Message::Update { relation, old, .. },
        ) => {
            relation_id == relation
                && kind_of(*key_type) == *old
                && same_tuple(old_tuple.as_ref(), &tuples.old)
                && same_tuple(Some(new_tuple), &tuples.new)
        }
        (
            Theirs::Delete { relation_id, old_tuple, key_type },
            Message::Delete { relation, old, .. },
        ) => {
            relation_id == relation
                && kind_of(Some(*key_type)) == *old
                && same_tuple(Some(old_tuple), &tuples.old)
                && same_tuple(None, &tuples.new)
        }
        (
            Theirs::Truncate { relation_ids, flags },
            Message::Truncate { relations, cascade, restart_identity, .. },
        ) => {
            relation_ids.iter().copied().eq(*relations)
                && (*cascade, *restart_identity) == (flags & 1 != 0, flags & 2 != 0)
        }
        (
            Theirs::Type { type_id, namespace, type_name },
            Message::Type { oid, schema, name, .. },
        ) => type_id == oid && namespace == schema && type_name == name,
        (
            Theirs::Message { flags, lsn, prefix, content },
            Message::Logical {
                transactional, lsn: ours, prefix: our_prefix, content: bytes, ..
            },
        ) => {
            *transactional == (*flags == 1)
                && *lsn == ours.0
                && prefix == our_prefix
                && content.as_ref() == *bytes
        }
        (Theirs::Relation { .. }, Message::Relation { relation, .. }) => {
            same_relation(theirs, &relation.decode().unwrap())
        }
        _ => false,
    }
}

fn same_relation(theirs: &Theirs, ours: &cdc_wal::Relation) -> bool {
    let Theirs::Relation { relation_id, namespace, relation_name, columns, .. } = theirs else {
        return false;
    };
    let schema = if namespace.is_empty() { "pg_catalog" } else { namespace };
    *relation_id == ours.oid
        && schema == ours.schema
        && **relation_name == *ours.name
        && columns.len() == ours.columns.len()
        && columns.iter().zip(&ours.columns).all(|(theirs, ours)| {
            *theirs.name == *ours.name
                && theirs.type_id == ours.type_oid
                && theirs.type_modifier == ours.typmod
                && theirs.is_key() == ours.is_key
        })
}

/// The fields of a message about a transaction as one comparable text.
fn fields_of_theirs(theirs: &Theirs) -> String {
    use Theirs as T;
    let unix = |timestamp: &i64| timestamp + PG_EPOCH;
    match theirs {
        T::Begin { final_lsn, timestamp, xid } => {
            format!("B {final_lsn} {} {xid}", unix(timestamp))
        }
        T::Commit { commit_lsn, end_lsn, timestamp, .. } => {
            format!("C {commit_lsn} {end_lsn} {}", unix(timestamp))
        }
        T::Origin { origin_lsn, origin_name } => format!("O {origin_lsn} {origin_name}"),
        T::StreamStart { xid, first_segment } => format!("S {xid} {first_segment}"),
        T::StreamStop => "E".to_owned(),
        T::StreamCommit { xid, commit_lsn, end_lsn, timestamp, .. } => {
            format!("c {xid} {commit_lsn} {end_lsn} {}", unix(timestamp))
        }
        T::StreamAbort { xid, subtransaction_xid, abort_lsn, abort_timestamp } => {
            let abort = abort_lsn.zip(abort_timestamp.as_ref().map(unix));
            format!("A {xid} {subtransaction_xid} {abort:?}")
        }
        T::BeginPrepare { prepare_lsn, end_lsn, timestamp, xid, gid } => {
            format!("b {prepare_lsn} {end_lsn} {} {xid} {gid}", unix(timestamp))
        }
        T::Prepare { prepare_lsn, end_lsn, timestamp, xid, gid, .. } => {
            format!("P {prepare_lsn} {end_lsn} {} {xid} {gid}", unix(timestamp))
        }
        T::StreamPrepare { prepare_lsn, end_lsn, timestamp, xid, gid, .. } => {
            format!("p {prepare_lsn} {end_lsn} {} {xid} {gid}", unix(timestamp))
        }
        T::CommitPrepared { commit_lsn, end_lsn, timestamp, xid, gid, .. } => {
            format!("K {commit_lsn} {end_lsn} {} {xid} {gid}", unix(timestamp))
        }
        T::RollbackPrepared {
            prepare_end_lsn,
            rollback_end_lsn,
            prepare_timestamp,
            rollback_timestamp,
            xid,
            gid,
            ..
        } => {
            let times = (unix(prepare_timestamp), unix(rollback_timestamp));
            format!("r {prepare_end_lsn} {rollback_end_lsn} {times:?} {xid} {gid}")
        }
        other => panic!("{other:?} is a change"),
    }
}

fn fields_of_ours(ours: &Message<'_>) -> String {
    use Message as M;
    match ours {
        M::Begin { final_lsn, commit_micros, xid } => {
            format!("B {} {commit_micros} {xid}", final_lsn.0)
        }
        M::Commit { commit_lsn, end_lsn, commit_micros } => {
            format!("C {} {} {commit_micros}", commit_lsn.0, end_lsn.0)
        }
        M::Origin { lsn, name } => format!("O {} {name}", lsn.0),
        M::StreamStart { xid, first } => format!("S {xid} {first}"),
        M::StreamStop => "E".to_owned(),
        M::StreamCommit { xid, commit_lsn, end_lsn, commit_micros } => {
            format!("c {xid} {} {} {commit_micros}", commit_lsn.0, end_lsn.0)
        }
        M::StreamAbort { xid, subxid, abort } => {
            format!("A {xid} {subxid} {:?}", abort.map(|(lsn, micros)| (lsn.0, micros)))
        }
        M::BeginPrepare { prepare_lsn, end_lsn, prepare_micros, xid, gid } => {
            format!("b {} {} {prepare_micros} {xid} {gid}", prepare_lsn.0, end_lsn.0)
        }
        M::Prepare { prepare_lsn, end_lsn, prepare_micros, xid, gid } => {
            format!("P {} {} {prepare_micros} {xid} {gid}", prepare_lsn.0, end_lsn.0)
        }
        M::StreamPrepare { prepare_lsn, end_lsn, prepare_micros, xid, gid } => {
            format!("p {} {} {prepare_micros} {xid} {gid}", prepare_lsn.0, end_lsn.0)
        }
        M::CommitPrepared { commit_lsn, end_lsn, commit_micros, xid, gid } => {
            format!("K {} {} {commit_micros} {xid} {gid}", commit_lsn.0, end_lsn.0)
        }
        M::RollbackPrepared { prepare_end_lsn, end_lsn, micros, xid, gid } => {
            format!("r {} {} {micros:?} {xid} {gid}", prepare_end_lsn.0, end_lsn.0)
        }
        other => panic!("{other:?} is a change"),
    }
}

fn encode(message: Theirs, xid: Option<u32>) -> Vec<u8> {
    let message = StreamingReplicationMessage { message, is_streaming: xid.is_some(), xid };
    encode_streaming_message_to_bytes(&message, 4).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn changes_round_trip_inside_and_outside_streamed_transactions(
        theirs in changes(), xid in prop::option::of(any::<u32>()),
    ) {
        let bytes = encode(theirs.clone(), xid);
        let mut tuples = Tuples::default();
        let ours = decode(&bytes, xid.is_some(), &mut tuples).unwrap();
        prop_assert!(same_change(&theirs, &ours, &tuples), "{theirs:?}\n{ours:?}\n{tuples:?}");
    }

    #[test]
    fn transaction_messages_round_trip(theirs in frames()) {
        let bytes = encode(theirs.clone(), None);
        let ours = decode(&bytes, false, &mut Tuples::default()).unwrap();
        prop_assert_eq!(fields_of_theirs(&theirs), fields_of_ours(&ours));
    }

    #[test]
    fn every_truncation_is_an_error(theirs in prop_oneof![changes(), frames()], cut in any::<prop::sample::Index>()) {
        let bytes = encode(theirs.clone(), None);
        let cut = cut.index(bytes.len());
        // the position and time of a StreamAbort are optional, and a Relation decodes late
        let whole_without = matches!(theirs, Theirs::StreamAbort { .. }) && cut == 9;
        match decode(&bytes[..cut], false, &mut Tuples::default()) {
            Ok(Message::Relation { relation, .. }) => prop_assert!(relation.decode().is_err()),
            Ok(_) => prop_assert!(whole_without),
            Err(_) => {}
        }
    }

    #[test]
    fn garbage_is_an_error_or_what_the_other_parser_reads(
        tag in prop::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec()),
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), prop::sample::select(b"tnubKON".to_vec()), any::<u8>()], 0..60),
    ) {
        let bytes = [vec![tag], body].concat();
        let mut tuples = Tuples::default();
        let Ok(ours) = decode(&bytes, false, &mut tuples) else { return Ok(()) };
        if !matches!(ours, Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. }) {
            return Ok(());
        }
        let mut parser = LogicalReplicationParser::with_protocol_version(4);
        let theirs = parser.parse_wal_message(&bytes).unwrap();
        prop_assert!(same_change(&theirs.message, &ours, &tuples));
    }
}

#[test]
fn a_binary_value_is_refused_because_it_was_not_asked_for() {
    let columns = vec![ColumnData::binary(vec![1, 2])];
    let bytes = encode(Theirs::Insert { relation_id: 1, tuple: TupleData::new(columns) }, None);
    let error = decode(&bytes, false, &mut Tuples::default()).unwrap_err();
    assert!(error.to_string().contains("binary"), "{error}");
}

#[test]
fn the_cells_of_a_second_row_use_the_allocation_of_the_first() {
    let row = |columns: usize| {
        let tuple = TupleData::new(vec![ColumnData::text(b"x".to_vec()); columns]);
        encode(Theirs::Insert { relation_id: 1, tuple }, None)
    };
    let wide = row(100);
    let mut tuples = Tuples::default();
    decode(&wide, false, &mut tuples).unwrap();
    let (room, at) = (tuples.new.capacity(), tuples.new.as_ptr().addr());
    let narrow = row(3);
    let mut tuples = tuples.recycle();
    decode(&narrow, false, &mut tuples).unwrap();
    assert_eq!((tuples.new.capacity(), tuples.new.as_ptr().addr()), (room, at));
}
