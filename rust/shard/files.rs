//! Durable file operations: what a commit is made of.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::error::ShardError;

/// Syncs a folder, so that a name made or moved in it survives a loss of power.
///
/// # Errors
/// [`ShardError::Io`].
pub fn sync_folder(folder: &Path) -> Result<(), ShardError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(ShardError::io("sync", folder))
}

/// Moves a synced file to its final name, never over another, and syncs both folders.
///
/// A hard link is the move that refuses to replace; file systems without links get a check and a rename.
///
/// # Errors
/// [`ShardError::Exists`] where `to` is there already, or [`ShardError::Io`].
pub fn publish(from: &Path, to: &Path) -> Result<(), ShardError> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from).map_err(ShardError::io("remove", from))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists || to.exists() => {
            return Err(ShardError::Exists { path: to.display().to_string() });
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StorageFull) => {
            return Err(ShardError::io("link", to)(error));
        }
        Err(_) => fs::rename(from, to).map_err(ShardError::io("rename", to))?,
    }
    for folder in [to.parent(), from.parent()].into_iter().flatten() {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Writes a small file durably: a temporary one beside `scratch`, synced, then [`publish`]ed.
///
/// # Errors
/// As [`publish`].
pub fn write_new(scratch: &Path, to: &Path, bytes: &[u8]) -> Result<(), ShardError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch)
        .map_err(ShardError::io("create", scratch))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(ShardError::io("write", scratch))?;
    publish(scratch, to)
}
