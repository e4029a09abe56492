//! Going on with a shard where its journal ends.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{Group, Plan, ShardPaths, ShardWriter};
use crate::error::ShardError;
use crate::shard::commit::Commit;
use crate::shard::files;
use crate::shard::header;
use crate::shard::header_layout::{self, LENGTH_BYTES, LONGEST_HEADER, TraceEntry};
use crate::shard::journal::{self, Batch, Opening};
use crate::shard::published::check_data;
use crate::shard::storage::{Storage, StorageFile};

/// Bytes of the longest journal that is read: several times what the longest header can tell of.
const LONGEST_JOURNAL: usize = 1 << 30;

/// What a journal tells.
pub(super) struct JournalContent {
    journal: Box<dyn StorageFile>,
    header_space: usize,
    /// The part that can be trusted.
    lines: Vec<u8>,
    data_bytes: usize,
    notes: Vec<String>,
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
    paths: &ShardPaths,
    identity: &str,
) -> Result<Option<JournalContent>, ShardError> {
    let read = storage.open(&paths.journal).and_then(|mut journal| {
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
        read => read.map_err(ShardError::io("read", &paths.journal))?,
    };
    let Some((opening, batches, trusted)) = journal::read(&lines) else { return Ok(None) };
    if opening != Opening::new(identity, opening.header_space) {
        return Ok(None);
    }
    lines.truncate(trusted);
    Ok(Some(JournalContent {
        journal,
        header_space: opening.header_space,
        lines,
        data_bytes: batches.last().map_or(0, |batch| batch.data),
        notes: batches.iter().map(|batch| batch.note.clone()).collect(),
        traces: batches.into_iter().flat_map(|batch: Batch| batch.traces).collect(),
    }))
}

/// Whether a shard of just these traces would be read: entries are data too, and may come from anywhere.
fn is_shard(traces: &[TraceEntry], data_bytes: usize) -> bool {
    let header = header_layout::encode(&Commit::blank(traces.len()), traces);
    let space = header_layout::padded_header(header.len());
    let mut head = (space as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    drop(header);
    head.resize(LENGTH_BYTES + space, b' ');
    let size = (head.len() as u64).checked_add(data_bytes as u64);
    size.and_then(|size| header::parse(&head, size).ok()).is_some_and(|read| read.traces == traces)
}

impl JournalContent {
    /// Whether a shard in progress can be what it tells of.
    fn is_likely(&self) -> bool {
        self.header_space <= LONGEST_HEADER
            && self.header_space == header_layout::padded_header(self.header_space)
            && is_shard(&self.traces, self.data_bytes)
    }
}

impl ShardWriter {
    /// The shard as its journal has it, in files of its own, if journal and data can be trusted.
    pub(super) fn go_on(
        storage: &Arc<dyn Storage + Send + Sync>,
        paths: &ShardPaths,
        plan: &Plan,
        left: JournalContent,
    ) -> Result<Option<Self>, ShardError> {
        if !left.is_likely() {
            return Ok(None);
        }
        let file = match storage.open(&paths.partial) {
            Err(error) if is_unusable(error.kind()) => return Ok(None),
            opened => opened.map_err(ShardError::io("open", &paths.partial))?,
        };
        let mut writer = Self {
            header_space: left.header_space,
            data_bytes: left.data_bytes,
            journal_bytes: left.lines.len() as u64,
            notes: left.notes,
            traces: left.traces,
            ..Self::of(Arc::clone(storage), paths.clone(), plan.clone(), (file, left.journal))
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
        let (paths, scratch) = (&self.paths, self.paths.scratch());
        let (storage, partial) = (&*self.storage, &scratch.partial);
        let from = self.data_start()..self.data_start() + self.data_bytes as u64;
        self.header_space = header_space;
        let at = self.data_start();
        self.file = storage
            .copy(&paths.partial, from, partial, at)
            .map_err(ShardError::io("copy", &paths.partial))?;
        check_data(&mut *self.file, &self.paths.partial, at, &self.traces)?;
        let (storage, paths) = (&*self.storage, &self.paths);
        let path = &scratch.journal;
        self.file.sync().map_err(ShardError::io("sync", partial))?;
        let lines = journal::with_header_space(lines, header_space);
        self.journal = storage.create(path).map_err(ShardError::io("create", path))?;
        let written = self.journal.write_at(&lines, 0).and_then(|()| self.journal.sync());
        written.map_err(ShardError::io("write", path))?;
        self.journal_bytes = lines.len() as u64;
        for (from, to) in [(partial, &paths.partial), (path, &paths.journal)] {
            storage.replace(from, to).map_err(ShardError::io("rename", to))?;
        }
        files::sync_folders(storage, [&paths.partial, &paths.journal])?;
        // Who began at the same time may have taken the names meanwhile.
        self.check_names()
    }
}
