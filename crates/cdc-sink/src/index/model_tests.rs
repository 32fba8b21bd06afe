//! The index against a map that cannot be wrong.
