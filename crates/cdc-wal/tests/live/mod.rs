//! The traps of logical replication against a real PostgreSQL.

mod changes;
mod lifecycle;
mod positions;
mod second_client;
mod security;
mod streamed;
