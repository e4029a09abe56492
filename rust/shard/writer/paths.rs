//! Where the files of a shard lie.

use std::path::{Path, PathBuf};

/// Where a shard lies while it is written, and afterwards.
#[derive(Debug, Clone)]
pub struct ShardPaths {
    /// The shard in progress.
    pub partial: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// The finished shard.
    pub shard: PathBuf,
}

impl ShardPaths {
    /// Of the shard `name` of a run.
    pub fn of(run: &Path, name: &str) -> Self {
        Self {
            partial: run.join("partial").join(format!("{name}.safetensors")),
            journal: run.join("partial").join(format!("{name}.journal")),
            shard: run.join("shards").join(format!("{name}.safetensors")),
        }
    }

    /// Where a writer that goes on with the shard works until its files are whole.
    pub(super) fn scratch(&self) -> Self {
        let beside = |path: &Path| {
            let mut name = path.to_path_buf().into_os_string();
            name.push(".new");
            PathBuf::from(name)
        };
        Self { partial: beside(&self.partial), journal: beside(&self.journal), ..self.clone() }
    }
}
