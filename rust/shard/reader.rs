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

use super::layout::{
    self, LENGTH_BYTES, LONGEST_HEADER, Metadata, RawHeader, TensorEntry, TraceEntry,
};
use super::rules;
use super::schema::{self, ALIGNMENT, Disagreement, Form, Forms, Tensor};
use crate::error::ShardError;

/// The bit of [`Shard::check`] beside those of the tensors.
const DATA_CHECKED: u32 = 1 << 31;

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
    file: File,
    map: Mmap,
    when: Verify,
    data: usize,
    traces: Vec<TraceEntry>,
    /// Per trace: a bit for each tensor whose checksum was right, and one for the rules of the data.
    verified: Vec<AtomicU32>,
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
        let file = File::open(path).map_err(ShardError::io("open", path))?;
        // SAFETY: committed shards never change (they are written once and only ever renamed), so the
        // mapped bytes stay as they are while the map lives; a file cut short from outside would fault.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(ShardError::io("map", path))?;
        let path = path.display().to_string();
        let damaged = |found: String| ShardError::Damaged { path: path.clone(), found };
        let (data, traces) = parse(&map, map.len() as u64).map_err(damaged)?;
        for trace in &traces {
            schema::dimensions(&forms(trace)).map_err(|misfit| damaged(in_trace(trace, misfit)))?;
        }
        let verified = traces.iter().map(|_| AtomicU32::new(0)).collect();
        Ok(Self { path, file, map, when, data, traces, verified })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The traces, in the order of the file.
    pub fn traces(&self) -> &[TraceEntry] {
        &self.traces
    }

    /// The entry of a tensor of the trace at `position`, and its bytes once their checksum is right.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming the tensor.
    pub fn tensor(
        &self,
        position: usize,
        tensor: Tensor,
    ) -> Result<Option<(&Form, &[u8])>, ShardError> {
        let entry = &self.traces[position];
        let Some(at) = entry.tensors.iter().find(|entry| entry.tensor == tensor) else {
            return Ok(None);
        };
        self.check_length()?;
        let bytes = &self.map[self.data + at.begin..self.data + at.end];
        self.once(position, 1 << tensor as u32, || {
            if xxh3_64(bytes) == at.checksum {
                Ok(())
            } else {
                Err((tensor, "bytes that their checksum does not know".to_owned()))
            }
        })?;
        Ok(Some((&at.form, bytes)))
    }

    /// The entry of a trace and all of its bytes, once they are what the checksums and rules say.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming the tensor.
    pub fn trace(&self, position: usize) -> Result<(TraceEntry, &[u8]), ShardError> {
        let entry = &self.traces[position];
        for at in &entry.tensors {
            self.tensor(position, at.tensor)?;
        }
        self.check(position)?;
        let begin = entry.tensors.first().map_or(0, |at| at.begin);
        let end = entry.tensors.last().map_or(0, |at| at.end);
        Ok((entry.clone(), &self.map[self.data + begin..self.data + end]))
    }

    /// Checks the rules of a trace's data: graphs of the past in CSR, and a meta with the trace's key.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming the tensor.
    pub fn check(&self, position: usize) -> Result<(), ShardError> {
        let entry = &self.traces[position];
        self.check_length()?;
        self.once(position, DATA_CHECKED, || rules::check(entry, 0, &self.map[self.data..]))
    }

    /// Refuses a file that is no longer as long as its mapping.
    fn check_length(&self) -> Result<(), ShardError> {
        let length = self.file.metadata().map_err(ShardError::io("read", Path::new(&self.path)))?;
        if length.len() == self.map.len() as u64 {
            return Ok(());
        }
        let found = format!("{} bytes where there were {}", length.len(), self.map.len());
        Err(self.damaged(found))
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
            check().map_err(|misfit| self.damaged(in_trace(&self.traces[position], misfit)))?;
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
        Ok(xxh3_64(&self.map))
    }

    /// Checks all checksums and all rules of the data that were not checked yet.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] for the first thing that is wrong.
    pub fn verify(&self) -> Result<(), ShardError> {
        for position in 0..self.traces.len() {
            self.trace(position)?;
        }
        Ok(())
    }

    fn damaged(&self, found: String) -> ShardError {
        ShardError::Damaged { path: self.path.clone(), found }
    }
}

fn in_trace(trace: &TraceEntry, (tensor, found): Disagreement) -> String {
    format!("{found} in `{tensor}` of trace {:05}", trace.number)
}

fn forms(trace: &TraceEntry) -> Forms {
    let mut forms = Forms::default();
    for entry in &trace.tensors {
        forms[entry.tensor as usize] = Some(entry.form.clone());
    }
    forms
}

/// Where the data begins, and the traces; or what is wrong with the header.
///
/// `file` is the beginning of a file of `size` bytes, the whole header at least.
pub(super) fn parse(file: &[u8], size: u64) -> Result<(usize, Vec<TraceEntry>), String> {
    let length = file
        .first_chunk::<LENGTH_BYTES>()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(|| format!("{} bytes", file.len()))?;
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_HEADER && length <= file.len() - LENGTH_BYTES)
        .ok_or_else(|| format!("a header of {length} bytes in a file of {size}"))?;
    let data = LENGTH_BYTES + length;
    if length == 0 || !data.is_multiple_of(ALIGNMENT) {
        return Err(format!("a header of {length} bytes, a shard that was never finished"));
    }
    let header: RawHeader = serde_json::from_slice(&file[LENGTH_BYTES..data])
        .map_err(|error| format!("a header that is not one of ours ({error})"))?;
    let metadata: Metadata = serde_json::from_str(&header.metadata)
        .map_err(|error| format!("metadata that is not ours ({error})"))?;
    if metadata.schema != schema::SCHEMA {
        return Err(format!("schema {}", metadata.schema));
    }
    let traces = entries(header, metadata)?;
    // A header has one form: what the writer would not have written, byte for byte, is damage.
    let due = layout::encode(&traces);
    let padding = file[LENGTH_BYTES..data].strip_prefix(due.as_bytes());
    if !padding.is_some_and(|padding| padding.iter().all(|&byte| byte == b' ')) {
        return Err("a header in another form than the writer's".to_owned());
    }
    let end = traces.last().and_then(|trace| trace.tensors.last()).map_or(0, |last| last.end);
    if (data as u64).checked_add(end as u64) != Some(size) {
        return Err(format!("{size} bytes where the header tells of {data} + {end}"));
    }
    Ok((data, traces))
}

/// Deals the header's tensors out to the traces that the metadata names.
fn entries(header: RawHeader, metadata: Metadata) -> Result<Vec<TraceEntry>, String> {
    let Metadata { checksums, keys, numbers, .. } = metadata;
    if keys.len() != numbers.len() || checksums.len() != numbers.len() {
        return Err(format!(
            "{} keys and {} checksums for {} traces",
            keys.len(),
            checksums.len(),
            numbers.len()
        ));
    }
    let mut seen = std::collections::HashSet::new();
    let mut tensors = header.tensors.into_iter();
    let mut begin = 0;
    let mut traces = Vec::new();
    for ((number, key), checksums) in numbers.into_iter().zip(keys).zip(checksums) {
        if !seen.insert(number) {
            return Err(format!("trace {number:05} twice"));
        }
        let count = checksums.len() / 16;
        let mut trace = TraceEntry { number, key, tensors: Vec::with_capacity(count) };
        for (at, (name, raw)) in tensors.by_ref().take(count).enumerate() {
            let checksum = checksums
                .get(16 * at..16 * (at + 1))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| format!("checksum {checksums:?} of trace {number:05}"))?;
            let tensor = name
                .strip_prefix(&format!("{number:05}."))
                .and_then(Tensor::named)
                .ok_or_else(|| format!("tensor {name:?} where trace {number:05} goes on"))?;
            let form = Form { dtype: raw.dtype, shape: raw.shape };
            let end = form.bytes().and_then(|bytes| bytes.checked_add(begin));
            if raw.data_offsets.0 != begin || Some(raw.data_offsets.1) != end {
                return Err(format!(
                    "offsets {:?} of {name}, {begin} and {end:?} due",
                    raw.data_offsets
                ));
            }
            trace.tensors.push(TensorEntry {
                tensor,
                form,
                begin,
                end: raw.data_offsets.1,
                checksum,
            });
            begin = raw.data_offsets.1;
        }
        if checksums.len() != 16 * trace.tensors.len() || !begin.is_multiple_of(ALIGNMENT) {
            return Err(format!("trace {number:05} cut short"));
        }
        let order = schema::disk_order(&forms(&trace));
        if !order.iter().eq(trace.tensors.iter().map(|entry| &entry.tensor)) {
            return Err(format!("the tensors of trace {number:05} out of order"));
        }
        traces.push(trace);
    }
    match tensors.next() {
        Some((name, _)) => Err(format!("tensor {name:?} of no trace")),
        None => Ok(traces),
    }
}
