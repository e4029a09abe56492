//! The steps that a commit is made of.

use std::io::ErrorKind;
use std::path::Path;

use super::storage::Storage;
use crate::error::ShardError;

/// Moves a synced file to its final name, never over another, and makes that durable.
///
/// # Errors
/// [`ShardError::Exists`] where `to` is there already, or [`ShardError::Io`].
pub fn publish(storage: &dyn Storage, from: &Path, to: &Path) -> Result<(), ShardError> {
    storage.rename_new(from, to).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => ShardError::Exists { path: to.display().to_string() },
        _ => ShardError::io("rename", to)(error),
    })?;
    for folder in [to.parent(), from.parent()].into_iter().flatten() {
        storage.sync_folder(folder).map_err(ShardError::io("sync", folder))?;
    }
    Ok(())
}

/// Writes a small file durably: at `scratch` until it is whole and synced, then [`publish`]ed.
///
/// # Errors
/// As [`publish`].
pub fn write_new(
    storage: &dyn Storage,
    scratch: &Path,
    to: &Path,
    bytes: &[u8],
) -> Result<(), ShardError> {
    let mut file = storage.create(scratch).map_err(ShardError::io("create", scratch))?;
    file.write_at(bytes, 0).and_then(|()| file.sync()).map_err(ShardError::io("write", scratch))?;
    publish(storage, scratch, to)
}
