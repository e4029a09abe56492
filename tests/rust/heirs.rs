//! A shard that two processes go on with, one that was finished and not recorded, and writers that are spent.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod faulty;
mod made_up;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use faulty::{Fault, FaultyDisk};
use hallutrace::error::{Result, ShardError};
use hallutrace::shard::{Disk, Grouping, Places, Shard, ShardWriter, Storage, files, places};
use made_up::{MadeUp, TYPES};

const TRACES: usize = 4;
const NAME: &str = "00000";
type Shared = Arc<dyn Storage + Send + Sync>;

fn begin(storage: &Shared, run: &Path) -> Result<ShardWriter, ShardError> {
    let storage = Arc::clone(storage);
    let writer = ShardWriter::begin(storage, places(run, NAME), "one", TRACES, TYPES)?;
    Ok(writer.grouped(Grouping { bytes: 0, age: Duration::ZERO }))
}

/// A batch of one trace.
fn batch(writer: &mut ShardWriter, number: usize) -> Result<(), ShardError> {
    let id = format!("q{number}");
    writer.append(&MadeUp::new(&id).record(number, &id))?;
    writer.end_batch(&id)
}

/// Goes on up to so many traces.
fn append(writer: &mut ShardWriter, traces: usize) {
    for number in writer.len()..traces {
        batch(writer, number).unwrap();
    }
}

/// A run on the real disk.
fn on_disk() -> (tempfile::TempDir, Shared, Places) {
    let folder = tempfile::tempdir().unwrap();
    made_up::make_folders(folder.path());
    let places = places(folder.path(), NAME);
    (folder, Arc::new(Disk), places)
}

/// The bytes of a shard that nothing disturbed, and of its journal.
fn right() -> (Vec<u8>, Vec<u8>) {
    let (folder, disk, places) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    writer.finish().unwrap();
    (std::fs::read(places.shard).unwrap(), std::fs::read(places.journal).unwrap())
}

fn is_superseded<T>(result: &Result<T, ShardError>) -> bool {
    matches!(result, Err(ShardError::Superseded { .. }))
}

#[test]
fn a_revived_predecessor_writes_nothing_into_what_its_heir_publishes() {
    let (right, journal) = right();
    // The predecessor wakes up before the heir has finished, and after.
    for wakes in 2..=TRACES {
        let (folder, disk, places) = on_disk();
        let mut predecessor = begin(&disk, folder.path()).unwrap();
        append(&mut predecessor, 2);
        let mut heir = begin(&disk, folder.path()).unwrap();
        assert_eq!(heir.notes(), ["q0", "q1"]);
        append(&mut heir, wakes);
        let before = std::fs::read(&places.partial).unwrap();
        if wakes == TRACES {
            heir.finish().unwrap();
        }
        // Other bytes than the heir's, at the same place.
        let other = MadeUp { floats: vec![0.25; 64], ..MadeUp::new("other") };
        predecessor.append(&other.record(2, "other")).unwrap();
        assert!(is_superseded(&predecessor.end_batch("other")), "{wakes}");
        assert!(matches!(predecessor.finish(), Err(ShardError::Spent { .. })), "{wakes}");
        predecessor.forget().unwrap();
        if wakes < TRACES {
            assert!(std::fs::read(&places.partial).unwrap() == before, "{wakes}");
            append(&mut heir, TRACES);
            heir.finish().unwrap();
        }
        assert!(std::fs::read(&places.shard).unwrap() == right, "{wakes}");
        assert!(std::fs::read(&places.journal).unwrap() == journal, "{wakes}");
        heir.forget().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
    }
}

#[test]
fn a_predecessor_that_finishes_beside_its_heir_publishes_nothing() {
    let (folder, disk, places) = on_disk();
    let mut predecessor = begin(&disk, folder.path()).unwrap();
    append(&mut predecessor, TRACES);
    let mut heir = begin(&disk, folder.path()).unwrap();
    assert!(is_superseded(&predecessor.check_names()));
    assert!(is_superseded(&predecessor.finish()));
    assert!(!places.shard.exists());
    heir.check_names().unwrap();
    heir.finish().unwrap();
    assert!(std::fs::read(&places.shard).unwrap() == right().0);
}

#[test]
fn who_lost_its_file_cannot_publish() {
    let (folder, disk, places) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    std::fs::remove_file(&places.partial).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Expected {} to be this process's, got another file of that name - another process goes \
             on with the shard; this one left it alone",
            places.partial.display()
        )
    );
}

/// A finished shard whose process was killed before the commit record.
fn unrecorded() -> (tempfile::TempDir, Shared, Places) {
    let (folder, disk, places) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    writer.finish().unwrap();
    (folder, disk, places)
}

#[cfg(unix)]
#[test]
fn a_finished_shard_without_its_record_is_taken_as_it_is_whatever_lies_in_partial() {
    use std::os::unix::fs::MetadataExt as _;
    let right = right().0;
    let leave: [fn(&Places); 4] = [
        |_| {},
        |places| std::fs::write(&places.partial, "something else").unwrap(),
        |places| std::fs::hard_link(&places.shard, &places.partial).unwrap(),
        |places| std::fs::write(&places.partial, vec![0; 100_000]).unwrap(),
    ];
    for (number, leave) in leave.into_iter().enumerate() {
        let (folder, disk, places) = unrecorded();
        let inode = places.shard.metadata().unwrap().ino();
        leave(&places);
        let mut writer = begin(&disk, folder.path()).unwrap();
        assert_eq!(writer.notes(), ["q0", "q1", "q2", "q3"], "{number}");
        assert!(matches!(batch(&mut writer, 4), Err(ShardError::Exists { .. })), "{number}");
        let finished = writer.finish().unwrap();
        assert_eq!(finished.bytes, right.len() as u64, "{number}");
        assert_eq!(finished.checksum, xxhash_rust::xxh3::xxh3_64(&right), "{number}");
        assert!(std::fs::read(&places.shard).unwrap() == right, "{number}");
        assert_eq!(places.shard.metadata().unwrap().ino(), inode, "{number}");
        assert!(!places.partial.exists(), "{number}");
        writer.forget().unwrap();
        assert!(!places.journal.exists(), "{number}");
    }
}

#[test]
fn a_finished_shard_of_which_no_journal_tells_is_kept_and_named() {
    let right = right().0;
    let leave: [fn(&Places); 4] = [
        |places| std::fs::remove_file(&places.journal).unwrap(),
        |places| std::fs::write(&places.journal, "something else").unwrap(),
        |places| std::fs::write(&places.partial, "something else").unwrap(),
        |places| {
            // One batch fewer.
            let lines = std::fs::read_to_string(&places.journal).unwrap();
            let kept: Vec<&str> = lines.split_inclusive('\n').take(TRACES).collect();
            std::fs::write(&places.journal, kept.concat()).unwrap();
        },
    ];
    for (number, leave) in leave.into_iter().enumerate() {
        let (folder, disk, places) = unrecorded();
        leave(&places);
        if number == 2 {
            std::fs::remove_file(&places.journal).unwrap();
        }
        let error = begin(&disk, folder.path()).err().unwrap();
        assert!(matches!(error, ShardError::Unrecorded { .. }), "{number}: {error}");
        assert!(error.to_string().contains(&places.shard.display().to_string()), "{error}");
        assert!(std::fs::read(&places.shard).unwrap() == right, "{number}");
    }
    // Begun as another.
    let (folder, disk, places) = unrecorded();
    let begun = ShardWriter::begin(
        disk,
        hallutrace::shard::places(folder.path(), NAME),
        "another",
        TRACES,
        TYPES,
    );
    assert!(matches!(begun.err().unwrap(), ShardError::Unrecorded { .. }));
    assert!(std::fs::read(&places.shard).unwrap() == right);
}

#[test]
fn a_finished_shard_without_traces_has_nothing_to_lose() {
    for is_told in [false, true] {
        let (folder, disk, places) = on_disk();
        let mut writer = begin(&disk, folder.path()).unwrap();
        writer.end_batch("all failed").unwrap();
        writer.finish().unwrap();
        if !is_told {
            std::fs::remove_file(&places.journal).unwrap();
        }
        let again = begin(&disk, folder.path()).unwrap();
        assert_eq!(again.notes().len(), usize::from(is_told));
        assert_eq!(places.shard.exists(), is_told);
    }
}

#[test]
fn a_finished_shard_that_is_damaged_is_kept_and_named() {
    let right = right().0;
    for at in [12, 4000, right.len() - 1] {
        let (folder, disk, places) = unrecorded();
        let mut damaged = right.clone();
        damaged[at] ^= 1;
        std::fs::write(&places.shard, &damaged).unwrap();
        if at == 12 {
            // Not the beginning of a shard's header.
            damaged.clear();
        }
        match begin(&disk, folder.path()) {
            Ok(writer) => {
                assert!(damaged.is_empty() && !places.shard.exists() && writer.is_empty());
            }
            Err(error) => {
                assert!(matches!(error, ShardError::Damaged { .. }), "{error}");
                assert!(std::fs::read(&places.shard).unwrap() == damaged, "{at}");
            }
        }
    }
}

#[test]
fn what_was_never_finished_makes_way() {
    for left in [&b""[..], b"half a shard", &[0; 5000]] {
        let (folder, disk, places) = on_disk();
        std::fs::write(&places.shard, left).unwrap();
        let mut writer = begin(&disk, folder.path()).unwrap();
        append(&mut writer, TRACES);
        writer.finish().unwrap();
        assert!(std::fs::read(&places.shard).unwrap() == right().0);
    }
}

#[test]
fn a_header_that_outgrew_its_room_is_taken_as_it_is_too() {
    let (folder, disk, places) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    let long = "x".repeat(20_000);
    writer.append(&MadeUp::new(&long).record(0, &long)).unwrap();
    writer.end_batch("long").unwrap();
    append(&mut writer, 2);
    let finished = writer.finish().unwrap();
    let bytes = std::fs::read(&places.shard).unwrap();
    let mut again = begin(&disk, folder.path()).unwrap();
    assert_eq!(again.notes(), ["long", "q1"]);
    assert_eq!(again.finish().unwrap(), finished);
    assert!(std::fs::read(&places.shard).unwrap() == bytes);
    Shard::open(&places.shard).unwrap().verify().unwrap();
}

#[test]
fn a_spent_writer_stays_spent() {
    let kind = Fault::Error(ErrorKind::Other);
    // What each of the operations after two batches does: write, sync, the journal's write and sync.
    for at in 1..=4 {
        let disk = FaultyDisk::default();
        let shared: Shared = Arc::new(disk.clone());
        let mut writer = begin(&shared, Path::new("/run")).unwrap();
        append(&mut writer, 2);
        disk.fail_at(at, kind);
        assert!(matches!(batch(&mut writer, 2), Err(ShardError::Io { .. })), "{at}");
        let is_spent = |error: ShardError| matches!(error, ShardError::Spent { .. });
        assert!(is_spent(writer.append(&MadeUp::new("a").record(3, "a")).unwrap_err()), "{at}");
        assert!(is_spent(writer.end_batch("a").unwrap_err()), "{at}");
        assert!(is_spent(writer.sync().unwrap_err()), "{at}");
        assert!(is_spent(writer.finish().unwrap_err()), "{at}");
        // Another goes on where it was synced last.
        let again = begin(&shared, Path::new("/run")).unwrap();
        assert_eq!(again.notes()[..2], ["q0", "q1"], "{at}");
    }
}

#[test]
fn whoever_ignores_errors_commits_nothing_that_power_loss_harms() {
    let right = right().0;
    let run = Path::new("/run");
    let mut committed = 0;
    for at in 1..60 {
        let disk = FaultyDisk::default();
        let shared: Shared = Arc::new(disk.clone());
        disk.fail_at(at, Fault::Error(ErrorKind::Other));
        let Ok(mut writer) = begin(&shared, run) else { continue };
        for number in 0..TRACES {
            let _ = batch(&mut writer, number);
        }
        if writer.finish().is_err() && writer.finish().is_err() {
            continue;
        }
        committed += 1;
        for seed in 0..6 {
            let content = disk.after_power_loss(seed).content(&places(run, NAME).shard);
            assert!(content.as_ref() == Some(&right), "operation {at}, seed {seed}");
        }
    }
    assert!(committed > 5, "{committed}");
}

#[test]
fn what_was_synced_is_there_after_power_loss() {
    for traces in 1..=TRACES {
        for seed in 0..20 {
            let disk = FaultyDisk::default();
            let shared: Shared = Arc::new(disk.clone());
            let mut writer = begin(&shared, Path::new("/run")).unwrap();
            append(&mut writer, traces);
            let disk: Shared = Arc::new(disk.after_power_loss(seed));
            let again = begin(&disk, Path::new("/run")).unwrap();
            assert_eq!(again.notes().len(), traces, "seed {seed}");
        }
    }
}

#[test]
fn what_the_heir_was_given_is_there_after_power_loss() {
    for operation in 0..40 {
        for seed in 0..6 {
            let disk = FaultyDisk::default();
            let shared: Shared = Arc::new(disk.clone());
            let mut writer = begin(&shared, Path::new("/run")).unwrap();
            append(&mut writer, 2);
            disk.fail_at(operation, Fault::PowerLoss);
            let is_heir =
                begin(&shared, Path::new("/run")).and_then(|mut heir| batch(&mut heir, 2)).is_ok();
            let disk: Shared = Arc::new(disk.after_power_loss(seed));
            let again = begin(&disk, Path::new("/run")).unwrap();
            let least = 2 + usize::from(is_heir);
            assert!(again.notes().len() >= least, "operation {operation}, seed {seed}");
        }
    }
}

#[test]
fn an_error_of_the_disk_is_no_reason_to_begin_anew() {
    let (mut errors, run) = (0, Path::new("/run"));
    for at in 1..30 {
        let disk = FaultyDisk::default();
        let shared: Shared = Arc::new(disk.clone());
        append(&mut begin(&shared, run).unwrap(), 2);
        disk.fail_at(at, Fault::Error(ErrorKind::Other));
        match begin(&shared, run) {
            Ok(writer) => assert_eq!(writer.notes().len(), 2, "operation {at}"),
            Err(_) => errors += 1,
        }
        disk.fail_at(usize::MAX / 2, Fault::PowerLoss);
        assert_eq!(begin(&shared, run).unwrap().notes().len(), 2, "operation {at}");
    }
    assert!(errors > 5, "{errors}");
}

#[test]
fn a_disk_that_gives_other_bytes_back_is_told() {
    let (right, _) = right();
    let run = Path::new("/run");
    for byte in (0..right.len()).step_by(97).chain([0, 7, 8, right.len() - 1]) {
        let disk = FaultyDisk::default();
        let shared: Shared = Arc::new(disk.clone());
        let mut writer = begin(&shared, run).unwrap();
        append(&mut writer, TRACES);
        // After the group's data and its journal: the header, and with it all.
        disk.corrupt(2, 8 * byte + byte % 8);
        let error = writer.finish().unwrap_err();
        assert!(matches!(error, ShardError::Damaged { .. }), "byte {byte}: {error}");
        assert!(!disk.exists(&places(run, NAME).shard), "byte {byte}");
    }
}

#[test]
fn both_names_of_what_is_published_are_durable() {
    let (from, to) = (Path::new("/run/partial/a"), Path::new("/run/shards/a"));
    let publish: [fn(&FaultyDisk, &Path, &Path); 2] = [
        |disk, from, to| {
            let mut file = disk.create(from).unwrap();
            file.write_at(b"content", 0).unwrap();
            file.sync().unwrap();
            disk.sync_folder(from.parent().unwrap()).unwrap();
            files::publish(disk, from, to).unwrap();
        },
        |disk, from, to| files::write_new(disk, from, to, b"content").unwrap(),
    ];
    for publish in publish {
        let disk = FaultyDisk::default();
        publish(&disk, from, to);
        for seed in 0..16 {
            let disk = disk.after_power_loss(seed);
            assert_eq!(disk.content(to).as_deref(), Some(&b"content"[..]), "seed {seed}");
            assert!(!disk.exists(from), "seed {seed}");
        }
    }
}
