//! Opens a shard strictly and hands out its bytes in place.
//!
//! Opening costs O(header): it checks that the header is one that [`super::writer`] could have written,
//! down to the order of tensors, so a file from elsewhere is refused rather than guessed at. Checksums and
//! the rules of the data are checked when a trace is first read, or all at once by [`Shard::verify`].

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use super::commit::Commit;
use super::damage::Damage;
use super::disk;
use super::header::{self, Header, in_trace};
use super::header_layout::TraceEntry;
use super::rules;
use super::schema::{Disagreement, Form, Tensor};
use super::schema_violation::Violation;
use crate::error::ShardError;

/// The bits of the rules beside those of the tensors.
const EDGES_CHECKED: u32 = 1 << 31;
const META_CHECKED: u32 = 1 << 30;

/// When checksums and the rules of the data are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// When a tensor is read for the first time.
    #[default]
    First,
    /// Whenever a tensor is read.
    Always,
    /// Not at all: for those who verified before.
    Never,
}

/// A shard open for reading, its file mapped into memory.
///
/// A file that is cut short under its mapping would end the process at the next touch of what is gone, so
/// its length is asked for at every read, and a shorter one is an error. What was handed out before
/// cannot be guarded: who cuts files of a run that is being read can still end the reader.
pub struct Shard {
    path: String,
    source: Source,
    when: Verify,
    header: Header,
    /// Per trace: a bit for each tensor whose checksum was right, and those of the rules of the data.
    verified: Vec<AtomicU32>,
}

/// Where the bytes of a shard are.
enum Source {
    Mapped(File, Mmap),
    Memory(Vec<u8>),
}

impl Shard {
    /// Opens and checks the header of a shard.
    ///
    /// # Errors
    /// [`ShardError::Io`], or [`ShardError::Damaged`] saying what the header breaks.
    pub fn open(path: &Path) -> Result<Self, ShardError> {
        Self::open_with(path, Verify::default())
    }

    /// Opens a shard, and says when its data is to be checked.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, when: Verify) -> Result<Self, ShardError> {
        let opened = disk::open_to_read(path).map_err(ShardError::io("open", path))?;
        let Some(file) = opened else {
            return Err(ShardError::damaged(path, Damage::NoFile));
        };
        // SAFETY: committed shards never change (they are written once and only ever renamed), so the
        // mapped bytes stay as they are while the map lives; a file cut short from outside would fault.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(ShardError::io("map", path))?;
        Self::of(path.display().to_string(), Source::Mapped(file, map), when)
    }

    /// A shard in memory, for tests and fuzzing: all that is done with a file is done with it.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[doc(hidden)]
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ShardError> {
        Self::of("memory".to_owned(), Source::Memory(bytes), Verify::default())
    }

    fn of(path: String, source: Source, when: Verify) -> Result<Self, ShardError> {
        let bytes = source.bytes();
        match header::parse(bytes, bytes.len() as u64) {
            Ok(header) => {
                let verified = header.traces.iter().map(|_| AtomicU32::new(0)).collect();
                Ok(Self { path, source, when, header, verified })
            }
            Err(found) => Err(ShardError::damaged(Path::new(&path), found)),
        }
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.source.bytes()
    }

    /// The traces, in the order of the file.
    pub fn traces(&self) -> &[TraceEntry] {
        &self.header.traces
    }

    /// What the shard says of itself.
    pub fn commit(&self) -> &Commit {
        &self.header.commit
    }

    /// The entry of a tensor of the trace at `position`, and its bytes once their checksum is right and,
    /// where there are rules for them (edges form CSR graphs of the past, meta has the trace's key and agrees
    /// with its shapes), they keep them.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming the tensor.
    pub fn tensor(
        &self,
        position: usize,
        tensor: Tensor,
    ) -> Result<Option<(&Form, &[u8])>, ShardError> {
        let entry = &self.header.traces[position];
        let Some(at) = entry.tensors.iter().find(|entry| entry.tensor == tensor) else {
            return Ok(None);
        };
        self.check_length()?;
        let bytes = &self.data()[at.begin..at.end];
        self.once(position, 1 << tensor as u32, || {
            if xxh3_64(bytes) == at.checksum { Ok(()) } else { Err((tensor, Violation::Checksum)) }
        })?;
        match tensor {
            Tensor::EdgesOffset | Tensor::EdgesIndptr | Tensor::EdgesKey => {
                self.once(position, EDGES_CHECKED, || rules::check_edges(entry, 0, self.data()))?;
            }
            Tensor::Meta => {
                self.once(position, META_CHECKED, || rules::check_meta(entry, 0, self.data()))?;
            }
            _ => {}
        }
        Ok(Some((&at.form, bytes)))
    }

    /// The entry of a trace and all of its bytes, once they are what the checksums and rules say.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming the tensor.
    pub fn trace(&self, position: usize) -> Result<(TraceEntry, &[u8]), ShardError> {
        let entry = &self.header.traces[position];
        for at in &entry.tensors {
            self.tensor(position, at.tensor)?;
        }
        let begin = entry.tensors.first().map_or(0, |at| at.begin);
        let end = entry.tensors.last().map_or(0, |at| at.end);
        Ok((entry.clone(), &self.data()[begin..end]))
    }

    /// Refuses a file that is no longer as long as its mapping.
    fn check_length(&self) -> Result<(), ShardError> {
        let Source::Mapped(file, map) = &self.source else { return Ok(()) };
        let length = file.metadata().map_err(ShardError::io("read", Path::new(&self.path)))?.len();
        if length == map.len() as u64 {
            return Ok(());
        }
        Err(self.damaged(Damage::Resized { length, was: map.len() }))
    }

    fn data(&self) -> &[u8] {
        &self.bytes()[self.header.data..]
    }

    /// Runs a check of a trace, as often as was asked for.
    fn once(
        &self,
        position: usize,
        bit: u32,
        check: impl FnOnce() -> Result<(), Disagreement>,
    ) -> Result<(), ShardError> {
        let passed = &self.verified[position];
        let is_due = match self.when {
            Verify::First => passed.load(Ordering::Relaxed) & bit == 0,
            Verify::Always => true,
            Verify::Never => false,
        };
        if is_due {
            check().map_err(|violation| {
                self.damaged(in_trace(&self.header.traces[position], violation))
            })?;
            passed.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// XXH3 of the whole file, as its commit record has it.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] where the file is no longer as long as its mapping.
    pub fn digest(&self) -> Result<u64, ShardError> {
        self.check_length()?;
        Ok(xxh3_64(self.bytes()))
    }

    /// Checks all checksums and all rules of the data that were not checked yet.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] for the first thing that is wrong.
    pub fn verify(&self) -> Result<(), ShardError> {
        for position in 0..self.traces().len() {
            self.trace(position)?;
        }
        Ok(())
    }

    pub(super) fn damaged(&self, found: Damage) -> ShardError {
        ShardError::Damaged { path: self.path.clone(), found }
    }
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(_, map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}
