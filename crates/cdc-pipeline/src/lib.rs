//! cdc-pipeline
