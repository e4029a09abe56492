//! Made-up traces: all that the writer needs to be tried without a model.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hallutrace::error::ShardError;
use hallutrace::shard::encode::{Array, Values};
use hallutrace::shard::record::{Record, StoredTypes};
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::{
    Commit, Description, Disk, Finished, Grouping, Outcome, Plan, Published, Setting, ShardPaths,
    ShardWriter, Storage, files, take_published,
};

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
        set(Tensor::Logsumexp, floats(1), &[1]);
        set(Tensor::AlternativesToken, Values::I32(&[9, 4]), &[1, 2]);
        set(Tensor::AlternativesLogprob, floats(2), &[1, 2]);
        set(Tensor::Tokens, Values::I32(&[7, 8, 9]), &[3]);
        set(Tensor::LogDiagonal, floats(8), &[2, 2, 2]);
        set(Tensor::LogSquare, floats(8), &[2, 2, 2]);
        set(Tensor::Diagonal, floats(12), &[2, 2, 3]);
        set(Tensor::ReceivedMean, floats(12), &[2, 2, 3]);
        set(Tensor::Previous, floats(8), &[2, 2, 2]);
        set(Tensor::Entropy, floats(8), &[2, 2, 2]);
        set(Tensor::Mass, floats(24), &[2, 2, 2, 3]);
        set(Tensor::Square, floats(8), &[2, 2, 2]);
        set(Tensor::Rough, floats(24), &[2, 2, 2, 3]);
        set(Tensor::ValueNorm, floats(6), &[2, 1, 3]);
        set(Tensor::Hidden, floats(16), &[2, 2, 4]);
        set(Tensor::Meta, Values::U8(self.meta.as_bytes()), &[self.meta.len()]);
        Record { number, key: (id.to_owned(), 0), arrays }
    }
}

/// What made-up shards say of themselves.
pub fn description(name: &str) -> Description {
    let environment = [("threads", Setting::Number(2)), ("torch", Setting::Text("2.\"15".into()))];
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value));
    Description {
        digest: "d".repeat(32),
        environment: environment.chain([("bitsandbytes".to_owned(), Setting::Nothing)]).collect(),
        fingerprint: "f".repeat(16),
        first: 0,
        name: name.to_owned(),
        questions: 3,
    }
}

/// How a made-up shard is begun.
pub fn plan(identity: &str, name: &str, traces: usize) -> Plan {
    Plan { identity: identity.to_owned(), description: description(name), traces, types: TYPES }
}

/// The writer of the shard `name` of a run.
pub fn begin(
    storage: Arc<dyn Storage + Send + Sync>,
    run: &Path,
    name: &str,
    traces: usize,
) -> ShardWriter {
    ShardWriter::begin(storage, ShardPaths::of(run, name), plan("made up", name, traces)).unwrap()
}

/// What came of a shard of so many traces.
pub fn outcome(traces: usize) -> Outcome {
    let traces = u64::try_from(traces).unwrap();
    Outcome {
        counts: [("traces".to_owned(), traces), ("failures".to_owned(), 1)].into(),
        halvings: vec![[0, 2]],
        indices: (0..traces).map(|index| 2 * index).collect(),
    }
}

/// Finishes a shard.
pub fn finish(writer: &mut ShardWriter) -> Result<Finished, ShardError> {
    writer.finish(outcome(writer.len()))
}

/// What stands for a commit record: all that a shard says of itself, its size and its checksum.
pub fn record_of(storage: &dyn Storage, paths: &ShardPaths) -> Result<Option<String>, ShardError> {
    Ok(take_published(storage, paths)?.map(|Published { commit, finished, .. }| {
        format!("{} {} {:016x}\n", commit.to_json(), finished.bytes, finished.checksum)
    }))
}

/// Extracts one shard unless it is recorded, as the pipeline does: one that was finished is taken as it is,
/// and one that was begun is gone on with.
pub fn extract_shard(
    storage: &Arc<dyn Storage + Send + Sync>,
    run: &Path,
    name: &str,
    [batches, batch]: [usize; 2],
    grouping: Grouping,
) -> Result<(), ShardError> {
    let paths = ShardPaths::of(run, name);
    let record = run.join("shards").join(format!("{name}.json"));
    let scratch = run.join("partial").join(format!("{name}.json"));
    if storage.exists(&record) {
        // A kill may come between the two names of a record, or before the journal's end.
        let _ = storage.remove(&scratch);
        let _ = storage.remove(&paths.journal);
        return Ok(());
    }
    let content = if let Some(content) = record_of(&**storage, &paths)? {
        content
    } else {
        let plan = plan(name, name, batches * batch);
        let mut writer =
            ShardWriter::begin(Arc::clone(storage), paths.clone(), plan)?.grouped(grouping);
        for at in writer.notes().len()..batches {
            for number in at * batch..(at + 1) * batch {
                let id = format!("{name}-{number}");
                writer.append(&MadeUp::new(&id).record(number, &id))?;
            }
            writer.end_batch(&at.to_string())?;
        }
        let finished = finish(&mut writer)?;
        let commit =
            Commit { description: description(name), outcome: outcome(batches * batch) }.to_json();
        format!("{commit} {} {:016x}\n", finished.bytes, finished.checksum)
    };
    files::write_new(&**storage, &scratch, &record, content.as_bytes())?;
    match storage.remove(&paths.journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ShardError::Io {
            action: "remove",
            path: paths.journal.display().to_string(),
            source: error,
        }),
        _ => Ok(()),
    }
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
        let grouping = Grouping { bytes: self.group, age: Duration::from_secs(60) };
        let disk: Arc<dyn Storage + Send + Sync> = Arc::new(Disk);
        for shard in 0..self.shards {
            let size = [self.batches, self.batch];
            extract_shard(&disk, run, &format!("{shard:05}"), size, grouping)?;
        }
        Ok(())
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
