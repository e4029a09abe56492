//! Shards: what is written is read, by us and by the official reader; what is damaged is noticed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod made_up;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hallutrace::error::ShardError;
use hallutrace::shard::Disk;
use hallutrace::shard::encode::Values;
use hallutrace::shard::graph::Layer;
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::{
    Commit, Finished, Grouping, Outcome, Plan, Setting, Shard, ShardPaths, ShardWriter, Verify,
    header_layout,
};
use hallutrace::sparsify::Combine;
use made_up::{MadeUp, finish, outcome, plan};
use safetensors::SafeTensors;

/// Begins the one shard of a run in `folder`.
fn begin(folder: &Path, traces: usize) -> ShardWriter {
    for name in ["partial", "shards"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    made_up::begin(Arc::new(Disk), folder, "00000", traces)
}

/// Writes made-up traces with these ids; the file and what the writer says of it.
fn write(folder: &Path, ids: &[&str]) -> (PathBuf, Finished) {
    let mut writer = begin(folder, ids.len());
    for (number, id) in ids.iter().enumerate() {
        writer.append(&MadeUp::new(id).record(number, id)).unwrap();
    }
    writer.end_batch("").unwrap();
    let finished = finish(&mut writer).unwrap();
    writer.forget().unwrap();
    (folder.join("shards/00000.safetensors"), finished)
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, finished) = write(folder.path(), &["a", "b\"ü"]);
    let shard = Shard::open(&path).unwrap();
    shard.verify().unwrap();
    assert_eq!(finished.bytes, shard.bytes().len() as u64);
    assert_eq!(shard.traces()[1].key, ("b\"ü".to_owned(), 0));
    let commit = Commit { description: made_up::description("00000"), outcome: outcome(2) };
    assert_eq!(*shard.commit(), commit);
    let (form, bytes) = shard.tensor(1, Tensor::Tokens).unwrap().unwrap();
    assert_eq!((form.dtype, bytes), (Dtype::I32, &[7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0][..]));
    assert!(shard.tensor(1, Tensor::HiddenScale).unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
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
    assert_eq!(tensors.len(), 2 * 22);
    let mass = tensors.tensor("00001.marginals.mass").unwrap();
    assert_eq!(mass.shape(), [2, 2, 2, 3]);
    assert_eq!(mass.dtype(), safetensors::Dtype::F16);
}

/// Another format needs another schema, and another golden file.
fn assert_golden(name: &str, written: &[u8]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rust").join(name);
    if std::env::var_os("HALLUTRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, written).unwrap();
    }
    assert!(written == std::fs::read(golden).unwrap(), "the format changed");
}

#[test]
fn the_bytes_of_a_shard_are_golden() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["golden"]);
    assert_golden("golden.safetensors", &std::fs::read(path).unwrap());
}

#[test]
fn the_bytes_of_a_journal_are_golden() {
    let folder = tempfile::tempdir().unwrap();
    let at_once = Grouping { bytes: 0, age: std::time::Duration::ZERO };
    let mut writer = begin(folder.path(), 2).grouped(at_once);
    for (number, id) in ["golden", "journal"].iter().enumerate() {
        writer.append(&MadeUp::new(id).record(number, id)).unwrap();
        writer.end_batch(id).unwrap();
    }
    let journal = std::fs::read(folder.path().join("partial/00000.journal")).unwrap();
    assert_golden("golden.journal", &journal);
}

#[test]
fn a_header_that_outgrows_its_room_is_given_more() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(4000);
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
    assert_eq!(length, header_layout::header_space(3) as u64);
    assert_eq!((8 + length) % 64, 0);
}

#[test]
fn what_no_header_could_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ShardPaths::of(folder.path(), "00000");
    let refused = |plan: Plan| {
        let error = ShardWriter::begin(Arc::new(Disk), paths.clone(), plan).err().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        error.to_string()
    };
    assert_eq!(
        refused(plan("a", "00000", header_layout::MOST_TRACES + 1)),
        "Expected at most 12131 traces in a shard, got 12132 - a header holds no more: use smaller \
         shards"
    );
    let mut long = plan("a", "00000", 2);
    long.description.environment.insert("torch".into(), Setting::Text("x".repeat(20_000)));
    assert_eq!(
        refused(long),
        "Expected at most 16384 bytes that describe a shard, got 20176 - its environment has entries \
         that are too long"
    );

    let mut writer = begin(folder.path(), 2);
    let (long, short) = ("\0".repeat(1000), "x".repeat(8000));
    for id in [&long, &short] {
        let before = writer.data_bytes();
        let error = writer.append(&MadeUp::new(id).record(0, id)).unwrap_err().to_string();
        assert!(error.contains("at most 8192 bytes in the header of its shard, got"), "{error}");
        assert!(error.ends_with("for trace 0 - shorten its id"), "{error}");
        assert_eq!(writer.data_bytes(), before);
    }
    // Another outcome may be given, and the shard is not lost.
    writer.append(&MadeUp::new("a").record(0, "a")).unwrap();
    writer.end_batch("").unwrap();
    assert_eq!(
        writer.finish(outcome(2)).unwrap_err().to_string(),
        "Expected the index of each of 1 traces, got 2 indices - give one each"
    );
    let endless = Outcome { halvings: vec![[0, 1]; 20_000_000], ..outcome(1) };
    let error = writer.finish(endless).unwrap_err();
    assert!(matches!(error, ShardError::LongHeader { .. }), "{error}");
    finish(&mut writer).unwrap();
}

#[test]
fn the_most_traces_with_the_longest_entries_fit_into_the_longest_header() {
    let id = "x".repeat(header_layout::TRACE_LIMIT - 2400);
    let made_up = MadeUp::new(&id);
    let (entry, _) =
        made_up.record(header_layout::MOST_TRACES, &id).lay_out(made_up::TYPES, 0).unwrap();
    let mut description = made_up::description("00000");
    let text = "\u{1}".repeat(2600);
    description.environment.insert("torch".into(), Setting::Text(text));
    let bytes = |traces: usize| {
        let outcome = Outcome {
            halvings: vec![[u32::MAX; 2]; traces],
            indices: vec![u64::from(u32::MAX); traces],
            ..outcome(0)
        };
        let commit = Commit { description: description.clone(), outcome };
        header_layout::encode(&commit, &vec![entry.clone(); traces]).len()
    };
    let all = bytes(0) + (bytes(100) - bytes(0)).div_ceil(100) * header_layout::MOST_TRACES;
    assert!(
        all <= header_layout::LONGEST_HEADER && all > header_layout::LONGEST_HEADER * 9 / 10,
        "{all}"
    );
}

#[test]
fn a_shard_of_another_schema_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let bytes = std::fs::read(&path).unwrap();
    let commit = bytes.windows(10).position(|part| part == br#",\"commit\"#).unwrap();
    let keys = bytes.windows(8).position(|part| part == br#",\"keys\"#).unwrap();
    let schema = bytes.windows(12).position(|part| part == br#"schema\":2}""#).unwrap();
    // As schema 1 had it, and a later one may.
    for (cut, version) in [(commit..keys, b'1'), (0..0, b'3')] {
        let mut other = bytes.clone();
        other[schema + 9] = version;
        let removed = cut.len();
        other.drain(cut);
        let end = 8 + header_layout::header_space(1) - removed;
        other.splice(end..end, vec![b' '; removed]);
        std::fs::write(&path, other).unwrap();
        let error = Shard::open(&path).err().unwrap().to_string();
        assert_eq!(
            error,
            format!(
                "Expected a shard of schema 2, got schema {} in {} - another version of hallutrace \
                 wrote it: extract it anew",
                char::from(version),
                path.display()
            )
        );
    }
}

#[test]
fn a_trace_that_does_not_fit_leaves_the_shard_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = begin(folder.path(), 2);
    let made_up = MadeUp::new("a");
    writer.append(&made_up.record(0, "a")).unwrap();
    let before = writer.data_bytes();

    let mut wrong_shape = made_up.record(1, "a");
    wrong_shape.arrays[Tensor::Entropy as usize].as_mut().unwrap().shape = vec![2, 4, 1];
    let error = writer.append(&wrong_shape).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Expected a trace of schema 2, got shape [2, 4, 1] where the others say [2, 2, 2] in \
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
    finish(&mut writer).unwrap();
}

#[test]
fn a_shard_is_never_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = begin(folder.path(), 1);
    writer.append(&MadeUp::new("second").record(0, "second")).unwrap();
    writer.end_batch("").unwrap();
    let other = folder.path().join("shards/00000.safetensors");
    std::fs::write(&other, "the shard of another process").unwrap();
    assert!(matches!(finish(&mut writer).unwrap_err(), ShardError::Exists { .. }));
    assert_eq!(std::fs::read(&other).unwrap(), b"the shard of another process");
}

#[test]
fn a_shard_that_was_never_finished_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = begin(folder.path(), 1);
    writer.append(&MadeUp::new("a").record(0, "a")).unwrap();
    drop(writer);
    let path = folder.path().join("partial/00000.safetensors");
    assert!(matches!(Shard::open(&path), Err(ShardError::Damaged { .. })));
}

#[test]
fn a_shard_without_traces_is_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (path, finished) = write(folder.path(), &[]);
    assert!(finished.bytes > 2048);
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
    let end = header_layout::header_space(1);
    damaged[8..8 + end].copy_from_slice(&spaced.as_bytes()[..end]);
    assert!(is_noticed(folder.path(), &damaged));
}

#[cfg(unix)] // Windows does not let a mapped file be cut.
#[test]
fn a_file_cut_short_while_it_is_open_is_an_error_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let shard = Shard::open(&path).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = shard.tensor(0, Tensor::Tokens).unwrap_err();
    assert!(error.to_string().contains("100 bytes where there were"), "{error}");
    assert!(shard.verify().is_err());
}

#[cfg(unix)]
#[test]
fn damage_is_looked_for_as_often_as_was_asked() {
    use std::os::unix::fs::FileExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let open = |when| hallutrace::shard::Shard::open_with(&path, when).unwrap();
    let shards = [open(Verify::First), open(Verify::Always), open(Verify::Never)];
    for shard in &shards {
        shard.tensor(0, Tensor::Tokens).unwrap();
    }
    let entry = shards[0].traces()[0].tensors.iter().find(|e| e.tensor == Tensor::Tokens).unwrap();
    let at = 8 + header_layout::header_space(1) + entry.begin;
    std::fs::File::options().write(true).open(&path).unwrap().write_at(&[9], at as u64).unwrap();
    let found: Vec<bool> =
        shards.iter().map(|shard| shard.tensor(0, Tensor::Tokens).is_err()).collect();
    assert_eq!(found, [false, true, false]);
}

#[cfg(unix)]
#[test]
fn layers_that_nobody_checked_are_edges_or_errors() {
    use std::os::unix::fs::FileExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(folder.path(), &["a"]);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let shard = Shard::open_with(&path, Verify::Never).unwrap();
    let entry = &shard.traces()[0];
    let of_edges = |tensor: Tensor| tensor.name().starts_with("edges.");
    for part in entry.tensors.iter().filter(|part| of_edges(part.tensor)) {
        for byte in part.begin..part.end {
            let at = 8 + header_layout::header_space(1) + byte;
            let was = shard.bytes()[at];
            for now in [0, 1, 127, 255] {
                file.write_at(&[now], at as u64).unwrap();
                for (at, heads) in [(0, 1), (0, 9), (9, 1), (usize::MAX, usize::MAX)] {
                    for combine in [Combine::Mean, Combine::Max, Combine::Each] {
                        let edges = shard.layer(0, Layer { at, heads, combine });
                        assert!(edges.is_err() || at == 0 && heads == 1);
                    }
                }
            }
            file.write_at(&[was], at as u64).unwrap();
        }
    }
}
