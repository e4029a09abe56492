//! Going on with a shard where its journal ends.

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::{CHUNK, Group, Grouping, Places, ShardWriter};
use crate::error::ShardError;
use crate::shard::journal::{self, Opening};
use crate::shard::layout::LENGTH_BYTES;
use crate::shard::record::StoredTypes;
use crate::shard::storage::Storage;

/// Takes a shard that was published but never committed back to where it is written.
pub(super) fn take_back(storage: &dyn Storage, places: &Places) -> Result<(), ShardError> {
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

impl ShardWriter {
    /// The shard as its journal has it, if journal and data can be trusted.
    pub(super) fn go_on(
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
    pub(super) fn check_data(&mut self) -> Result<(), ShardError> {
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
}
