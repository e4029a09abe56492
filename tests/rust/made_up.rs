//! Made-up traces: all that the writer needs to be tried without a model.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hallutrace::error::ShardError;
use hallutrace::shard::encode::{Array, Values};
use hallutrace::shard::record::{Record, StoredTypes};
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::writer::{Grouping, places};
use hallutrace::shard::{Disk, storage::Storage};
use hallutrace::shard::{ShardWriter, files};

pub const TYPES: StoredTypes = StoredTypes { edge_weight: Dtype::F16, hidden: Dtype::F32 };

/// A made-up trace of 2 layers, 2 heads, 3 tokens, 1 of them answer, every token looking at itself.
pub struct MadeUp {
    pub meta: String,
    pub floats: Vec<f32>,
}

impl MadeUp {
    pub fn new(id: &str) -> Self {
        let floats = (0_u8..64).map(|x| f32::from(x) / 64.0).collect();
        let id = serde_json::to_string(id).unwrap();
        Self { meta: format!(r#"{{"id":{id},"sample":0}}"#), floats }
    }

    pub fn record(&self, number: usize, id: &str) -> Record<'_> {
        let mut arrays = <[Option<Array<'_>>; Tensor::ALL.len()]>::default();
        let mut set = |tensor: Tensor, values, shape: &[usize]| {
            arrays[tensor as usize] = Some(Array { values, shape: shape.to_vec() });
        };
        let floats = |count: usize| Values::F32(&self.floats[..count]);
        set(Tensor::EdgesOffset, Values::I64(&[0, 3, 6]), &[3]);
        set(Tensor::EdgesIndptr, Values::I32(&[0, 1, 2, 3, 0, 1, 2, 3]), &[2, 4]);
        set(Tensor::EdgesKey, Values::I32(&[0, 1, 2, 0, 1, 2]), &[6]);
        set(Tensor::EdgesWeight, floats(6), &[6]);
        set(Tensor::Logprob, floats(1), &[1]);
        set(Tensor::TokenEntropy, floats(1), &[1]);
        set(Tensor::Tokens, Values::I32(&[7, 8, 9]), &[3]);
        set(Tensor::LogDiagonal, floats(8), &[2, 2, 2]);
        set(Tensor::Diagonal, floats(12), &[2, 2, 3]);
        set(Tensor::ReceivedMean, floats(12), &[2, 2, 3]);
        set(Tensor::Previous, floats(8), &[2, 2, 2]);
        set(Tensor::Entropy, floats(8), &[2, 2, 2]);
        set(Tensor::Mass, floats(24), &[2, 2, 2, 3]);
        set(Tensor::ValueNorm, floats(6), &[2, 1, 3]);
        set(Tensor::Hidden, floats(16), &[2, 2, 4]);
        set(Tensor::Meta, Values::U8(self.meta.as_bytes()), &[self.meta.len()]);
        Record { number, key: (id.to_owned(), 0), arrays }
    }
}

/// The writer of the shard `name` of a run.
pub fn begin(
    storage: Arc<dyn Storage + Send + Sync>,
    run: &Path,
    name: &str,
    traces: usize,
) -> ShardWriter {
    ShardWriter::begin(storage, places(run, name), "made up", traces, TYPES).unwrap()
}

/// How large a made-up extraction is, and how many bytes it writes between two syncs.
#[derive(Debug, Clone, Copy)]
pub struct Extraction {
    pub shards: usize,
    pub batches: usize,
    pub batch: usize,
    pub group: usize,
}

impl Extraction {
    /// What the pipeline does: every shard without a commit record, from where its journal ends.
    pub fn run(self, run: &Path) -> Result<(), ShardError> {
        for shard in 0..self.shards {
            let name = format!("{shard:05}");
            let record = run.join("shards").join(format!("{name}.json"));
            if record.exists() {
                // A kill may come between the two names of a record, or before the journal's end.
                let _ = std::fs::remove_file(run.join("partial").join(format!("{name}.json")));
                let _ = std::fs::remove_file(places(run, &name).journal);
                continue;
            }
            self.shard(run, &name, &record)?;
        }
        Ok(())
    }

    fn shard(self, run: &Path, name: &str, record: &Path) -> Result<(), ShardError> {
        let traces = self.batches * self.batch;
        let writer = ShardWriter::begin(Arc::new(Disk), places(run, name), name, traces, TYPES)?;
        let grouping = Grouping { bytes: self.group, age: Duration::from_secs(60) };
        let mut writer = writer.grouped(grouping);
        for batch in writer.notes().len()..self.batches {
            for number in batch * self.batch..(batch + 1) * self.batch {
                let id = format!("{name}-{number}");
                writer.append(&MadeUp::new(&id).record(number, &id))?;
            }
            writer.end_batch(&batch.to_string())?;
        }
        let finished = writer.finish()?;
        let content = format!("{} {:016x}\n", finished.bytes, finished.checksum);
        let scratch = run.join("partial").join(format!("{name}.json"));
        files::write_new(&Disk, &scratch, record, content.as_bytes())?;
        writer.forget()
    }
}

/// Makes the folders of a run.
pub fn make_folders(run: &Path) {
    for folder in ["partial", "shards"] {
        std::fs::create_dir_all(run.join(folder)).unwrap();
    }
}

/// Every file of a run, by its path in it.
pub fn content(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = ["partial", "shards"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(run.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.strip_prefix(run).unwrap().to_path_buf(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}
