//! The file system.
//!
//! 1. Nothing is written through a link that somebody left in the place of a file, and no pipe is waited
//!    for: files are opened so that the system refuses the former, and looked at once they are open.
//! 2. A name that may not replace another is a hard link; then the old name is removed. Where there are no
//!    hard links the system may rename so; elsewhere the new name is taken by an empty file, which nobody
//!    else makes, and replaced.
//! 3. A link over a network may be made and reported as taken, where the answer got lost: it is ours if it
//!    leads to our file.
//! 4. Files of other processes are told apart by their numbers: inodes, on Windows file indices.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;

use super::storage::{Storage, StorageFile};

/// The file system; see the module's text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(open(path)?))
    }

    fn copy(
        &self,
        from: &Path,
        range: Range<u64>,
        to: &Path,
        at: u64,
    ) -> io::Result<Box<dyn StorageFile>> {
        let (mut from, mut to) = (open(from)?, create(to)?);
        from.seek(SeekFrom::Start(range.start))?;
        to.seek(SeekFrom::Start(at))?;
        // By the system, where it can: some file systems copy no byte.
        let copied = io::copy(&mut (&from).take(range.end - range.start), &mut to)?;
        if copied < range.end - range.start {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // Also where nothing was copied.
        to.set_len(at + copied)?;
        Ok(Box::new(to))
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let linked = link(from, to, is_same(from, to));
        finish_link(linked, from, to)?;
        match fs::remove_file(from) {
            // It was renamed, or whoever tidies up after kills was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Nothing where folders cannot be synced: Windows, and file systems that say so.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if cfg!(windows) {
            return Ok(());
        }
        match File::open(folder)?.sync_all() {
            Err(error)
                if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
            {
                Ok(())
            }
            synced => synced,
        }
    }
}

/// A new file, which nobody has open, in place of whatever has the name.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// A file that is no link, for reading.
fn open(path: &Path) -> io::Result<File> {
    let found = "a link, which may lead out of the run, or no file";
    let refused = || io::Error::new(ErrorKind::InvalidInput, found);
    match open_unless(path, true) {
        Err(error) if !path.is_symlink() => Err(error),
        opened => opened.ok().flatten().ok_or_else(refused),
    }
}

/// A file for reading, through links; `None` for a folder, or a pipe, which is not waited for.
pub(super) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    open_unless(path, false)
}

/// A file for reading, `None` where it is none; refused by the system where it is a link and that matters.
fn open_unless(path: &Path, is_link: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;
        let refused = if is_link { OFlags::NOFOLLOW } else { OFlags::empty() };
        options.custom_flags((refused | OFlags::NONBLOCK).bits().cast_signed());
    }
    #[cfg(windows)]
    if is_link {
        use std::os::windows::fs::OpenOptionsExt as _;
        // FILE_FLAG_OPEN_REPARSE_POINT: opens the link itself, which is no file.
        options.custom_flags(0x0020_0000);
    }
    let file = options.open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// A hard link; success where it was reported as taken and leads to the same file.
fn link(from: &Path, to: &Path, is_same: impl Fn() -> bool) -> io::Result<()> {
    taken_by_us(fs::hard_link(from, to), is_same)
}

fn taken_by_us(linked: io::Result<()>, is_same: impl Fn() -> bool) -> io::Result<()> {
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_same() => Ok(()),
        linked => linked,
    }
}

/// What there is instead of a hard link where there is none.
fn finish_link(linked: io::Result<()>, from: &Path, to: &Path) -> io::Result<()> {
    match linked {
        Err(error) if has_no_links(&error) => rename_exclusively(from, to),
        linked => linked,
    }
}

/// Whether the file system has no hard links, or none for this file.
fn has_no_links(error: &io::Error) -> bool {
    // FAT and exFAT answer ERROR_INVALID_FUNCTION, which has no kind of its own.
    let is_invalid_function = cfg!(windows) && error.raw_os_error() == Some(1);
    is_invalid_function
        || matches!(
            error.kind(),
            ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks
        )
}

/// Renames without replacing, as the system does it, or by an empty file.
fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;

        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    rename_over_empty(from, to)
}

/// Takes the new name by an empty file, and replaces that.
fn rename_over_empty(from: &Path, to: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(to)?;
    fs::rename(from, to).inspect_err(|_| {
        // Still empty, and so nobody's loss.
        let _ = fs::remove_file(to);
    })
}

/// Whether two names lead to one file.
fn is_same(one: &Path, other: &Path) -> impl Fn() -> bool {
    let number = number_at(one);
    let other = other.to_owned();
    move || number.is_some() && number_at(&other) == number
}

/// What tells a file apart from all others; `None` where there is no such file.
#[cfg(unix)]
fn number_at(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|data| number_of(&data))
}

#[cfg(windows)]
fn number_at(path: &Path) -> Option<same_file::Handle> {
    same_file::Handle::from_path(path).ok()
}

#[cfg(unix)]
fn number_of(data: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (data.dev(), data.ino())
}

impl StorageFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(bytes)
    }

    fn length(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    #[cfg(unix)]
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match path.symlink_metadata() {
            Ok(data) => Ok(number_of(&data) == number_of(&self.metadata()?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(windows)]
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let ours = same_file::Handle::from_file(self.try_clone()?)?;
        match same_file::Handle::from_path(path) {
            Ok(there) => Ok(there == ours),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn publish(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let is_ours = || self.is_at(to).unwrap_or(false);
        // Of the file itself, whatever has its name by now.
        #[cfg(target_os = "linux")]
        match taken_by_us(link_open(self, to), is_ours) {
            // It has no name left, or there are no such links, or no /proc: the next steps tell.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {}
            linked => return linked,
        }
        if !self.is_at(from)? {
            return Err(ErrorKind::NotFound.into());
        }
        finish_link(link(from, to, is_ours), from, to)
    }
}

/// A hard link to an open file.
#[cfg(target_os = "linux")]
fn link_open(file: &File, to: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD, linkat};

    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Two files of a folder: `from`, and `to` where it is taken.
    fn files(is_taken: bool) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "ours").unwrap();
        if is_taken {
            fs::write(&to, "theirs").unwrap();
        }
        (folder, from, to)
    }

    type Renames = [fn(&Path, &Path) -> io::Result<()>; 4];

    /// Every way to rename without replacing.
    const WAYS: Renames = [
        |from, to| Disk.rename_new(from, to),
        |from, to| finish_link(Err(ErrorKind::Unsupported.into()), from, to),
        rename_exclusively,
        rename_over_empty,
    ];

    #[test]
    fn no_way_to_rename_replaces_what_is_there() {
        for (number, rename) in WAYS.into_iter().enumerate() {
            let (_folder, from, to) = files(true);
            let error = rename(&from, &to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "way {number}");
            assert_eq!(fs::read(&to).unwrap(), b"theirs", "way {number}");
            assert_eq!(fs::read(&from).unwrap(), b"ours", "way {number}");
        }
    }

    #[test]
    fn every_way_to_rename_takes_a_free_name() {
        for (number, rename) in WAYS.into_iter().enumerate() {
            let (_folder, from, to) = files(false);
            rename(&from, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"ours", "way {number}");
            assert!(!from.exists(), "way {number}");
        }
    }

    #[test]
    fn a_name_that_was_taken_for_nothing_is_free_again() {
        let (folder, _, to) = files(false);
        assert!(rename_over_empty(&folder.path().join("missing"), &to).is_err());
        assert!(!to.exists());
    }

    #[test]
    fn a_link_that_was_made_and_reported_as_taken_is_ours() {
        let (_folder, from, to) = files(false);
        fs::hard_link(&from, &to).unwrap();
        // As the answer to the second request for it.
        Disk.rename_new(&from, &to).unwrap();
        assert_eq!((fs::read(&to).unwrap(), from.exists()), (b"ours".to_vec(), false));

        let (_folder, from, to) = files(false);
        let mut file = File::open(&from).unwrap();
        file.publish(&from, &to).unwrap();
        file.publish(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"ours");
    }

    #[test]
    fn an_open_file_is_published_and_not_what_took_its_name() {
        let (folder, from, to) = files(false);
        let mut file = File::open(&from).unwrap();
        let heir = folder.path().join("heir");
        fs::write(&heir, "the heir's").unwrap();
        fs::rename(&heir, &from).unwrap();
        assert!(!StorageFile::is_at(&file, &from).unwrap());
        assert_eq!(file.publish(&from, &to).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!to.exists());
        assert_eq!(fs::read(&from).unwrap(), b"the heir's");
    }

    #[test]
    fn a_made_file_is_another_than_the_one_whose_name_it_takes() {
        let (_folder, from, to) = files(false);
        fs::hard_link(&from, &to).unwrap();
        let mut made = Disk.create(&from).unwrap();
        made.write_at(b"other", 0).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"ours");
        let mut copy = Disk.copy(&to, 1..4, &from, 2).unwrap();
        assert_eq!(copy.length().unwrap(), 5);
        assert_eq!(fs::read(&from).unwrap(), b"\0\0urs");
        let cut = Disk.copy(&to, 1..5, &from, 0).err().unwrap();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_open_file_is_known_again_under_another_name() {
        for is_taken in [false, true] {
            let (_folder, from, to) = files(is_taken);
            let mut file = Disk.create(&from).unwrap();
            file.write_at(b"ours", 0).unwrap();
            assert!(file.is_at(&from).unwrap() && !file.is_at(&to).unwrap());
            Disk.replace(&from, &to).unwrap();
            assert!(file.is_at(&to).unwrap() && !file.is_at(&from).unwrap());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_pipes_and_folders_are_no_files() {
        let (folder, from, to) = files(false);
        std::os::unix::fs::symlink(&from, &to).unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&to, &pipe, folder.path()] {
            let error = Disk.open(path).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", path.display());
        }
        assert_eq!(Disk.open(&from).unwrap().length().unwrap(), 4);
    }
}
