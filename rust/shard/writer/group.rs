//! Batches that are synced together.

use std::time::{Duration, Instant};

/// When a group of batches is synced; a kill costs one group at most.
#[derive(Debug, Clone, Copy)]
pub struct Grouping {
    /// Once its data is so large ...
    pub bytes: usize,
    /// ... or so old.
    pub age: Duration,
}

impl Default for Grouping {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Duration::from_secs(5) }
    }
}

/// What was written since the last sync.
pub(super) struct Group {
    /// Lines of the journal that wait for their data.
    pub lines: Vec<u8>,
    /// Traces that the journal knows, or will with those lines.
    pub journalled: usize,
    /// Bytes of data that were synced.
    pub synced: usize,
    /// When it was begun.
    pub since: Instant,
}

impl Group {
    /// An empty group after so many traces and bytes.
    pub fn new(journalled: usize, synced: usize) -> Self {
        Self { lines: Vec::new(), journalled, synced, since: Instant::now() }
    }

    /// Whether it is to be synced, once so many bytes of data were written.
    pub fn is_due(&self, data_bytes: usize, grouping: Grouping) -> bool {
        data_bytes - self.synced >= grouping.bytes || self.since.elapsed() >= grouping.age
    }
}
