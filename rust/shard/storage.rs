//! The file operations that durability is made of.
//!
//! Everything that the writer does to a disk goes through [`Storage`], so that tests can put a layer in
//! between that loses what was not synced, reorders it, or fails. [`Disk`](super::Disk) is the real one.

use std::io;
use std::ops::Range;
use std::path::Path;

/// Where shards are written.
pub trait Storage {
    /// Makes an empty file and gives it a name. What had the name loses it, and keeps its content: it may
    /// have other names, and another process may write to it.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a file that is there, for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]; [`io::ErrorKind::InvalidInput`] for a link or what is no file; or what
    /// the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Makes a file as [`Self::create`] does, with the bytes of a range of another file, from `at` on; what
    /// lies before that reads as zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the other file ends before; those of [`Self::open`]; or what
    /// the system says.
    fn copy(
        &self,
        from: &Path,
        range: Range<u64>,
        to: &Path,
        at: u64,
    ) -> io::Result<Box<dyn StorageFile>>;

    /// Whether a file is there.
    fn exists(&self, path: &Path) -> bool;

    /// Gives a file another name, never one that is taken; not durable before [`Self::sync_folder`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or what the system says.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a name that another may have, which loses it; not durable before
    /// [`Self::sync_folder`].
    ///
    /// # Errors
    /// What the system says.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable, where the system can.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: Send {
    /// Writes all bytes at a place; a gap before it reads as zeros.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads exactly so many bytes from a place.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] past the end, or what the system says.
    fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn length(&mut self) -> io::Result<u64>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the system says.
    fn set_length(&mut self, length: u64) -> io::Result<()>;

    /// Makes all that was written durable. After an error nothing of it may be relied on, even where it
    /// reads as it was written.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether a name leads to this file, not to another that took it.
    ///
    /// # Errors
    /// What the system says.
    fn is_at(&self, path: &Path) -> io::Result<bool>;

    /// Gives this file, whose name is `from`, another name, never one that is taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]; [`io::ErrorKind::NotFound`] where another file took its name; or
    /// what the system says.
    fn publish(&mut self, from: &Path, to: &Path) -> io::Result<()>;
}
