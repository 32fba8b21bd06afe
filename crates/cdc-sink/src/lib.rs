//! cdc-sink
