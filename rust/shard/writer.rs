//! Streams traces into a shard: data first, the header last, a journal beside it.
//!
//! ```text
//! begin      reserve the header's room, which no reader accepts as a header; or go on:
//!            read the journal, check the data it tells of, cut what follows
//! append     encode each tensor, pad the trace to 64 bytes, write, keep only its entry
//! end_batch  note the batch; once a group is large or old enough: sync data, then journal
//! finish     sync the group, write the header, sync, verify, publish, sync the folders
//! ```
//! A trace leaves memory when it is appended; what stays is its entry in the header, about 2 KB. After a
//! failed sync nothing written since the last one may be relied on, and syncing again would not say so:
//! the writer is spent, its journal is removed, and the shard begins anew the next time.

mod finish;
mod resume;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::journal::{self, Batch, Opening};
use super::layout::{self, LENGTH_BYTES, TraceEntry};
use super::reader::Shard;
use super::record::{Record, StoredTypes};
use super::storage::{Storage, StorageFile};
use crate::error::ShardError;

/// Bytes copied or checked at a time.
const CHUNK: usize = 4 << 20;

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

/// What a finished shard is recorded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// XXH3 of the whole file.
    pub checksum: u64,
}

/// A shard being written.
pub struct ShardWriter {
    storage: Arc<dyn Storage + Send + Sync>,
    places: Places,
    types: StoredTypes,
    file: Box<dyn StorageFile>,
    journal: Box<dyn StorageFile>,
    journal_bytes: u64,
    header_space: usize,
    data_bytes: usize,
    traces: Vec<TraceEntry>,
    notes: Vec<String>,
    grouping: Grouping,
    group: Group,
    syncing: Duration,
    is_finished: bool,
}

/// What was written since the last sync.
struct Group {
    /// Lines of the journal that wait for their data.
    lines: Vec<u8>,
    /// Traces that the journal knows, or will with those lines.
    journalled: usize,
    /// Bytes of data that were synced.
    synced: usize,
    since: Instant,
}

impl ShardWriter {
    /// Begins a shard, or goes on with it where its journal ends.
    ///
    /// A finished shard at its place is taken to be uncommitted (a kill came before its commit record),
    /// and gone on with as well. `identity` tells shards apart: what was begun as another is discarded.
    ///
    /// # Errors
    /// [`ShardError::Io`].
    pub fn begin(
        storage: Arc<dyn Storage + Send + Sync>,
        places: Places,
        identity: &str,
        traces: usize,
        types: StoredTypes,
    ) -> Result<Self, ShardError> {
        resume::take_back(&*storage, &places)?;
        if let Some(writer) = Self::go_on(&storage, &places, identity, types) {
            return Ok(writer);
        }
        let header_space = layout::header_space(traces);
        let partial = &places.partial;
        if storage.exists(partial) {
            // Not emptied in place: after a merge the same file may be another run's committed shard.
            storage.remove(partial).map_err(ShardError::io("remove", partial))?;
        }
        let mut file = storage.create(partial).map_err(ShardError::io("create", partial))?;
        file.set_length((LENGTH_BYTES + header_space) as u64)
            .map_err(ShardError::io("write", partial))?;
        let path = &places.journal;
        let mut journal = storage.create(path).map_err(ShardError::io("create", path))?;
        let opening = journal::line(&Opening::new(identity, header_space));
        journal.write_at(&opening, 0).map_err(ShardError::io("write", path))?;
        Ok(Self {
            storage,
            types,
            file,
            journal,
            journal_bytes: opening.len() as u64,
            header_space,
            data_bytes: 0,
            traces: Vec::new(),
            notes: Vec::new(),
            grouping: Grouping::default(),
            group: Group::new(0, 0),
            syncing: Duration::ZERO,
            is_finished: false,
            places,
        })
    }

    fn data_start(&self) -> u64 {
        (LENGTH_BYTES + self.header_space) as u64
    }

    /// Changes when groups of batches are synced.
    #[must_use]
    pub fn grouped(mut self, grouping: Grouping) -> Self {
        self.grouping = grouping;
        self
    }

    /// The caller's notes of the batches that are in the shard already, in their order.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Traces appended so far.
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether no trace was appended yet.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Bytes of the data appended so far.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Time spent waiting for syncs.
    pub fn syncing(&self) -> Duration {
        self.syncing
    }

    /// Appends one trace.
    ///
    /// # Errors
    /// [`ShardError::Trace`] where it does not fit the schema (the shard stays as it was),
    /// [`ShardError::Exists`] once the shard is finished, or [`ShardError::Io`].
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), ShardError> {
        let (entry, data) = record.lay_out(self.types, self.data_bytes)?;
        self.write(entry, &data)
    }

    /// Appends a trace of another shard, byte for byte, under a number of this one.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] where it is not what its checksums say, and those of [`Self::append`].
    pub fn append_from(
        &mut self,
        shard: &Shard,
        position: usize,
        number: usize,
    ) -> Result<(), ShardError> {
        let (mut entry, data) = shard.trace(position)?;
        let begin = entry.tensors.first().map_or(0, |tensor| tensor.begin);
        for tensor in &mut entry.tensors {
            tensor.begin = tensor.begin - begin + self.data_bytes;
            tensor.end = tensor.end - begin + self.data_bytes;
        }
        entry.number = number;
        self.write(entry, data)
    }

    fn write(&mut self, entry: TraceEntry, data: &[u8]) -> Result<(), ShardError> {
        if self.is_finished {
            return Err(ShardError::Exists { path: self.places.shard.display().to_string() });
        }
        let offset = self.data_start() + self.data_bytes as u64;
        self.file.write_at(data, offset).map_err(ShardError::io("write", &self.places.partial))?;
        self.data_bytes += data.len();
        self.traces.push(entry);
        Ok(())
    }

    /// Ends a batch, which is what can be gone on after; `note` is handed back then.
    ///
    /// # Errors
    /// [`ShardError::Io`]; after a failed sync the writer is spent.
    pub fn end_batch(&mut self, note: &str) -> Result<(), ShardError> {
        let traces = self.traces[self.group.journalled..].to_vec();
        let batch = Batch { data: self.data_bytes, note: note.to_owned(), traces };
        self.group.lines.extend(journal::line(&batch));
        self.group.journalled = self.traces.len();
        self.notes.push(batch.note);
        let is_large = self.data_bytes - self.group.synced >= self.grouping.bytes;
        if is_large || self.group.since.elapsed() >= self.grouping.age {
            self.sync_group()?;
        }
        Ok(())
    }

    /// Makes what was written durable, then the journal that tells of it.
    fn sync_group(&mut self) -> Result<(), ShardError> {
        let began = Instant::now();
        let synced =
            self.file.sync().map_err(ShardError::io("sync", &self.places.partial)).and_then(|()| {
                self.journal
                    .write_at(&self.group.lines, self.journal_bytes)
                    .and_then(|()| self.journal.sync())
                    .map_err(ShardError::io("sync", &self.places.journal))
            });
        self.syncing += began.elapsed();
        if synced.is_err() {
            // Ignored where it fails too: a journal that stays is checked against the data.
            let _ = self.storage.remove(&self.places.journal);
            return synced;
        }
        self.journal_bytes += self.group.lines.len() as u64;
        self.group = Group::new(self.traces.len(), self.data_bytes);
        Ok(())
    }

    /// Removes the journal, once the commit record is durable or the shard is to begin anew.
    ///
    /// # Errors
    /// [`ShardError::Io`].
    pub fn forget(&self) -> Result<(), ShardError> {
        let journal = &self.places.journal;
        match self.storage.remove(journal) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(ShardError::io("remove", journal)),
        }
    }
}

impl Group {
    fn new(journalled: usize, synced: usize) -> Self {
        Self { lines: Vec::new(), journalled, synced, since: Instant::now() }
    }
}

/// Where the parts of the shard `name` of a run lie.
pub fn places(run: &Path, name: &str) -> Places {
    Places {
        partial: run.join("partial").join(format!("{name}.safetensors")),
        journal: run.join("partial").join(format!("{name}.journal")),
        shard: run.join("shards").join(format!("{name}.safetensors")),
    }
}
