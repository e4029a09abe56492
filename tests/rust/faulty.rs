//! A disk in memory that loses what was not synced, tears writes, reorders names, and fails on demand.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use hallutrace::shard::storage::{Storage, StorageFile};

/// What one operation does, once: count down to it, then it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this, and nothing of it is done.
    Error(ErrorKind),
    /// The power goes: this operation and all later ones fail.
    PowerLoss,
}

/// A change to the content of a file that was not synced yet.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// A file as Linux has it: what programs read is in memory, whether or not it will ever be on the disk.
#[derive(Debug, Clone, Default)]
struct Inode {
    memory: Vec<u8>,
    durable: Vec<u8>,
    /// What the next sync writes.
    changes: Vec<Change>,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.memory);
        self.changes.push(change);
    }
}

/// A change to the names of a folder that was not synced yet: a name gets a file, or none.
type Naming = (PathBuf, Option<usize>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    namings: Vec<Naming>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    ignores_syncs: bool,
    /// How many syncs of files from now the disk changes a bit, and which.
    corrupts: Option<(usize, usize)>,
}

/// The disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// A small generator, so that a failing crash can be made again from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

impl FaultyDisk {
    /// A disk whose syncs do nothing: what a writer without fsync would meet.
    pub fn ignoring_syncs() -> Self {
        let disk = Self::default();
        disk.state().ignores_syncs = true;
        disk
    }

    /// Lets the disk change a bit of the file that is synced after so many other syncs.
    pub fn corrupt(&self, syncs: usize, bit: usize) {
        self.state().corrupts = Some((syncs, bit));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Operations done so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Lets the operation of that number, counted from now, go wrong.
    pub fn fail_at(&self, number: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + number, fault));
    }

    /// The content of a file as a running program sees it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|&inode| state.inodes[inode].memory.clone())
    }

    /// What is there after the power came back: of what was not synced, any part, in any order.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.state();
        let mut dice = Dice(seed);
        let inodes = state.inodes.iter().map(|inode| {
            let mut durable = inode.durable.clone();
            for change in &inode.changes {
                match (dice.roll(3), change) {
                    (0, _) => {}
                    (1, Change::Write(offset, bytes)) => {
                        let torn = bytes[..dice.roll(bytes.len() + 1)].to_vec();
                        Change::Write(*offset, torn).apply(&mut durable);
                    }
                    _ => change.apply(&mut durable),
                }
            }
            Inode { memory: durable.clone(), durable, changes: Vec::new() }
        });
        let inodes = inodes.collect();
        let mut names = state.durable_names.clone();
        for naming in &state.namings {
            if dice.roll(2) == 1 {
                rename(&mut names, naming);
            }
        }
        let ignores_syncs = state.ignores_syncs;
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(State {
            inodes,
            names,
            durable_names,
            ignores_syncs,
            ..State::default()
        })))
    }

    /// Counts an operation, and lets it fail if its time has come.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.operations += 1;
        match state.fault {
            Some((at, Fault::Error(kind))) if at == state.operations => Err(kind.into()),
            Some((at, Fault::PowerLoss)) if at <= state.operations => {
                Err(io::Error::other("power loss"))
            }
            _ => Ok(state),
        }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, (path, inode): &Naming) {
    match inode {
        Some(inode) => names.insert(path.clone(), *inode),
        None => names.remove(path),
    };
}

impl State {
    fn name(&mut self, path: &Path, inode: Option<usize>) {
        let naming = (path.to_path_buf(), inode);
        rename(&mut self.names, &naming);
        self.namings.push(naming);
    }
}

impl State {
    /// A new file, which takes the name from another.
    fn create(&mut self, path: &Path) -> usize {
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.name(path, Some(inode));
        inode
    }
}

impl FaultyDisk {
    fn file(&self, inode: usize) -> Box<dyn StorageFile> {
        Box::new(FaultyFile { disk: self.clone(), inode })
    }
}

impl Storage for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let inode = self.operate()?.create(path);
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let state = self.operate()?;
        let inode = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        drop(state);
        Ok(self.file(inode))
    }

    fn copy(
        &self,
        from: &Path,
        range: Range<u64>,
        to: &Path,
        at: u64,
    ) -> io::Result<Box<dyn StorageFile>> {
        let (begin, end) = (range.start.try_into().unwrap(), range.end.try_into().unwrap());
        let state = self.operate()?;
        let from = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        let bytes = state.inodes[from].memory.get::<Range<usize>>(begin..end);
        let bytes = bytes.ok_or(ErrorKind::UnexpectedEof)?.to_vec();
        drop(state);
        let inode = self.operate()?.create(to);
        let change = Change::Write(at.try_into().unwrap(), bytes);
        self.operate()?.inodes[inode].change(change);
        Ok(self.file(inode))
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(path)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        let inode = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        if state.names.get(to).is_some_and(|&other| other != inode) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.name(to, Some(inode));
        drop(state);
        let mut state = self.operate()?;
        state.name(from, None);
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        let inode = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        // At once, also on the disk.
        state.name(to, Some(inode));
        state.name(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        state.names.get(path).ok_or(ErrorKind::NotFound)?;
        state.name(path, None);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        if state.ignores_syncs {
            return Ok(());
        }
        let namings = std::mem::take(&mut state.namings);
        for naming in namings {
            if naming.0.parent() == Some(folder) {
                rename(&mut state.durable_names, &naming);
            } else {
                state.namings.push(naming);
            }
        }
        Ok(())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
}

impl StorageFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        let offset = usize::try_from(offset).unwrap();
        state.inodes[self.inode].change(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.operate()?;
        let content = &state.inodes[self.inode].memory;
        let begin = usize::try_from(offset).unwrap();
        let part = content.get(begin..begin + bytes.len()).ok_or(ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn length(&mut self) -> io::Result<u64> {
        Ok(self.disk.operate()?.inodes[self.inode].memory.len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        state.inodes[self.inode].change(Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    /// A sync that fails forgets what it was to make durable, and the next one succeeds, as on Linux: what
    /// was not written can still be read, until the power goes.
    fn sync(&mut self) -> io::Result<()> {
        let mut state = match self.disk.operate() {
            Ok(state) => state,
            Err(error) => {
                let mut state = self.disk.state();
                if !matches!(state.fault, Some((_, Fault::PowerLoss))) {
                    state.inodes[self.inode].changes.clear();
                }
                return Err(error);
            }
        };
        let corrupts = state.corrupts;
        state.corrupts = corrupts.and_then(|(syncs, bit)| Some((syncs.checked_sub(1)?, bit)));
        if !state.ignores_syncs {
            let inode = &mut state.inodes[self.inode];
            for change in std::mem::take(&mut inode.changes) {
                change.apply(&mut inode.durable);
            }
            if let Some((0, bit)) = corrupts {
                inode.durable[bit / 8] ^= 1 << (bit % 8);
                inode.memory.clone_from(&inode.durable);
            }
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.state().names.get(path) == Some(&self.inode))
    }

    fn publish(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        if state.names.get(from) != Some(&self.inode) {
            return Err(ErrorKind::NotFound.into());
        }
        match state.names.get(to) {
            Some(&other) if other != self.inode => Err(ErrorKind::AlreadyExists.into()),
            _ => {
                state.name(to, Some(self.inode));
                Ok(())
            }
        }
    }
}
