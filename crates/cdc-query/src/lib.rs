//! cdc-query
