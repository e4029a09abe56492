//! Shards: what is written is read, by us and by the official reader; what is damaged is noticed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use hallutrace::error::ShardError;
use hallutrace::shard::encode::{Array, Values};
use hallutrace::shard::layout;
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::writer::{Finished, Record, StoredTypes};
use hallutrace::shard::{Shard, ShardWriter};
use safetensors::SafeTensors;

const TYPES: StoredTypes = StoredTypes { edge_weight: Dtype::F16, hidden: Dtype::F32 };

/// A made-up trace of 2 layers, 2 heads, 3 tokens, 1 of them answer, every token looking at itself.
struct MadeUp {
    meta: String,
    floats: Vec<f32>,
}

impl MadeUp {
    fn new(id: &str) -> Self {
        let floats = (0_u8..64).map(|x| f32::from(x) / 64.0).collect();
        Self { meta: format!(r#"{{"id":{id:?},"sample":0}}"#), floats }
    }

    fn record(&self, number: usize, id: &str) -> Record<'_> {
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

/// Writes made-up traces with these ids; the file and what the writer says of it.
fn write(folder: &Path, ids: &[&str]) -> (PathBuf, Finished) {
    let mut writer = ShardWriter::create(&folder.join("part"), ids.len(), TYPES).unwrap();
    for (number, id) in ids.iter().enumerate() {
        writer.append(&MadeUp::new(id).record(number, id)).unwrap();
    }
    let path = folder.join("shard.safetensors");
    let finished = writer.finish(&path).unwrap();
    (path, finished)
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, finished) = write(folder.path(), &["a", "b\"ü"]);
    let shard = Shard::open(&path).unwrap();
    shard.verify().unwrap();
    assert_eq!(finished.bytes, shard.bytes().len() as u64);
    assert_eq!(shard.traces()[1].key, ("b\"ü".to_owned(), 0));
    let (form, bytes) = shard.tensor(1, Tensor::Tokens).unwrap().unwrap();
    assert_eq!((form.dtype, bytes), (Dtype::I32, &[7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0][..]));
    assert!(shard.tensor(1, Tensor::HiddenScale).unwrap().is_none());
    assert!(!folder.path().join("part").exists());
}

#[test]
fn every_array_is_aligned_to_its_elements() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a", "a longer id", "c"]);
    let shard = Shard::open(&path).unwrap();
    for trace in shard.traces() {
        assert_eq!(trace.tensors[0].begin % 64, 0);
        for entry in &trace.tensors {
            assert_eq!(entry.begin % entry.form.dtype.size(), 0, "{}", entry.tensor);
        }
    }
}

#[test]
fn the_official_reader_opens_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a", "b"]);
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2 * 16);
    let mass = tensors.tensor("00001.marginals.mass").unwrap();
    assert_eq!(mass.shape(), [2, 2, 2, 3]);
    assert_eq!(mass.dtype(), safetensors::Dtype::F16);
}

#[test]
fn the_bytes_of_a_shard_are_golden() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rust/golden.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["golden"]);
    let written = std::fs::read(path).unwrap();
    if std::env::var_os("HALLUTRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &written).unwrap();
    }
    // Shards of schema 1 are out there: another format needs another schema, and another golden file.
    assert!(written == std::fs::read(golden).unwrap(), "the format changed");
}

#[test]
fn a_header_that_outgrows_its_room_is_given_more() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(10_000);
    let (path, _) = write(folder.path(), &[&long]);
    let shard = Shard::open(&path).unwrap();
    shard.verify().unwrap();
    assert_eq!(shard.traces()[0].key.0, long);
}

#[test]
fn the_header_takes_the_room_that_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a", "b", "c"]);
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(length, layout::header_space(3) as u64);
    assert_eq!((8 + length) % 64, 0);
}

#[test]
fn a_trace_that_does_not_fit_leaves_the_shard_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(&folder.path().join("part"), 2, TYPES).unwrap();
    let made_up = MadeUp::new("a");
    writer.append(&made_up.record(0, "a")).unwrap();
    let before = writer.data_bytes();

    let mut wrong_shape = made_up.record(1, "a");
    wrong_shape.arrays[Tensor::Entropy as usize].as_mut().unwrap().shape = vec![2, 4, 1];
    let error = writer.append(&wrong_shape).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Expected a trace of schema 1, got shape [2, 4, 1] where the others say [2, 2, 2] in \
         `marginals.entropy` of trace 1"
    );

    let mut later_key = made_up.record(1, "a");
    later_key.arrays[Tensor::EdgesKey as usize].as_mut().unwrap().values =
        Values::I32(&[1, 1, 2, 0, 1, 2]);
    let error = writer.append(&later_key).unwrap_err();
    assert!(error.to_string().contains("keys [1] of query 0 in `edges.key`"), "{error}");

    let large = [1e6_f32; 12];
    let mut overflowing = made_up.record(1, "a");
    overflowing.arrays[Tensor::Diagonal as usize].as_mut().unwrap().values = Values::F32(&large);
    let error = writer.append(&overflowing).unwrap_err();
    assert!(error.to_string().contains("1000000, which float16 cannot hold"), "{error}");

    assert_eq!((writer.len(), writer.data_bytes()), (1, before));
    writer.finish(&folder.path().join("shard")).unwrap();
}

#[test]
fn a_shard_is_never_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["first"]);
    let before = std::fs::read(&path).unwrap();
    let mut writer = ShardWriter::create(&folder.path().join("part"), 1, TYPES).unwrap();
    writer.append(&MadeUp::new("second").record(0, "second")).unwrap();
    assert!(matches!(writer.finish(&path).unwrap_err(), ShardError::Exists { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_shard_that_was_never_finished_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part");
    let mut writer = ShardWriter::create(&path, 1, TYPES).unwrap();
    writer.append(&MadeUp::new("a").record(0, "a")).unwrap();
    drop(writer);
    assert!(matches!(Shard::open(&path), Err(ShardError::Damaged { .. })));
}

#[test]
fn a_shard_without_traces_is_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (path, finished) = write(folder.path(), &[]);
    assert!(finished.keys.is_empty());
    Shard::open(&path).unwrap().verify().unwrap();
}

/// Whether reading everything of these bytes notices that they are damaged.
fn is_noticed(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("damaged");
    std::fs::write(&path, bytes).unwrap();
    Shard::open(&path).and_then(|shard| shard.verify()).is_err()
}

#[test]
fn every_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let good = std::fs::read(path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(is_noticed(folder.path(), &bytes), "byte {at}");
    }
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let good = std::fs::read(path).unwrap();
    for end in 0..good.len() {
        assert!(is_noticed(folder.path(), &good[..end]), "cut at {end}");
    }
    for more in [1, 63, 64] {
        let longer: Vec<u8> = good.iter().copied().chain(vec![0; more]).collect();
        assert!(is_noticed(folder.path(), &longer), "{more} bytes more");
    }
}

#[test]
fn a_header_with_the_same_tensors_in_another_form_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8(bytes[8..].iter().map(|&b| b.min(127)).collect()).unwrap();
    let spaced = text.replacen("\"shape\":[3]", "\"shape\": [3]", 1);
    let mut damaged = bytes.clone();
    let end = layout::header_space(1);
    damaged[8..8 + end].copy_from_slice(&spaced.as_bytes()[..end]);
    assert!(is_noticed(folder.path(), &damaged));
}
