//! Going on with a shard where its journal ends, or where it was finished and not recorded.

use std::io::ErrorKind;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{Group, Places, ShardWriter, State};
use crate::error::ShardError;
use crate::shard::files;
use crate::shard::header::{self, in_trace};
use crate::shard::journal::{self, Batch, Opening};
use crate::shard::layout::{self, LENGTH_BYTES, LONGEST_HEADER, TraceEntry};
use crate::shard::record::StoredTypes;
use crate::shard::rules;
use crate::shard::storage::{Storage, StorageFile};
use crate::shard::{Damage, Misfit};

/// Bytes of the longest journal that is read: several times what the longest header can tell of.
const LONGEST_JOURNAL: usize = 1 << 30;

/// What a journal tells.
pub(super) struct Left {
    journal: Box<dyn StorageFile>,
    header_space: usize,
    /// The part that can be trusted.
    lines: Vec<u8>,
    data_bytes: usize,
    notes: Vec<String>,
    traces: Vec<TraceEntry>,
}

impl Published {
    /// What the journal tells, if it is of these traces; `None` where there are none to lose.
    ///
    /// # Errors
    /// [`ShardError::Unrecorded`] for traces of which it does not tell.
    pub(super) fn told_by(
        &self,
        left: &mut Option<Left>,
        places: &Places,
    ) -> Result<Option<Left>, ShardError> {
        match left.take_if(|left| left.traces == self.traces) {
            None if !self.traces.is_empty() => {
                Err(ShardError::Unrecorded { path: places.shard.display().to_string() })
            }
            left => Ok(left),
        }
    }
}

/// A shard that was published.
pub(super) struct Published {
    file: Box<dyn StorageFile>,
    header_space: usize,
    traces: Vec<TraceEntry>,
}

/// Whether to go on without a file: there is none, or it ends too early, or is no file. Any other error is
/// the system's, and no reason to give up what is there.
fn is_unusable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof)
}

/// What the journal of a shard tells, if it is of this identity.
pub(super) fn read_journal(
    storage: &dyn Storage,
    places: &Places,
    identity: &str,
) -> Result<Option<Left>, ShardError> {
    let read = storage.open(&places.journal).and_then(|mut journal| {
        let length = usize::try_from(journal.length()?).unwrap_or(usize::MAX);
        if length > LONGEST_JOURNAL {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut bytes = vec![0; length];
        journal.read_at(&mut bytes, 0)?;
        Ok((journal, bytes))
    });
    let (journal, mut lines) = match read {
        Err(error) if is_unusable(error.kind()) => return Ok(None),
        read => read.map_err(ShardError::io("read", &places.journal))?,
    };
    let Some((opening, batches, trusted)) = journal::read(&lines) else { return Ok(None) };
    if opening != Opening::new(identity, opening.header_space) {
        return Ok(None);
    }
    lines.truncate(trusted);
    Ok(Some(Left {
        journal,
        header_space: opening.header_space,
        lines,
        data_bytes: batches.last().map_or(0, |batch| batch.data),
        notes: batches.iter().map(|batch| batch.note.clone()).collect(),
        traces: batches.into_iter().flat_map(|batch: Batch| batch.traces).collect(),
    }))
}

/// The finished shard at its place, if there is a file that has a header.
///
/// Another file, without one, was never finished: a name that was taken by an empty file, see
/// [`crate::shard::disk`], or what somebody left there.
pub(super) fn find_finished(
    storage: &dyn Storage,
    places: &Places,
) -> Result<Option<Published>, ShardError> {
    let path = &places.shard;
    if !storage.exists(path) {
        return Ok(None);
    }
    let damaged = |found| ShardError::Damaged { path: path.display().to_string(), found };
    let failed = || ShardError::io("read", path);
    let mut file = storage.open(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => damaged(Damage::NoFile),
        _ => failed()(error),
    })?;
    let size = file.length().map_err(failed())?;
    let mut head = vec![0; layout::BEGINNING.len() + LENGTH_BYTES];
    let length = head.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    file.read_at(&mut head[..length], 0).map_err(failed())?;
    if &head[LENGTH_BYTES..] != layout::BEGINNING {
        files::remove(storage, path)?;
        return Ok(None);
    }
    let header_space = head.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let header_space = usize::try_from(header_space)
        .ok()
        .filter(|&space| space <= LONGEST_HEADER && (LENGTH_BYTES + space) as u64 <= size)
        .ok_or(Damage::HeaderLength { length: header_space, size })
        .map_err(damaged)?;
    head.resize(LENGTH_BYTES + header_space, 0);
    file.read_at(&mut head, 0).map_err(failed())?;
    let (_, traces) = header::parse(&head, size).map_err(damaged)?;
    Ok(Some(Published { file, header_space, traces }))
}

/// Whether a shard of just these traces would be read: entries are data too, and may come from anywhere.
fn is_shard(traces: &[TraceEntry], data_bytes: usize) -> bool {
    let header = layout::encode(traces);
    let space = layout::padded_header(header.len());
    let mut head = (space as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    drop(header);
    head.resize(LENGTH_BYTES + space, b' ');
    let size = (head.len() as u64).checked_add(data_bytes as u64);
    size.and_then(|size| header::parse(&head, size).ok()).is_some_and(|(_, read)| read == traces)
}

impl Left {
    /// Whether a shard in progress can be what it tells of.
    fn is_likely(&self) -> bool {
        self.header_space <= LONGEST_HEADER
            && self.header_space == layout::padded_header(self.header_space)
            && is_shard(&self.traces, self.data_bytes)
    }
}

impl ShardWriter {
    /// Takes a finished shard as it is, of which the journal tells, if its data is right.
    pub(super) fn take(
        storage: Arc<dyn Storage + Send + Sync>,
        places: Places,
        types: StoredTypes,
        published: Published,
        left: Left,
    ) -> Result<Self, ShardError> {
        let Published { file, header_space, traces } = published;
        let mut writer = Self {
            state: State::Taken,
            header_space,
            data_bytes: left.data_bytes,
            journal_bytes: left.lines.len() as u64,
            notes: left.notes,
            traces,
            ..Self::of(storage, places, types, (file, left.journal))
        };
        writer.check_data()?;
        writer.group = Group::new(writer.traces.len(), writer.data_bytes);
        Ok(writer)
    }

    /// The shard as its journal has it, in files of its own, if journal and data can be trusted.
    pub(super) fn go_on(
        storage: &Arc<dyn Storage + Send + Sync>,
        places: &Places,
        types: StoredTypes,
        left: Left,
    ) -> Result<Option<Self>, ShardError> {
        if !left.is_likely() {
            return Ok(None);
        }
        let file = match storage.open(&places.partial) {
            Err(error) if is_unusable(error.kind()) => return Ok(None),
            opened => opened.map_err(ShardError::io("open", &places.partial))?,
        };
        let mut writer = Self {
            header_space: left.header_space,
            data_bytes: left.data_bytes,
            journal_bytes: left.lines.len() as u64,
            notes: left.notes,
            traces: left.traces,
            ..Self::of(Arc::clone(storage), places.clone(), types, (file, left.journal))
        };
        let moved = writer.move_to(left.header_space, &left.lines);
        match moved {
            Err(ShardError::Damaged { .. }) => return Ok(None),
            Err(ShardError::Io { source, .. }) if is_unusable(source.kind()) => return Ok(None),
            moved => moved?,
        }
        writer.group = Group::new(writer.traces.len(), writer.data_bytes);
        Ok(Some(writer))
    }

    /// Goes on in files of its own, with a header of so much room: the data, checked, and the lines of the
    /// journal. They are whole and synced before they take the names of those that were there.
    pub(super) fn move_to(&mut self, header_space: usize, lines: &[u8]) -> Result<(), ShardError> {
        let (places, scratch) = (&self.places, self.places.scratch());
        let (storage, partial) = (&*self.storage, &scratch.partial);
        let from = self.data_start()..self.data_start() + self.data_bytes as u64;
        self.header_space = header_space;
        let at = self.data_start();
        self.file = storage
            .copy(&places.partial, from, partial, at)
            .map_err(ShardError::io("copy", &places.partial))?;
        self.check_data()?;
        let (storage, places) = (&*self.storage, &self.places);
        let path = &scratch.journal;
        self.file.sync().map_err(ShardError::io("sync", partial))?;
        let lines = journal::with_header_space(lines, header_space);
        self.journal = storage.create(path).map_err(ShardError::io("create", path))?;
        let written = self.journal.write_at(&lines, 0).and_then(|()| self.journal.sync());
        written.map_err(ShardError::io("write", path))?;
        self.journal_bytes = lines.len() as u64;
        for (from, to) in [(partial, &places.partial), (path, &places.journal)] {
            storage.replace(from, to).map_err(ShardError::io("rename", to))?;
        }
        files::sync_folders(storage, [&places.partial, &places.journal])?;
        // Who began at the same time may have taken the names meanwhile.
        self.check_names()
    }

    /// Checks that the data is what the entries say, with the strict reader's rules.
    pub(super) fn check_data(&mut self) -> Result<(), ShardError> {
        let path = self.places.partial.display().to_string();
        let damaged = |found: Damage| ShardError::Damaged { path: path.clone(), found };
        let start = self.data_start();
        let mut buffer = Vec::new();
        for trace in &self.traces {
            let (Some(first), Some(last)) = (trace.tensors.first(), trace.tensors.last()) else {
                return Err(damaged(Damage::NoTensors));
            };
            buffer.clear();
            buffer.resize(last.end - first.begin, 0);
            self.file
                .read_at(&mut buffer, start + first.begin as u64)
                .map_err(ShardError::io("read", &self.places.partial))?;
            for entry in &trace.tensors {
                let bytes = &buffer[entry.begin - first.begin..entry.end - first.begin];
                if xxh3_64(bytes) != entry.checksum {
                    return Err(damaged(in_trace(trace, (entry.tensor, Misfit::Checksum))));
                }
            }
            rules::check(trace, first.begin, &buffer)
                .map_err(|misfit| damaged(in_trace(trace, misfit)))?;
        }
        Ok(())
    }
}
