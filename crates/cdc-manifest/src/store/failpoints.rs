//! The store's failpoints: which request's reply a test loses, by what the object is.

use std::io;

use cdc_core::failpoint;

use crate::layout::{MANIFEST_KEY, REFS_KEY};

/// After a conditional put: its reply, unless that is to be lost.
pub(super) fn put_reply<T>(key: &str, reply: object_store::Result<T>) -> object_store::Result<T> {
    let point = match key {
        MANIFEST_KEY => "s14",
        REFS_KEY => "s16",
        _ if is_delta(key) => "s8",
        _ => return reply,
    };
    if reply.is_ok() && failpoint(point) { Err(lost()) } else { reply }
}

/// After a part of an upload.
pub(super) fn part_reply(key: &str) -> object_store::Result<()> {
    if failpoint(if is_delta(key) { "s7" } else { "i6" }) { Err(lost()) } else { Ok(()) }
}

/// After an upload in parts was completed.
pub(super) fn complete_reply(key: &str) -> object_store::Result<()> {
    if is_delta(key) && failpoint("s8") { Err(lost()) } else { Ok(()) }
}

fn is_delta(key: &str) -> bool {
    key.contains("/deltas/")
}

fn lost() -> object_store::Error {
    let source = io::Error::new(io::ErrorKind::TimedOut, "failpoint").into();
    object_store::Error::Generic { store: "failpoint", source }
}
