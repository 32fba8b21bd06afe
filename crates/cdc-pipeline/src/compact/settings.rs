//! What compaction and retention are told.

use std::time::Duration;

use crate::fence::BreakerSettings;
use crate::settings::{LakeSettings, RefSettings};

/// The `compaction` section, and `changelog.retention`.
#[derive(Clone, Debug)]
pub struct CompactionSettings {
    /// Between two runs inside the daemon; `None` leaves it to the command.
    pub interval: Option<Duration>,
    /// Size of a base file.
    pub target_file_bytes: u64,
    /// A file with a larger share of deleted rows is rewritten.
    pub max_delete_ratio: f64,
    /// How long an object has no reference before it is removed.
    pub orphan_grace: Duration,
    /// How long changes are kept; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// The same as the configuration spells it, for the manifest.
    pub retention_text: String,
}

impl Default for CompactionSettings {
    /// The defaults of the configuration, but nothing by itself.
    fn default() -> Self {
        Self {
            interval: None,
            target_file_bytes: 256 << 20,
            max_delete_ratio: 0.2,
            orphan_grace: Duration::from_secs(86_400),
            retention: None,
            retention_text: "0s".to_owned(),
        }
    }
}

/// What `compact` needs.
#[derive(Clone, Debug)]
pub struct CompactSettings {
    /// The lake.
    pub lake: LakeSettings,
    /// Which snapshots stay.
    pub refs: RefSettings,
    /// How it is done.
    pub compaction: CompactionSettings,
    /// When conflicts over the manifest end it.
    pub breaker: BreakerSettings,
    /// The byte budget, of which compaction takes a part.
    pub buffer_bytes_max: usize,
}
