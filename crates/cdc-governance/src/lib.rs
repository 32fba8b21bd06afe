//! cdc-governance
