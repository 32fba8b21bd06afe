//! What each target does with its input.

use bytes::BytesMut;
use cdc_core::text::{self, TextError};
use cdc_core::{Cell, Lsn, TableName};

use crate::pgoutput::{Message, RelationCache, Tuples, decode};
use crate::session::{Rows, Seen, Splitter};
use crate::snapshot::CopyBatch;
use crate::spool::Spool;
use crate::stream::{Block, SpoolOptions};

/// First byte: whether the message stands in a streamed part. The rest: one pgoutput message.
pub(super) fn pgoutput_message(input: &[u8]) {
    let Some((first, payload)) = input.split_first() else { return };
    let mut tuples = Tuples::default();
    match decode(payload, first & 1 == 1, &mut tuples) {
        Ok(Message::Relation { relation, .. }) => {
            if let Ok(relation) = relation.decode() {
                assert!(relation.columns.len() * 10 <= payload.len());
            }
        }
        Ok(Message::Truncate { relations, .. }) => assert!(relations.count() * 4 <= payload.len()),
        Ok(Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. }) => {
            let cells = tuples.old.iter().chain(&tuples.new);
            let bytes = cells.map(|cell| match cell {
                Cell::Text(text) => text.len() + 5,
                Cell::Null | Cell::Unchanged => 1,
            });
            assert!(bytes.sum::<usize>() <= payload.len());
        }
        _ => {}
    }
}

fn spool() -> Spool {
    let directory = std::env::temp_dir();
    // so little memory that everything goes through a file
    Spool::new(SpoolOptions { directory, memory_bytes: 64, disk_bytes: 1 << 20 })
}

/// First byte: how many bytes arrive at once. The rest: frames of a stream with streamed
/// transactions, decoded to the end or the first error.
pub(super) fn message_sequence(input: &[u8]) {
    let Some((chunk, tape)) = input.split_first() else { return };
    let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), Some(spool()));
    let mut relations = RelationCache::new();
    for bytes in tape.chunks(usize::from(*chunk).max(1)) {
        splitter.room().extend_from_slice(bytes);
        loop {
            match splitter.see() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        splitter.discard_seen();
        while splitter.has_block() {
            let expected = splitter.next_len();
            let (data, idle) = splitter.take().expect("a file just written is read");
            assert_eq!(data.len(), expected);
            let mut block = Block::new(data, idle, None);
            let mut events = block.events(&mut relations);
            loop {
                match events.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    }
}

/// First byte: how many bytes arrive at once. The rest: a byte stream, of which the same must be
/// seen as if it had come whole.
pub(super) fn frame_splitter(input: &[u8]) {
    let Some((chunk, tape)) = input.split_first() else { return };
    let see = |chunk: usize| {
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), None);
        let (mut seen, mut failed) = (Vec::<Seen>::new(), false);
        'all: for bytes in tape.chunks(chunk.max(1)) {
            splitter.room().extend_from_slice(bytes);
            loop {
                match splitter.see() {
                    Ok(Some(next)) => seen.push(next),
                    Ok(None) => break,
                    Err(_) => {
                        failed = true;
                        break 'all;
                    }
                }
            }
            splitter.discard_seen();
        }
        (seen, failed)
    };
    assert_eq!(see(usize::from(*chunk)), see(tape.len()));
}

/// First byte: the number of columns. The rest: rows of COPY in text format. Where the server could
/// have written them they must read as the slow way reads them.
pub(super) fn copy_rows(input: &[u8]) {
    let Some((first, rows)) = input.split_first() else { return };
    let columns = usize::from(first % 9);
    let mut batch = CopyBatch::new(TableName::new("s", "t"), columns, Rows::of_lines(rows));
    let mut read: Vec<Vec<Option<Vec<u8>>>> = Vec::new();
    let outcome: crate::Result<u64> = batch.rows(|cells| {
        assert_eq!(cells.len(), columns);
        let owned = |cell: &Cell<'_>| match cell {
            Cell::Text(text) => Some(text.to_vec()),
            Cell::Null | Cell::Unchanged => None,
        };
        read.push(cells.iter().map(owned).collect());
        Ok(())
    });
    let Ok(count) = outcome else { return };
    assert_eq!(count, read.len() as u64);
    if columns == 0 {
        return;
    }
    let lines = rows.strip_suffix(b"\n").into_iter().flat_map(|rows| rows.split(|b| *b == b'\n'));
    for (line, read) in lines.zip(&read) {
        for (field, read) in line.split(|byte| *byte == b'\t').zip(read) {
            match (field, text::unescape_copy(field)) {
                (b"\\N", _) => assert_eq!(*read, None),
                (_, Ok(expected)) => assert_eq!(read.as_deref(), Some(&*expected)),
                (_, Err(_)) => {}
            }
        }
    }
}

/// An array's text.
pub(super) fn array_text(input: &[u8]) {
    for delimiter in [b',', b';'] {
        let mut count = 0;
        let outcome = text::elements::<TextError>(input, delimiter, |_| {
            count += 1;
            Ok(())
        });
        if outcome.is_ok() {
            assert!(count <= input.len());
        }
    }
}

/// First byte: the scale. The rest: a numeric's text, which must come back from the number.
pub(super) fn numeric_text(input: &[u8]) {
    let Some((first, digits)) = input.split_first() else { return };
    let scale = first % 39;
    let _ = (text::int64(digits), text::float64(digits), text::float32(digits));
    let Ok(value) = text::decimal(digits, 38, scale) else { return };
    let (whole, behind) = value.unsigned_abs().to_string().split_at_scale(scale);
    let digits = digits.strip_prefix(b"-").unwrap_or(digits);
    let (own_whole, own_behind) = match digits.iter().position(|byte| *byte == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    let trim = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.trim_start_matches('0').to_owned()
    };
    assert_eq!(trim(own_whole), trim(whole.as_bytes()));
    let trim = |text: &str| text.trim_end_matches('0').to_owned();
    assert_eq!(trim(&String::from_utf8_lossy(own_behind)), trim(&behind));
}

trait SplitAtScale {
    fn split_at_scale(self, scale: u8) -> (String, String);
}

impl SplitAtScale for String {
    /// The digits before and behind the point.
    fn split_at_scale(self, scale: u8) -> (String, String) {
        let scale = usize::from(scale);
        let padded = format!("{self:0>width$}", width = scale + 1);
        let (whole, behind) = padded.split_at(padded.len() - scale);
        (whole.to_owned(), behind.to_owned())
    }
}

/// A date's, time's or timestamp's text; a date must come back from its number.
pub(super) fn temporal_text(input: &[u8]) {
    let _ = (text::time_micros(input), text::timestamp_micros(input));
    let _ = (text::uuid(input), text::bytea(input, &mut Vec::new()), text::boolean(input));
    let Ok(days) = text::date_days(input) else { return };
    let (year, month, day) = civil(i64::from(days));
    let text = match year {
        1.. => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{:04}-{month:02}-{day:02} BC", 1 - year),
    };
    assert_eq!(text::date_days(text.as_bytes()), Ok(days), "{text}");
}

/// Year, month and day of a day number (Howard Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + turn, month, day)
}
