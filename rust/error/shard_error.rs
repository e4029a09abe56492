//! What can go wrong with a shard on disk.

use crate::shard::commit::DESCRIPTION_LIMIT;
use crate::shard::header_layout::{LONGEST_HEADER, MOST_TRACES, TRACE_LIMIT};
use crate::shard::schema::{SCHEMA, Tensor};
use crate::shard::{Damage, Violation};

/// What can go wrong with a shard on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The operating system refused.
    #[error(
        "Expected to {action} {path}, got: {source} - what is committed is safe; mend the cause and run the same command again"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that would be written is there already.
    #[error(
        "Expected no file at {path}, got one - another process committed it first; this one left it alone"
    )]
    Exists {
        /// Which file.
        path: String,
    },
    /// A finished shard that has to be recorded first.
    #[error(
        "Expected no finished shard without its commit record, got one at {path} - `hallutrace repair` writes the record again; or move the shard away, and it is made anew"
    )]
    Unrecorded {
        /// Which file.
        path: String,
    },
    /// Another process goes on with the shard; what this one wrote stays in a file that has no name.
    #[error(
        "Expected {path} to be this process's, got another file of that name - another process goes on with the shard; this one left it alone"
    )]
    Superseded {
        /// Which file.
        path: String,
    },
    /// A writer of which a write or a sync failed: what it wrote since the last sync may be lost.
    #[error(
        "Expected a writer without errors, got one of {path} that failed to write or to sync - begin the shard again: it goes on where it was last synced"
    )]
    Spent {
        /// Which file.
        path: String,
    },
    /// More traces than the header of a shard can hold, whatever they are.
    #[error(
        "Expected at most {MOST_TRACES} traces in a shard, got {traces} - a header holds no more: use smaller shards"
    )]
    TooManyTraces {
        /// Traces that the shard was to have.
        traces: usize,
    },
    /// A description that would not fit into the header.
    #[error(
        "Expected at most {DESCRIPTION_LIMIT} bytes that describe a shard, got {bytes} - its environment has entries that are too long"
    )]
    LongDescription {
        /// Of its JSON.
        bytes: usize,
    },
    /// A trace that takes more of the header than any trace may.
    #[error(
        "Expected a trace that takes at most {TRACE_LIMIT} bytes in the header of its shard, got {bytes} for trace {number} - shorten its id"
    )]
    LongEntry {
        /// Number of the trace in its shard.
        number: usize,
        /// Bytes that it would take.
        bytes: usize,
    },
    /// A header that readers of safetensors would refuse.
    #[error(
        "Expected a header of at most {LONGEST_HEADER} bytes, got {bytes} - finish with fewer counts and halvings, or use smaller shards"
    )]
    LongHeader {
        /// Bytes that it would have.
        bytes: usize,
    },
    /// Other indices than traces.
    #[error("Expected the index of each of {traces} traces, got {indices} indices - give one each")]
    Indices {
        /// Indices that were given.
        indices: usize,
        /// Traces of the shard.
        traces: usize,
    },
    /// A shard of another version of the format.
    #[error(
        "Expected a shard of schema {SCHEMA}, got schema {schema} in {path} - another version of hallutrace wrote it: extract it anew"
    )]
    OtherSchema {
        /// Which file.
        path: String,
        /// Its version.
        schema: u32,
    },
    /// Bytes that no writer of this schema makes.
    #[error(
        "Expected a shard of schema {SCHEMA}, got {found} in {path} - restore the file from a copy, or delete it with its commit record and extract again"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// What was seen, and where in the file.
        found: Damage,
    },
    /// A trace that does not fit the schema.
    #[error("Expected a trace of schema {SCHEMA}, got {found} in `{tensor}` of trace {number}")]
    Trace {
        /// Number of the trace in its shard.
        number: usize,
        /// The tensor that does not fit.
        tensor: Tensor,
        /// What was seen.
        found: Violation,
    },
}

impl ShardError {
    /// What is wrong with a file.
    pub(crate) fn damaged(path: &std::path::Path, found: Damage) -> Self {
        let path = path.display().to_string();
        match found {
            Damage::Schema { schema } => Self::OtherSchema { path, schema },
            found => Self::Damaged { path, found },
        }
    }

    /// Names the action and the file of a system error; made for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}
