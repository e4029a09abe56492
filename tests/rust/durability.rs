//! Power loss at every operation, errors of the disk at every operation: nothing committed is ever lost,
//! and the same job done again ends with the same bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod faulty;
mod made_up;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faulty::{Fault, FaultyDisk};
use hallutrace::error::ShardError;
use hallutrace::shard::storage::Storage;
use hallutrace::shard::writer::{Grouping, ShardPaths, ShardWriter};
use hallutrace::shard::{Shard, take_published};
use made_up::{MadeUp, extract_shard, plan};

const SHARDS: [&str; 2] = ["00000", "00001"];
const BATCHES: usize = 4;
const BATCH: usize = 2;

fn run() -> &'static Path {
    Path::new("/run")
}

fn record(name: &str) -> PathBuf {
    run().join("shards").join(format!("{name}.json"))
}

/// What the pipeline does: every shard without a commit record, from where its journal ends.
fn extract(disk: &FaultyDisk) -> Result<(), ShardError> {
    let storage: Arc<dyn Storage + Send + Sync> = Arc::new(disk.clone());
    // Every second batch is synced: there is something to go on from, and something to lose.
    let grouping = Grouping { bytes: 1500, age: Duration::from_secs(3600) };
    for name in SHARDS {
        extract_shard(&storage, run(), name, [BATCHES, BATCH], grouping)?;
    }
    Ok(())
}

/// The final names and bytes of a run; committed shards alone.
fn finished(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = SHARDS.iter().flat_map(|name| [ShardPaths::of(run(), name).shard, record(name)]);
    paths.filter_map(|path| disk.content(&path).map(|bytes| (path, bytes))).collect()
}

/// Committed shards that are not what they would be without an accident.
fn broken(disk: &FaultyDisk, right: &[(PathBuf, Vec<u8>)]) -> Vec<PathBuf> {
    let is_right = |path: &PathBuf| {
        let content = disk.content(path);
        right.iter().any(|(name, bytes)| name == path && Some(bytes) == content.as_ref())
    };
    SHARDS
        .iter()
        .filter(|name| disk.exists(&record(name)))
        .flat_map(|name| [record(name), ShardPaths::of(run(), name).shard])
        .filter(|path| !is_right(path))
        .collect()
}

/// The bytes of an extraction without accidents, and how many operations it takes.
fn undisturbed() -> (Vec<(PathBuf, Vec<u8>)>, usize) {
    let disk = FaultyDisk::default();
    extract(&disk).unwrap();
    let files = finished(&disk);
    assert_eq!(files.len(), 4);
    (files, disk.operations())
}

#[test]
fn the_undisturbed_shards_are_shards() {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in undisturbed().0 {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let copy = folder.path().join(path.file_name().unwrap());
            std::fs::write(&copy, bytes).unwrap();
            Shard::open(&copy).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn after_power_loss_at_any_operation_committed_shards_are_whole_and_the_job_ends_the_same() {
    let (right, operations) = undisturbed();
    let mut gone_on = 0;
    for at in 1..=operations {
        for seed in 0..4 {
            let disk = FaultyDisk::default();
            disk.fail_at(at, Fault::PowerLoss);
            extract(&disk).unwrap_err();
            let disk = disk.after_power_loss(seed * 1000 + at as u64);
            assert_eq!(broken(&disk, &right), [] as [PathBuf; 0], "operation {at}, seed {seed}");
            let journal = disk.content(&ShardPaths::of(run(), SHARDS[0]).journal);
            gone_on += usize::from(journal.is_some_and(|journal| journal.len() > 200));
            extract(&disk).unwrap();
            assert!(finished(&disk) == right, "operation {at}, seed {seed}");
        }
    }
    // Not all crashes begin anew: the journal is worth having.
    assert!(gone_on > operations / 2, "{gone_on} of {}", 4 * operations);
}

#[test]
fn power_may_fail_again_and_again() {
    let (right, operations) = undisturbed();
    for seed in 0..40 {
        let mut disk = FaultyDisk::default();
        for crash in 0..30 {
            disk.fail_at(5 + (seed * 7 + crash * 13) % operations, Fault::PowerLoss);
            if extract(&disk).is_ok() {
                break;
            }
            disk = disk.after_power_loss((seed * 100 + crash) as u64);
            assert_eq!(broken(&disk, &right), [] as [PathBuf; 0], "seed {seed}, crash {crash}");
        }
        disk.fail_at(usize::MAX / 2, Fault::PowerLoss);
        extract(&disk).unwrap();
        assert!(finished(&disk) == right, "seed {seed}");
    }
}

#[test]
fn the_layer_catches_a_writer_without_syncs() {
    let (right, operations) = undisturbed();
    let is_caught = (1..=operations).any(|at| {
        (0..8).any(|seed| {
            let disk = FaultyDisk::ignoring_syncs();
            disk.fail_at(at, Fault::PowerLoss);
            let _ = extract(&disk);
            !broken(&disk.after_power_loss(seed), &right).is_empty()
        })
    });
    assert!(is_caught);
}

#[test]
fn after_an_error_at_any_operation_the_message_is_clear_and_the_job_ends_the_same() {
    let (right, operations) = undisturbed();
    let kinds = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::NotFound,
        ErrorKind::Other,
    ];
    for at in 1..=operations {
        for kind in kinds {
            let disk = FaultyDisk::default();
            disk.fail_at(at, Fault::Error(kind));
            match extract(&disk) {
                // Going on was tried, failed, and the shard was begun anew; or a journal outlived its
                // shard. Neither costs anything that was promised.
                Ok(()) => {}
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("Expected "), "{text}");
                    assert!(text.contains("/run/"), "{text}");
                    assert!(text.contains("the same command again"), "{text}");
                }
            }
            assert_eq!(broken(&disk, &right), [] as [PathBuf; 0], "operation {at}, {kind}");
            extract(&disk).unwrap();
            assert!(finished(&disk) == right, "operation {at}, {kind}");
        }
    }
}

#[test]
fn a_shard_begun_as_another_is_discarded() {
    let disk = FaultyDisk::default();
    let begin = |identity: &str| {
        let storage = Arc::new(disk.clone());
        ShardWriter::begin(storage, ShardPaths::of(run(), "00000"), plan(identity, "00000", 2))
            .unwrap()
    };
    let mut writer = begin("one").grouped(Grouping { bytes: 0, age: Duration::ZERO });
    writer.append(&MadeUp::new("a").record(0, "a")).unwrap();
    writer.end_batch("first").unwrap();
    drop(writer);
    assert_eq!(begin("one").notes(), ["first"]);
    assert!(begin("another").notes().is_empty());
}

#[test]
fn a_finished_shard_is_taken_as_it_is_whenever_the_power_goes() {
    let (right, operations) = undisturbed();
    let mut taken = 0;
    for at in 1..=operations {
        let disk = FaultyDisk::default();
        disk.fail_at(at, Fault::PowerLoss);
        extract(&disk).unwrap_err();
        let disk = disk.after_power_loss(at as u64);
        for name in SHARDS {
            let paths = ShardPaths::of(run(), name);
            let Some(found) = take_published(&disk, &paths).unwrap() else { continue };
            taken += usize::from(!disk.exists(&record(name)));
            let bytes = &right.iter().find(|(path, _)| *path == paths.shard).unwrap().1;
            assert_eq!(found.finished.checksum, xxhash_rust::xxh3::xxh3_64(bytes), "{at}");
            // Whatever the power does next, its name stays.
            for seed in 0..4 {
                let disk = disk.after_power_loss(seed);
                assert!(disk.content(&paths.shard).as_ref() == Some(bytes), "{at}");
            }
        }
    }
    assert!(taken > 3, "{taken}");
}
