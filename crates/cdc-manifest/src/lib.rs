//! cdc-manifest
