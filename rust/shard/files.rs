//! The steps that a commit is made of.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::storage::{Storage, StorageFile};
use crate::error::ShardError;

/// Moves a synced file to its final name, never over another, and makes that durable.
///
/// # Errors
/// [`ShardError::Exists`] where `to` is there already, or [`ShardError::Io`].
pub fn publish(storage: &dyn Storage, from: &Path, to: &Path) -> Result<(), ShardError> {
    storage.rename_new(from, to).map_err(taken(to))?;
    sync_folders(storage, [to, from])
}

/// The same of an open file, whatever has taken its name meanwhile.
///
/// # Errors
/// [`ShardError::Superseded`] where another file has its name, and those of [`publish`].
pub(super) fn publish_open(
    storage: &dyn Storage,
    file: &mut dyn StorageFile,
    from: &Path,
    to: &Path,
) -> Result<(), ShardError> {
    file.publish(from, to).map_err(|error| match file.is_at(from) {
        Ok(false) if error.kind() == ErrorKind::NotFound => superseded(from),
        _ => taken(to)(error),
    })?;
    remove_own(storage, file, from)?;
    sync_folders(storage, [to, from])
}

/// Makes the names of two files durable, the final one first.
pub(super) fn sync_folders(storage: &dyn Storage, files: [&Path; 2]) -> Result<(), ShardError> {
    for folder in files.into_iter().filter_map(Path::parent) {
        storage.sync_folder(folder).map_err(ShardError::io("sync", folder))?;
    }
    Ok(())
}

/// Removes a name of a file, unless another file has taken it.
pub(super) fn remove_own(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    path: &Path,
) -> Result<(), ShardError> {
    if !file.is_at(path).map_err(ShardError::io("remove", path))? {
        return Ok(());
    }
    remove(storage, path)
}

/// Removes a name that may be gone by now.
pub(super) fn remove(storage: &dyn Storage, path: &Path) -> Result<(), ShardError> {
    match storage.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(ShardError::io("remove", path)),
    }
}

/// Another process goes on with a file.
pub(super) fn superseded(path: &Path) -> ShardError {
    ShardError::Superseded { path: path.display().to_string() }
}

/// What to say where a name is taken, or not given.
fn taken(to: &Path) -> impl FnOnce(io::Error) -> ShardError {
    |error| match error.kind() {
        ErrorKind::AlreadyExists => ShardError::Exists { path: to.display().to_string() },
        _ => ShardError::io("rename", to)(error),
    }
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
    publish_open(storage, &mut *file, scratch, to)
}
