//! cdc-iceberg
