//! cdc-wal as its users see it: against a scripted walsender, against a real PostgreSQL, and the
//! decoder against another project's encoder.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

mod codec;
mod control;
mod fake;
mod fixture;
mod live;
