//! cdc-runtime
