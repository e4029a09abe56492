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
use hallutrace::shard::{
    Disk, Grouping, Shard, ShardPaths, ShardWriter, Storage, files, take_published,
};
use made_up::{MadeUp, description, finish, outcome, plan};

const TRACES: usize = 4;
const NAME: &str = "00000";
type Shared = Arc<dyn Storage + Send + Sync>;

fn begin(storage: &Shared, run: &Path) -> Result<ShardWriter, ShardError> {
    let storage = Arc::clone(storage);
    let writer = ShardWriter::begin(storage, ShardPaths::of(run, NAME), plan("one", NAME, TRACES))?;
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
fn on_disk() -> (tempfile::TempDir, Shared, ShardPaths) {
    let folder = tempfile::tempdir().unwrap();
    made_up::make_folders(folder.path());
    let paths = ShardPaths::of(folder.path(), NAME);
    (folder, Arc::new(Disk), paths)
}

/// The bytes of a shard that nothing disturbed, and of its journal.
fn right() -> (Vec<u8>, Vec<u8>) {
    let (folder, disk, paths) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    finish(&mut writer).unwrap();
    (std::fs::read(paths.shard).unwrap(), std::fs::read(paths.journal).unwrap())
}

fn is_superseded<T>(result: &Result<T, ShardError>) -> bool {
    matches!(result, Err(ShardError::Superseded { .. }))
}

#[test]
fn a_revived_predecessor_writes_nothing_into_what_its_heir_publishes() {
    let (right, journal) = right();
    // The predecessor wakes up before the heir has finished, and after.
    for wakes in 2..=TRACES {
        let (folder, disk, paths) = on_disk();
        let mut predecessor = begin(&disk, folder.path()).unwrap();
        append(&mut predecessor, 2);
        let mut heir = begin(&disk, folder.path()).unwrap();
        assert_eq!(heir.notes(), ["q0", "q1"]);
        append(&mut heir, wakes);
        let before = std::fs::read(&paths.partial).unwrap();
        if wakes == TRACES {
            finish(&mut heir).unwrap();
        }
        // Other bytes than the heir's, at the same place.
        let other = MadeUp { floats: vec![0.25; 64], ..MadeUp::new("other") };
        predecessor.append(&other.record(2, "other")).unwrap();
        assert!(is_superseded(&predecessor.end_batch("other")), "{wakes}");
        assert!(matches!(finish(&mut predecessor), Err(ShardError::Spent { .. })), "{wakes}");
        predecessor.forget().unwrap();
        if wakes < TRACES {
            assert!(std::fs::read(&paths.partial).unwrap() == before, "{wakes}");
            append(&mut heir, TRACES);
            finish(&mut heir).unwrap();
        }
        assert!(std::fs::read(&paths.shard).unwrap() == right, "{wakes}");
        assert!(std::fs::read(&paths.journal).unwrap() == journal, "{wakes}");
        heir.forget().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
    }
}

#[test]
fn a_predecessor_that_finishes_beside_its_heir_publishes_nothing() {
    let (folder, disk, paths) = on_disk();
    let mut predecessor = begin(&disk, folder.path()).unwrap();
    append(&mut predecessor, TRACES);
    let mut heir = begin(&disk, folder.path()).unwrap();
    assert!(is_superseded(&predecessor.check_names()));
    assert!(is_superseded(&finish(&mut predecessor)));
    assert!(!paths.shard.exists());
    heir.check_names().unwrap();
    finish(&mut heir).unwrap();
    assert!(std::fs::read(&paths.shard).unwrap() == right().0);
}

#[test]
fn who_lost_its_file_cannot_publish() {
    let (folder, disk, paths) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    std::fs::remove_file(&paths.partial).unwrap();
    let error = finish(&mut writer).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Expected {} to be this process's, got another file of that name - another process goes \
             on with the shard; this one left it alone",
            paths.partial.display()
        )
    );
}

/// A finished shard whose process was killed before the commit record.
fn unrecorded() -> (tempfile::TempDir, Shared, ShardPaths) {
    let (folder, disk, paths) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    append(&mut writer, TRACES);
    finish(&mut writer).unwrap();
    (folder, disk, paths)
}

#[cfg(unix)]
#[test]
fn a_finished_shard_without_its_record_is_taken_as_it_is_whatever_lies_in_partial() {
    use std::os::unix::fs::MetadataExt as _;
    let right = right().0;
    let leave: [fn(&ShardPaths); 5] = [
        |_| {},
        |paths| std::fs::remove_file(&paths.journal).unwrap(),
        |paths| std::fs::write(&paths.partial, "something else").unwrap(),
        |paths| std::fs::hard_link(&paths.shard, &paths.partial).unwrap(),
        |paths| std::fs::write(&paths.journal, vec![0; 100_000]).unwrap(),
    ];
    for (number, leave) in leave.into_iter().enumerate() {
        let (folder, disk, paths) = unrecorded();
        let inode = paths.shard.metadata().unwrap().ino();
        leave(&paths);
        // It is never begun anew.
        let error = begin(&disk, folder.path()).err().unwrap();
        assert!(matches!(error, ShardError::Unrecorded { .. }), "{number}: {error}");
        assert!(error.to_string().contains(&paths.shard.display().to_string()), "{error}");
        let found = take_published(&*disk, &paths).unwrap().unwrap();
        assert_eq!(found.finished.bytes, right.len() as u64, "{number}");
        assert_eq!(found.finished.checksum, xxhash_rust::xxh3::xxh3_64(&right), "{number}");
        assert_eq!(found.commit.description, description(NAME), "{number}");
        assert_eq!(found.commit.outcome, outcome(TRACES), "{number}");
        assert_eq!(found.traces.len(), TRACES, "{number}");
        assert!(std::fs::read(&paths.shard).unwrap() == right, "{number}");
        assert_eq!(paths.shard.metadata().unwrap().ino(), inode, "{number}");
        assert_eq!(std::fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
    }
}

#[test]
fn a_finished_shard_without_traces_says_what_it_is() {
    let (folder, disk, paths) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    writer.end_batch("all failed").unwrap();
    finish(&mut writer).unwrap();
    let found = take_published(&*disk, &paths).unwrap().unwrap();
    assert_eq!((found.commit.outcome, found.traces.len()), (outcome(0), 0));
    assert!(take_published(&*disk, &ShardPaths::of(folder.path(), "00001")).unwrap().is_none());
}

#[test]
fn a_finished_shard_that_is_damaged_is_kept_and_named() {
    let right = right().0;
    for at in [9, 4000, 9000, right.len() - 1] {
        let (folder, disk, paths) = unrecorded();
        let mut damaged = right.clone();
        damaged[at] ^= 1;
        std::fs::write(&paths.shard, &damaged).unwrap();
        let taken = take_published(&*disk, &paths);
        if at == 9 {
            // Without the beginning of a shard's header it was never finished.
            assert!(taken.unwrap().is_none());
            // Its data went with its name, so nothing can be gone on from.
            assert!(begin(&disk, folder.path()).unwrap().notes().is_empty());
            assert!(!paths.shard.exists());
        } else {
            assert!(matches!(taken, Err(ShardError::Damaged { .. })), "{at}: {taken:?}");
            assert!(matches!(begin(&disk, folder.path()), Err(ShardError::Unrecorded { .. })));
            assert!(std::fs::read(&paths.shard).unwrap() == damaged, "{at}");
        }
    }
}

#[test]
fn what_was_never_finished_makes_way() {
    for left in [&b""[..], b"half a shard", &[0; 5000]] {
        let (folder, disk, paths) = on_disk();
        std::fs::write(&paths.shard, left).unwrap();
        let mut writer = begin(&disk, folder.path()).unwrap();
        append(&mut writer, TRACES);
        finish(&mut writer).unwrap();
        assert!(std::fs::read(&paths.shard).unwrap() == right().0);
    }
}

#[test]
fn a_header_that_outgrew_its_room_is_taken_as_it_is_too() {
    let (folder, disk, paths) = on_disk();
    let mut writer = begin(&disk, folder.path()).unwrap();
    for number in 0..TRACES {
        let long = format!("{number}{}", "x".repeat(4000));
        writer.append(&MadeUp::new(&long).record(number, &long)).unwrap();
        writer.end_batch("long").unwrap();
    }
    let finished = finish(&mut writer).unwrap();
    let found = take_published(&*disk, &paths).unwrap().unwrap();
    assert_eq!(found.finished, finished);
    Shard::open(&paths.shard).unwrap().verify().unwrap();
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
        assert!(is_spent(finish(&mut writer).unwrap_err()), "{at}");
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
        if finish(&mut writer).is_err() && finish(&mut writer).is_err() {
            continue;
        }
        committed += 1;
        for seed in 0..6 {
            let content = disk.after_power_loss(seed).content(&ShardPaths::of(run, NAME).shard);
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
        let error = finish(&mut writer).unwrap_err();
        assert!(matches!(error, ShardError::Damaged { .. }), "byte {byte}: {error}");
        assert!(!disk.exists(&ShardPaths::of(run, NAME).shard), "byte {byte}");
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
