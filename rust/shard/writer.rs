//! Streams traces into a shard: data first, the header last, a journal beside it.
//!
//! ```text
//! begin      reserve the header's room, which no reader accepts as a header; or go on:
//!            read the journal, copy the data it tells of to a file of its own, check that
//! append     encode each tensor, pad the trace to 64 bytes, write, keep only its entry
//! end_batch  note the batch; once a group is large or old enough: sync data, then journal
//! finish     sync the group, write the header, sync, verify, publish, sync the folders
//! ```
//! 1. A trace leaves memory when it is appended; what stays is its entry in the header, about 2 KB.
//! 2. After a failed write or sync nothing written since the last sync may be relied on, although it can be
//!    read: the system keeps it in memory, and does not write it again. The writer is spent, and another goes
//!    on where the journal ends, with a copy that it syncs.
//! 3. Who goes on works on files of its own, which take the names of those that were there. So a process
//!    that was taken for dead and goes on as well, after a pause of its machine say, writes to files
//!    without a name, and nothing of it reaches what is published. It is told at the next sync.
//! 4. A file with a header was finished, and is never removed where finished shards are. A kill may come
//!    before its commit record: [`super::take_published`] gives all that the record says.
//! 5. What could make a shard too large for a header is refused before anything of it is written.

mod finish;
mod group;
mod paths;
mod resume;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::{DESCRIPTION_LIMIT, Description};
use super::files;
use super::header_layout::{self, LENGTH_BYTES, MOST_TRACES, TRACE_LIMIT, TraceEntry};
use super::journal::{self, Batch, Opening};
use super::published::open_finished;
use super::reader::Shard;
use super::record::{Record, StoredTypes};
use super::schema::ALIGNMENT;
use super::storage::{Storage, StorageFile};
use crate::error::ShardError;
use group::Group;
pub use group::Grouping;
pub use paths::ShardPaths;

/// What a writer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Append, end batches, finish.
    Open,
    /// Nothing: it is published.
    Finished,
    /// Nothing: a write or a sync failed.
    Spent,
}

/// A shard being written.
pub struct ShardWriter {
    storage: Arc<dyn Storage + Send + Sync>,
    paths: ShardPaths,
    description: Description,
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
    state: State,
}

/// What a writer needs to know of a shard that it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tells shards apart: what was begun as another is discarded.
    pub identity: String,
    /// What the shard will say of itself.
    pub description: Description,
    /// How many traces it may have.
    pub traces: usize,
    /// Element types on disk.
    pub types: StoredTypes,
}

impl Plan {
    /// Refuses what no header could hold.
    fn check(&self) -> Result<(), ShardError> {
        if self.traces > MOST_TRACES {
            return Err(ShardError::TooManyTraces { traces: self.traces });
        }
        let json = serde_json::to_string(&self.description).unwrap_or_default();
        if json.len() > DESCRIPTION_LIMIT {
            return Err(ShardError::LongDescription { bytes: json.len() });
        }
        Ok(())
    }
}

impl ShardWriter {
    /// Begins a shard, or goes on with it where its journal ends.
    ///
    /// # Errors
    /// [`ShardError::TooManyTraces`] or [`ShardError::LongDescription`] for what no header can hold;
    /// [`ShardError::Unrecorded`] where a finished shard is at its place, see [`super::take_published`];
    /// [`ShardError::Superseded`] where another process begins at the same time; or [`ShardError::Io`].
    pub fn begin(
        storage: Arc<dyn Storage + Send + Sync>,
        paths: ShardPaths,
        plan: Plan,
    ) -> Result<Self, ShardError> {
        plan.check()?;
        if storage.exists(&paths.shard) {
            if open_finished(&*storage, &paths.shard)?.is_some() {
                return Err(ShardError::Unrecorded { path: paths.shard.display().to_string() });
            }
            files::remove(&*storage, &paths.shard)?;
        }
        let scratch = paths.scratch();
        for path in [&scratch.partial, &scratch.journal] {
            if storage.exists(path) {
                files::remove(&*storage, path)?;
            }
        }
        let left = resume::read_journal(&*storage, &paths, &plan.identity)?;
        if let Some(left) = left
            && let Some(writer) = Self::go_on(&storage, &paths, &plan, left)?
        {
            return Ok(writer);
        }
        let header_space = header_layout::header_space(plan.traces);
        let partial = &paths.partial;
        let mut file = storage.create(partial).map_err(ShardError::io("create", partial))?;
        file.set_length((LENGTH_BYTES + header_space) as u64)
            .map_err(ShardError::io("write", partial))?;
        let path = &paths.journal;
        let mut journal = storage.create(path).map_err(ShardError::io("create", path))?;
        let opening = journal::line(&Opening::new(&plan.identity, header_space));
        journal.write_at(&opening, 0).map_err(ShardError::io("write", path))?;
        // The names too: what is synced under a name that is lost is lost.
        files::sync_folders(&*storage, [partial, path])?;
        Ok(Self {
            header_space,
            journal_bytes: opening.len() as u64,
            ..Self::of(storage, paths, plan, (file, journal))
        })
    }

    /// A writer of these files, which has nothing in it.
    fn of(
        storage: Arc<dyn Storage + Send + Sync>,
        paths: ShardPaths,
        Plan { description, types, .. }: Plan,
        (file, journal): (Box<dyn StorageFile>, Box<dyn StorageFile>),
    ) -> Self {
        Self {
            storage,
            paths,
            description,
            types,
            file,
            journal,
            journal_bytes: 0,
            header_space: 0,
            data_bytes: 0,
            traces: Vec::new(),
            notes: Vec::new(),
            grouping: Grouping::default(),
            group: Group::new(0, 0),
            syncing: Duration::ZERO,
            state: State::Open,
        }
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

    /// Refuses to act where that is over.
    fn check_open(&self) -> Result<(), ShardError> {
        let path = |path: &Path| path.display().to_string();
        match self.state {
            State::Open => Ok(()),
            State::Spent => Err(ShardError::Spent { path: path(&self.paths.partial) }),
            State::Finished => Err(ShardError::Exists { path: path(&self.paths.shard) }),
        }
    }

    /// Does something with the files, after whose failure the writer is spent.
    fn or_spent<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, ShardError>,
    ) -> Result<T, ShardError> {
        act(self).inspect_err(|_| self.state = State::Spent)
    }

    /// Makes the writer refuse what follows, after a fault of its caller's.
    pub fn spend(&mut self) {
        self.state = State::Spent;
    }

    /// Appends one trace.
    ///
    /// # Errors
    /// [`ShardError::Trace`] where it does not fit the schema, or [`ShardError::LongEntry`] where it takes
    /// too much of the header (the shard stays as it was), [`ShardError::Exists`] once the shard is finished, [`ShardError::Io`], after which the writer is
    /// spent, or [`ShardError::Spent`].
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), ShardError> {
        self.check_open()?;
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
        self.check_open()?;
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
        let bytes = header_layout::header_bytes(&entry);
        if bytes > TRACE_LIMIT {
            return Err(ShardError::LongEntry { number: entry.number, bytes });
        }
        let offset = self.data_start() + self.data_bytes as u64;
        self.or_spent(|writer| {
            let written = writer.file.write_at(data, offset);
            written.map_err(ShardError::io("write", &writer.paths.partial))
        })?;
        self.data_bytes += data.len();
        self.traces.push(entry);
        Ok(())
    }

    /// Ends a batch, which is what can be gone on after; `note` is handed back then.
    ///
    /// # Errors
    /// [`ShardError::Io`] or [`ShardError::Superseded`], after which the writer is spent;
    /// [`ShardError::Exists`] or [`ShardError::Spent`].
    pub fn end_batch(&mut self, note: &str) -> Result<(), ShardError> {
        self.check_open()?;
        let traces = self.traces[self.group.journalled..].to_vec();
        let batch = Batch { data: self.data_bytes, note: note.to_owned(), traces };
        self.group.lines.extend(journal::line(&batch));
        self.group.journalled = self.traces.len();
        self.notes.push(batch.note);
        if self.group.is_due(self.data_bytes, self.grouping) {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all batches that have ended durable, whatever the size and age of their group.
    ///
    /// # Errors
    /// As [`Self::end_batch`].
    pub fn sync(&mut self) -> Result<(), ShardError> {
        self.check_open()?;
        self.or_spent(Self::sync_group)
    }

    /// Refuses to go on where another process does.
    ///
    /// # Errors
    /// [`ShardError::Superseded`], or [`ShardError::Io`].
    pub fn check_names(&self) -> Result<(), ShardError> {
        let files = [(&self.file, &self.paths.partial), (&self.journal, &self.paths.journal)];
        for (file, path) in files {
            if !file.is_at(path).map_err(ShardError::io("look at", path))? {
                return Err(files::superseded(path));
            }
        }
        Ok(())
    }

    /// Makes what was written durable, then the journal that tells of it.
    fn sync_group(&mut self) -> Result<(), ShardError> {
        let began = Instant::now();
        self.check_names()?;
        self.file.sync().map_err(ShardError::io("sync", &self.paths.partial))?;
        self.journal
            .write_at(&self.group.lines, self.journal_bytes)
            .and_then(|()| self.journal.sync())
            .map_err(ShardError::io("sync", &self.paths.journal))?;
        self.syncing += began.elapsed();
        self.journal_bytes += self.group.lines.len() as u64;
        self.group = Group::new(self.traces.len(), self.data_bytes);
        Ok(())
    }

    /// Removes the journal, once the commit record is durable or the shard is to begin anew; not one of
    /// another process that goes on with the shard.
    ///
    /// # Errors
    /// [`ShardError::Io`].
    pub fn forget(&self) -> Result<(), ShardError> {
        files::remove_own(&*self.storage, &*self.journal, &self.paths.journal)
    }
}
