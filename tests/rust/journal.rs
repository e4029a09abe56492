//! A journal that is damaged or forged costs batches, never a byte of what comes of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod allocations;
mod faulty;
mod made_up;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use allocations::peak_of;
use faulty::FaultyDisk;
use hallutrace::shard::header_layout;
use hallutrace::shard::journal::{self, Batch, Opening};
use hallutrace::shard::writer::{Grouping, ShardPaths, ShardWriter};
use hallutrace::shard::{Disk, storage::Storage};
use made_up::{MadeUp, finish, plan};

const TRACES: usize = 3;

fn here() -> ShardPaths {
    ShardPaths::of(Path::new("/run"), "00000")
}

/// Begins or goes on, one batch a trace, each synced.
fn begin(disk: &FaultyDisk) -> ShardWriter {
    let storage = Arc::new(disk.clone());
    ShardWriter::begin(storage, here(), plan("made up", "00000", TRACES))
        .unwrap()
        .grouped(Grouping { bytes: 0, age: Duration::ZERO })
}

/// Goes on up to so many traces.
fn append(writer: &mut ShardWriter, traces: usize) {
    for number in writer.len()..traces {
        let id = format!("q{number}");
        writer.append(&MadeUp::new(&id).record(number, &id)).unwrap();
        writer.end_batch(&id).unwrap();
    }
}

/// The shard that was never disturbed.
fn right() -> Vec<u8> {
    let disk = FaultyDisk::default();
    let mut writer = begin(&disk);
    append(&mut writer, TRACES);
    finish(&mut writer).unwrap();
    disk.content(&here().shard).unwrap()
}

/// Journal and data of a shard in progress, two of its traces written.
fn in_progress() -> (Vec<u8>, Vec<u8>) {
    let disk = FaultyDisk::default();
    append(&mut begin(&disk), TRACES - 1);
    (disk.content(&here().journal).unwrap(), disk.content(&here().partial).unwrap())
}

/// What comes of a journal and the data beside it, and how many batches were gone on from.
fn go_on(journal: &[u8], partial: &[u8]) -> (Vec<u8>, usize) {
    let disk = FaultyDisk::default();
    disk.create(&here().journal).unwrap().write_at(journal, 0).unwrap();
    disk.create(&here().partial).unwrap().write_at(partial, 0).unwrap();
    let mut writer = begin(&disk);
    let batches = writer.notes().len();
    append(&mut writer, TRACES);
    finish(&mut writer).unwrap();
    (disk.content(&here().shard).unwrap(), batches)
}

#[test]
fn a_changed_byte_of_the_journal_or_of_the_data_changes_nothing_in_the_end() {
    let (right, (journal, partial)) = (right(), in_progress());
    assert_eq!(go_on(&journal, &partial), (right.clone(), 2));
    let begins_of_lines: Vec<usize> =
        (1..journal.len()).filter(|&at| journal[at - 1] == b'\n').collect();
    for at in (0..journal.len()).step_by(5).chain(begins_of_lines) {
        let mut damaged = journal.clone();
        damaged[at] ^= 1 << (at % 7);
        let (shard, batches) = go_on(&damaged, &partial);
        assert!(shard == right && batches < 2, "byte {at} of the journal, {batches} batches");
    }
    for at in (8 + header_layout::header_space(TRACES)..partial.len()).step_by(11) {
        let mut damaged = partial.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(go_on(&journal, &damaged), (right.clone(), 0), "byte {at} of the data");
    }
}

#[test]
fn a_journal_cut_anywhere_goes_on_from_its_last_whole_line() {
    let (right, (journal, partial)) = (right(), in_progress());
    let lines = |end: usize| journal[..end].split(|&byte| byte == b'\n').count() - 1;
    for end in (0..journal.len()).step_by(7) {
        let (shard, batches) = go_on(&journal[..end], &partial);
        assert!(shard == right && batches == lines(end).saturating_sub(1), "cut at {end}");
    }
}

/// The batches of the shard in progress, forged, with right checksums.
fn forged(space: usize, forge: impl FnOnce(&mut Vec<Batch>)) -> Vec<u8> {
    let (_, mut batches, _) = journal::read(&in_progress().0).unwrap();
    forge(&mut batches);
    let opening = journal::line(&Opening::new("made up", space));
    std::iter::once(opening).chain(batches.iter().map(journal::line)).flatten().collect()
}

#[test]
fn a_forged_journal_is_begun_anew() {
    let (right, (_, partial)) = (right(), in_progress());
    let space = header_layout::header_space(TRACES);
    assert_eq!(go_on(&forged(space, |_| {}), &partial), (right.clone(), 2));
    let forgeries = [
        forged(5, |_| {}),
        forged(0, |_| {}),
        forged(space + 64, |_| {}),
        forged(usize::MAX, |_| {}),
        forged(usize::MAX - 7, |_| {}),
        forged(header_layout::LONGEST_HEADER * 2, |_| {}),
        forged(space, |batches| batches[1].data = usize::MAX),
        forged(space, |batches| batches[1].data += 64),
        forged(space, |batches| batches[0].traces.clear()),
        forged(space, |batches| batches[1].traces[0].number = 0),
        forged(space, |batches| batches[1].traces[0].key.0 = "other".to_owned()),
        forged(space, |batches| batches[1].traces[0].tensors.clear()),
        forged(space, |batches| batches[1].traces[0].tensors.swap(1, 2)),
        forged(space, |batches| batches[1].traces[0].tensors[0].end = usize::MAX),
        forged(space, |batches| batches[1].traces[0].tensors[3].form.shape = vec![usize::MAX; 4]),
        forged(space, |batches| batches[1].traces[0].tensors[3].form.shape = vec![1; 5]),
    ];
    for (at, journal) in forgeries.iter().enumerate() {
        let (shard, batches) = go_on(journal, &partial);
        // One of them is stopped at before its second batch, by its axes.
        assert!(shard == right && batches < 2, "forgery {at}, {batches} batches");
    }
}

#[test]
fn a_journal_is_believed_as_far_as_its_data_grows() {
    let space = header_layout::header_space(TRACES);
    let less = forged(space, |batches| batches[1].data = batches[0].data - 64);
    assert_eq!(journal::read(&less).unwrap().1.len(), 1);
    assert_eq!(go_on(&less, &in_progress().1), (right(), 1));
}

#[test]
fn a_journal_of_axes_takes_no_memory_for_them() {
    let (opening, batch) = (Opening::new("made up", 56), "0,".repeat(1 << 20));
    let json = format!(
        r#"{{"data":0,"note":"","traces":[{{"number":0,"key":["a",0],"tensors":[{{"tensor":"Meta","form":{{"dtype":"U8","shape":[{batch}0]}},"begin":0,"end":0,"checksum":0}}]}}]}}"#
    );
    let checksum = xxhash_rust::xxh3::xxh3_64(json.as_bytes());
    let mut bytes = journal::line(&opening);
    bytes.extend(format!("{checksum:016x} {json}\n").into_bytes());
    let (read, peak) = peak_of(|| journal::read(&bytes));
    assert_eq!(read.unwrap().1, []);
    assert!(peak < 64 << 10, "{peak} bytes for a journal of {}", bytes.len());
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link_out_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (victim, nowhere) = (folder.path().join("victim"), folder.path().join("nowhere"));
    let content = vec![7; 100_000];
    // With this journal, a file of any content that is long enough would be gone on with.
    let opening = journal::line(&Opening::new("made up", header_layout::header_space(TRACES)));
    for (target, is_partial) in [(&victim, true), (&victim, false), (&nowhere, true)] {
        std::fs::write(&victim, &content).unwrap();
        let run = folder.path().join("run");
        made_up::make_folders(&run);
        let paths = ShardPaths::of(&run, "00000");
        if is_partial {
            std::fs::write(&paths.journal, &opening).unwrap();
        }
        let link = if is_partial { &paths.partial } else { &paths.journal };
        std::os::unix::fs::symlink(target, link).unwrap();
        let mut writer = made_up::begin(Arc::new(Disk), &run, "00000", TRACES);
        append(&mut writer, TRACES);
        finish(&mut writer).unwrap();
        assert!(std::fs::read(&paths.shard).unwrap() == right());
        assert!(!paths.shard.is_symlink() && !nowhere.exists());
        assert!(std::fs::read(&victim).unwrap() == content);
        std::fs::remove_dir_all(&run).unwrap();
    }
}
