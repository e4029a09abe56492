//! Streams traces into a shard: data first, the header last.
//!
//! ```text
//! create   reserve header_space(traces) bytes, which no reader accepts as a header
//! append   encode each tensor, pad the trace to 64 bytes, write, keep only its entry
//! finish   write the header, sync, reopen with the strict reader, publish, sync the folder
//! ```
//! A trace leaves memory when it is appended; what stays is its entry in the header, about 2 KB.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::encode::{self, Array};
use super::files;
use super::layout::{self, LENGTH_BYTES, LONGEST_HEADER, TensorEntry, TraceEntry};
use super::reader::Shard;
use super::schema::{self, ALIGNMENT, Dtype, Form, Forms, Tensor};
use crate::error::ShardError;

/// A trace on its way to the disk.
pub struct Record<'a> {
    /// Number within the shard.
    pub number: usize,
    /// Question id and sample.
    pub key: (String, u32),
    /// Arrays indexed as in [`Tensor::ALL`]; `meta` is padded by the writer.
    pub arrays: [Option<Array<'a>>; Tensor::ALL.len()],
}

/// Element types that a run may choose.
#[derive(Debug, Clone, Copy)]
pub struct StoredTypes {
    /// Of the edges' weights.
    pub edge_weight: Dtype,
    /// Of hidden states, where they are kept.
    pub hidden: Dtype,
}

/// What a finished shard is recorded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// XXH3 of the whole file.
    pub checksum: u64,
    /// Question id and sample of each trace, in the order of the file.
    pub keys: Vec<(String, u32)>,
}

/// A shard being written.
pub struct ShardWriter {
    file: File,
    path: PathBuf,
    types: StoredTypes,
    header_space: usize,
    data_bytes: usize,
    traces: Vec<TraceEntry>,
}

impl ShardWriter {
    /// Begins a shard at `path`, over whatever stood there, with room for `traces` traces.
    ///
    /// # Errors
    /// [`ShardError::Io`].
    pub fn create(path: &Path, traces: usize, types: StoredTypes) -> Result<Self, ShardError> {
        let header_space = layout::header_space(traces);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(ShardError::io("create", path))?;
        file.seek(SeekFrom::Start((LENGTH_BYTES + header_space) as u64))
            .map_err(ShardError::io("write", path))?;
        let path = path.to_path_buf();
        Ok(Self { file, path, types, header_space, data_bytes: 0, traces: Vec::new() })
    }

    /// Traces appended so far.
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether no trace was appended yet.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Bytes of the data appended so far.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Appends one trace.
    ///
    /// # Errors
    /// [`ShardError::Trace`] where it does not fit the schema (the shard stays as it was), or
    /// [`ShardError::Io`].
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), ShardError> {
        let (entry, data) = self.lay_out(record)?;
        self.file.write_all(&data).map_err(ShardError::io("write", &self.path))?;
        self.data_bytes += data.len();
        self.traces.push(entry);
        Ok(())
    }

    /// The entry and the bytes of a trace that begins where the data ends now.
    fn lay_out(&self, record: &Record<'_>) -> Result<(TraceEntry, Vec<u8>), ShardError> {
        let number = record.number;
        let forms = self.forms(record);
        let misfit = |(tensor, found): schema::Disagreement| ShardError::Trace {
            number,
            tensor: tensor.name(),
            found,
        };
        schema::dimensions(&forms).map_err(misfit)?;
        let mut data = Vec::new();
        let mut tensors = Vec::new();
        for tensor in schema::disk_order(&forms) {
            let (Some(array), Some(form)) =
                (&record.arrays[tensor as usize], &forms[tensor as usize])
            else {
                continue;
            };
            let mut form = form.clone();
            let begin = data.len();
            data.extend(
                encode::encode(array.values, form.dtype)
                    .map_err(|found| misfit((tensor, found)))?,
            );
            if tensor == Tensor::Meta {
                data.resize(data.len().next_multiple_of(ALIGNMENT), b' ');
                form.shape = vec![data.len() - begin];
            }
            if form.bytes() != Some(data.len() - begin) {
                let found = format!("{} bytes for shape {:?}", data.len() - begin, form.shape);
                return Err(misfit((tensor, found)));
            }
            let checksum = xxh3_64(&data[begin..]);
            let (begin, end) = (self.data_bytes + begin, self.data_bytes + data.len());
            tensors.push(TensorEntry { tensor, form, begin, end, checksum });
        }
        let entry = TraceEntry { number, key: record.key.clone(), tensors };
        super::reader::check_data(&entry, self.data_bytes, &data).map_err(misfit)?;
        Ok((entry, data))
    }

    fn forms(&self, record: &Record<'_>) -> Forms {
        let tokens = record.arrays[Tensor::Tokens as usize]
            .as_ref()
            .map_or(0, |array| array.shape.iter().product());
        Tensor::ALL.map(|tensor| {
            let array = record.arrays[tensor as usize].as_ref()?;
            let dtype = match tensor {
                Tensor::EdgesWeight => self.types.edge_weight,
                Tensor::Hidden => self.types.hidden,
                Tensor::EdgesKey if tokens > usize::from(u16::MAX) + 1 => Dtype::U32,
                _ => tensor.dtypes()[0],
            };
            Some(Form { dtype, shape: array.shape.clone() })
        })
    }

    /// Writes the header, syncs, verifies what was written, and publishes the shard as `to`.
    ///
    /// # Errors
    /// [`ShardError::Exists`] where another process was first; [`ShardError::Io`];
    /// [`ShardError::Damaged`] where the disk gives back other bytes than were written.
    pub fn finish(mut self, to: &Path) -> Result<Finished, ShardError> {
        let header = layout::encode(&self.traces);
        if header.len() > self.header_space {
            self.move_data(layout::padded_header(header.len()))?;
        }
        let mut bytes = (self.header_space as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(LENGTH_BYTES + self.header_space, b' ');
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_all())
            .map_err(ShardError::io("write", &self.path))?;
        let shard = Shard::open(&self.path)?;
        shard.verify()?;
        let finished = Finished {
            bytes: shard.bytes().len() as u64,
            checksum: xxh3_64(shard.bytes()),
            keys: self.traces.into_iter().map(|trace| trace.key).collect(),
        };
        files::publish(&self.path, to)?;
        Ok(finished)
    }

    /// Gives the header more room, by copying the data into a new file.
    fn move_data(&mut self, header_space: usize) -> Result<(), ShardError> {
        if header_space > LONGEST_HEADER {
            return Err(ShardError::Damaged {
                path: self.path.display().to_string(),
                found: format!(
                    "a header of {header_space} bytes (100,000,000 at most: use smaller shards)"
                ),
            });
        }
        let wider = self.path.with_extension("wider");
        let failed = || ShardError::io("write", &wider);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&wider)
            .map_err(failed())?;
        let old = (LENGTH_BYTES + self.header_space) as u64;
        self.file.seek(SeekFrom::Start(old)).map_err(failed())?;
        file.seek(SeekFrom::Start((LENGTH_BYTES + header_space) as u64)).map_err(failed())?;
        let mut data = (&self.file).take(self.data_bytes as u64);
        std::io::copy(&mut data, &mut file).map_err(failed())?;
        fs::rename(&wider, &self.path).map_err(ShardError::io("rename", &self.path))?;
        self.file = file;
        self.header_space = header_space;
        Ok(())
    }
}
