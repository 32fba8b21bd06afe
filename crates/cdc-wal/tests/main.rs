//! cdc-wal as its users see it: against a scripted walsender, against a real PostgreSQL, and the
//! decoder against another project's encoder.

mod codec;
mod control;
mod fake;
mod fixture;
mod live;
