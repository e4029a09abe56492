//! A finished shard, read back with the strict reader's eyes, and taken as it is where its record is missing.

use std::io::ErrorKind;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::commit::Commit;
use super::damage::Damage;
use super::files;
use super::header::{self, Header, in_trace};
use super::header_layout::{BEGINNING, LENGTH_BYTES, LONGEST_HEADER, TraceEntry};
use super::rules;
use super::schema_violation::Violation;
use super::storage::{Storage, StorageFile};
use super::writer::ShardPaths;
use crate::error::ShardError;

/// Bytes copied or checked at a time.
const CHUNK: usize = 4 << 20;

/// What a finished shard is recorded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// XXH3 of the whole file.
    pub checksum: u64,
}

/// A finished shard: all that its commit record says.
#[derive(Debug)]
pub struct Published {
    /// What it says of itself.
    pub commit: Commit,
    /// Its traces, in the order of the file.
    pub traces: Vec<TraceEntry>,
    /// Size and checksum of the file.
    pub finished: Finished,
}

/// A finished shard at its place, every byte of it checked; `None` where there is none.
///
/// For who finds it without its commit record, because a kill came before that. Its name is made durable,
/// so that a record may follow; what else writing it left is removed.
///
/// # Errors
/// [`ShardError::Damaged`], [`ShardError::OtherSchema`] or [`ShardError::Io`].
pub fn take_published(
    storage: &dyn Storage,
    paths: &ShardPaths,
) -> Result<Option<Published>, ShardError> {
    let path = &paths.shard;
    let Some(mut file) = open_finished(storage, path)? else { return Ok(None) };
    file.sync().map_err(ShardError::io("sync", path))?;
    files::sync_folders(storage, [path, &paths.partial])?;
    let (header, finished) = read_back(&mut *file, path)?;
    for left in [&paths.partial, &paths.journal] {
        if storage.exists(left) {
            files::remove(storage, left)?;
        }
    }
    Ok(Some(Published { commit: header.commit, traces: header.traces, finished }))
}

/// The file of a finished shard, if there is one that has a header.
///
/// Another file, without one, was never finished: a name that was taken by an empty file, see
/// [`crate::shard::disk`], or what somebody left there.
pub(super) fn open_finished(
    storage: &dyn Storage,
    path: &Path,
) -> Result<Option<Box<dyn StorageFile>>, ShardError> {
    if !storage.exists(path) {
        return Ok(None);
    }
    let mut file = storage.open(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => ShardError::damaged(path, Damage::NoFile),
        _ => ShardError::io("read", path)(error),
    })?;
    let size = file.length().map_err(ShardError::io("read", path))?;
    let mut head = vec![0; BEGINNING.len() + LENGTH_BYTES];
    let length = head.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    file.read_at(&mut head[..length], 0).map_err(ShardError::io("read", path))?;
    Ok((&head[LENGTH_BYTES..] == BEGINNING).then_some(file))
}

/// The header of a finished shard and what it is recorded by, once every byte of it was checked.
pub(super) fn read_back(
    file: &mut dyn StorageFile,
    path: &Path,
) -> Result<(Header, Finished), ShardError> {
    let damaged = |found| ShardError::damaged(path, found);
    let failed = || ShardError::io("read", path);
    let size = file.length().map_err(failed())?;
    let mut length = [0; LENGTH_BYTES];
    file.read_at(&mut length, 0).map_err(failed())?;
    let length = u64::from_le_bytes(length);
    let space = usize::try_from(length)
        .ok()
        .filter(|&space| space <= LONGEST_HEADER && (LENGTH_BYTES + space) as u64 <= size)
        .ok_or(Damage::HeaderLength { length, size })
        .map_err(damaged)?;
    let mut head = vec![0; LENGTH_BYTES + space];
    file.read_at(&mut head, 0).map_err(failed())?;
    let header = header::parse(&head, size).map_err(damaged)?;
    drop(head);
    check_data(file, path, header.data as u64, &header.traces)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; usize::try_from(size).map_or(CHUNK, |size| size.min(CHUNK))];
    let mut at = 0;
    while at < size {
        let part = &mut buffer[..usize::try_from(size - at).map_or(CHUNK, |n| n.min(CHUNK))];
        file.read_at(part, at).map_err(failed())?;
        hash.update(part);
        at += part.len() as u64;
    }
    Ok((header, Finished { bytes: size, checksum: hash.digest() }))
}

/// Checks that data, which begins at `start`, is what the entries say, with the strict reader's rules.
pub(super) fn check_data(
    file: &mut dyn StorageFile,
    path: &Path,
    start: u64,
    traces: &[TraceEntry],
) -> Result<(), ShardError> {
    let damaged = |found| ShardError::damaged(path, found);
    let mut buffer = Vec::new();
    for trace in traces {
        let (Some(first), Some(last)) = (trace.tensors.first(), trace.tensors.last()) else {
            return Err(damaged(Damage::NoTensors));
        };
        buffer.clear();
        buffer.resize(last.end - first.begin, 0);
        file.read_at(&mut buffer, start + first.begin as u64)
            .map_err(ShardError::io("read", path))?;
        for entry in &trace.tensors {
            let bytes = &buffer[entry.begin - first.begin..entry.end - first.begin];
            if xxh3_64(bytes) != entry.checksum {
                return Err(damaged(in_trace(trace, (entry.tensor, Violation::Checksum))));
            }
        }
        rules::check(trace, first.begin, &buffer)
            .map_err(|violation| damaged(in_trace(trace, violation)))?;
    }
    Ok(())
}
