//! cdc-serve
