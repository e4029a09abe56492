//! Where a shard lies, when it is synced, and what is recorded of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Where a shard lies while it is written, and afterwards.
#[derive(Debug, Clone)]
pub struct Places {
    /// The shard in progress.
    pub partial: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// The finished shard.
    pub shard: PathBuf,
}

impl Places {
    /// Where what goes on with the shard lies until it is whole.
    pub(super) fn scratch(&self) -> Self {
        let beside = |path: &Path| {
            let mut name = path.to_path_buf().into_os_string();
            name.push(".new");
            PathBuf::from(name)
        };
        Self { partial: beside(&self.partial), journal: beside(&self.journal), ..self.clone() }
    }
}

/// What a finished shard is recorded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// XXH3 of the whole file.
    pub checksum: u64,
}

/// Where the parts of the shard `name` of a run lie.
pub fn places(run: &Path, name: &str) -> Places {
    Places {
        partial: run.join("partial").join(format!("{name}.safetensors")),
        journal: run.join("partial").join(format!("{name}.journal")),
        shard: run.join("shards").join(format!("{name}.safetensors")),
    }
}
