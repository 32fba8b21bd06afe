//! The live rows of some files of a table as new, larger files in identity order.
//!
//! ```text
//! lake files less deleted rows ─> runs sorted in memory ─> chains on disk ─> merge ─> base files
//!          │ old places                (one that follows on another extends its chain)    │
//!          └────────────────> index patch <─────────────────────────────── new places ───┘
//! ```
//! Nothing is committed here. Rows that are deleted meanwhile are found in the new files by the
//! patch, which knows where each identity went.

mod chain;
mod input;
mod merge;
mod rewriter;

pub use input::RewriteInput;
pub use rewriter::{NewFile, RewriteOptions, RewriteSpec, Rewritten, rewrite};
