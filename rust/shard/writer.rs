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

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::Xxh3;

use super::files;
use super::journal::{self, Batch, Opening};
use super::layout::{self, LENGTH_BYTES, LONGEST_HEADER, TraceEntry};
use super::reader::{self, Shard};
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
        take_back(&*storage, &places)?;
        if let Some(writer) = Self::go_on(&storage, &places, identity, types) {
            return Ok(writer);
        }
        let header_space = layout::header_space(traces);
        let partial = &places.partial;
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

    /// The shard as its journal has it, if journal and data can be trusted.
    fn go_on(
        storage: &Arc<dyn Storage + Send + Sync>,
        places: &Places,
        identity: &str,
        types: StoredTypes,
    ) -> Option<Self> {
        let mut journal = storage.open(&places.journal).ok()?;
        let mut bytes = vec![0; usize::try_from(journal.length().ok()?).ok()?];
        journal.read_at(&mut bytes, 0).ok()?;
        let (opening, batches, trusted) = journal::read(&bytes)?;
        if opening != Opening::new(identity, opening.header_space) {
            return None;
        }
        let mut file = storage.open(&places.partial).ok()?;
        let mut writer = Self {
            storage: Arc::clone(storage),
            places: places.clone(),
            types,
            journal,
            journal_bytes: trusted as u64,
            header_space: opening.header_space,
            data_bytes: batches.last().map_or(0, |batch| batch.data),
            grouping: Grouping::default(),
            group: Group::new(0, 0),
            syncing: Duration::ZERO,
            is_finished: false,
            notes: batches.iter().map(|batch| batch.note.clone()).collect(),
            traces: batches.into_iter().flat_map(|batch| batch.traces).collect(),
            file: {
                let end = LENGTH_BYTES.checked_add(opening.header_space)?;
                (file.length().ok()? >= end as u64).then_some(file)?
            },
        };
        writer.check_data().ok()?;
        // The tail after the last whole batch was never promised.
        writer.file.set_length(writer.data_start() + writer.data_bytes as u64).ok()?;
        writer.journal.set_length(writer.journal_bytes).ok()?;
        writer.group = Group::new(writer.traces.len(), writer.data_bytes);
        Some(writer)
    }

    /// Checks that the data is what the entries say.
    fn check_data(&mut self) -> Result<(), ShardError> {
        let path = self.places.partial.display().to_string();
        let damaged =
            |found: &str| ShardError::Damaged { path: path.clone(), found: found.to_owned() };
        let mut due = 0;
        for entry in self.traces.iter().flat_map(|trace| &trace.tensors) {
            if entry.begin != due || entry.form.bytes() != entry.end.checked_sub(entry.begin) {
                return Err(damaged("entries that do not follow each other"));
            }
            due = entry.end;
        }
        if due != self.data_bytes {
            return Err(damaged("a batch that does not end with its last trace"));
        }
        let start = self.data_start();
        let mut buffer = vec![0; CHUNK];
        for entry in self.traces.iter().flat_map(|trace| &trace.tensors) {
            let mut hash = Xxh3::new();
            for begin in (entry.begin..entry.end).step_by(CHUNK) {
                let part = &mut buffer[..CHUNK.min(entry.end - begin)];
                self.file
                    .read_at(part, start + begin as u64)
                    .map_err(ShardError::io("read", &self.places.partial))?;
                hash.update(part);
            }
            if hash.digest() != entry.checksum {
                return Err(damaged("bytes that their checksum does not know"));
            }
        }
        Ok(())
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

    /// Writes the header, syncs, verifies what was written, and publishes the shard.
    ///
    /// The journal stays until [`Self::forget`]: a kill before the commit record goes on from it.
    ///
    /// # Errors
    /// [`ShardError::Exists`] where another process was first; [`ShardError::Io`];
    /// [`ShardError::Damaged`] where the disk gives back other bytes than were written.
    pub fn finish(&mut self) -> Result<Finished, ShardError> {
        let header = layout::encode(&self.traces);
        if header.len() > self.header_space {
            self.move_data(layout::padded_header(header.len()))?;
        }
        self.sync_group()?;
        let mut bytes = (self.header_space as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(LENGTH_BYTES + self.header_space, b' ');
        drop(header);
        let began = Instant::now();
        self.file
            .write_at(&bytes, 0)
            .and_then(|()| self.file.sync())
            .map_err(ShardError::io("write", &self.places.partial))?;
        // The header of a large shard is the largest thing in memory: once is enough.
        drop(bytes);
        let finished = self.verify()?;
        files::publish(&*self.storage, &self.places.partial, &self.places.shard)?;
        self.is_finished = true;
        self.syncing += began.elapsed();
        Ok(finished)
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

    /// Reads the whole file back, with the strict reader's eyes.
    fn verify(&mut self) -> Result<Finished, ShardError> {
        let path = self.places.partial.display().to_string();
        let damaged = |found: String| ShardError::Damaged { path: path.clone(), found };
        let length = self.file.length().map_err(ShardError::io("read", &self.places.partial))?;
        let mut header = vec![0; LENGTH_BYTES + self.header_space];
        self.file.read_at(&mut header, 0).map_err(ShardError::io("read", &self.places.partial))?;
        let (_, traces) = reader::parse(&header, length).map_err(damaged)?;
        if traces != self.traces {
            return Err(damaged("a header that tells of other traces".to_owned()));
        }
        self.check_data()?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            let part = &mut buffer[..usize::try_from(length - at).map_or(CHUNK, |n| n.min(CHUNK))];
            self.file.read_at(part, at).map_err(ShardError::io("read", &self.places.partial))?;
            hash.update(part);
            at += part.len() as u64;
        }
        Ok(Finished { bytes: length, checksum: hash.digest() })
    }

    /// Gives the header more room: from the last byte to the first, the data moves up.
    fn move_data(&mut self, header_space: usize) -> Result<(), ShardError> {
        if header_space > LONGEST_HEADER {
            return Err(ShardError::Damaged {
                path: self.places.partial.display().to_string(),
                found: format!(
                    "a header of {header_space} bytes (100,000,000 at most: use smaller shards)"
                ),
            });
        }
        // While it moves, the journal would tell of data that is not there.
        let failed = || ShardError::io("write", &self.places.partial);
        let opening = journal::line(&Opening::new("moving", header_space));
        self.journal.set_length(0).and_then(|()| self.journal.sync()).map_err(failed())?;
        self.journal.write_at(&opening, 0).map_err(failed())?;
        self.journal_bytes = opening.len() as u64;
        let (old, new) = (self.data_start(), (LENGTH_BYTES + header_space) as u64);
        let mut buffer = vec![0; CHUNK];
        let mut left = self.data_bytes;
        while left > 0 {
            let part = &mut buffer[..left.min(CHUNK)];
            left -= part.len();
            self.file
                .read_at(part, old + left as u64)
                .and_then(|()| self.file.write_at(part, new + left as u64))
                .map_err(failed())?;
        }
        self.header_space = header_space;
        Ok(())
    }
}

impl Group {
    fn new(journalled: usize, synced: usize) -> Self {
        Self { lines: Vec::new(), journalled, synced, since: Instant::now() }
    }
}

/// Takes a shard that was published but never committed back to where it is written.
fn take_back(storage: &dyn Storage, places: &Places) -> Result<(), ShardError> {
    if !storage.exists(&places.shard) {
        return Ok(());
    }
    if storage.exists(&places.partial) {
        // The kill came between the two names of one file.
        return storage.remove(&places.shard).map_err(ShardError::io("remove", &places.shard));
    }
    storage
        .rename_new(&places.shard, &places.partial)
        .map_err(ShardError::io("rename", &places.shard))
}

/// Where the parts of the shard `name` of a run lie.
pub fn places(run: &Path, name: &str) -> Places {
    Places {
        partial: run.join("partial").join(format!("{name}.safetensors")),
        journal: run.join("partial").join(format!("{name}.journal")),
        shard: run.join("shards").join(format!("{name}.safetensors")),
    }
}
