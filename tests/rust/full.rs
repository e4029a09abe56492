//! A disk that is full, for real: a small file system of its own, and the limit on the size of files.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod made_up;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hallutrace::error::ShardError;
use made_up::{Extraction, content, make_folders};

const FOLDER: &str = "HALLUTRACE_SMALL_DISK";
const EXTRACTION: Extraction = Extraction { shards: 3, batches: 6, batch: 4, group: 4000 };
/// The small disk, and what its files grow by.
const DISK: usize = 1 << 20;
const PAGE: usize = 4096;

/// The bytes of an extraction that had room, made and removed in a folder.
fn undisturbed(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let run = folder.join("undisturbed");
    make_folders(&run);
    EXTRACTION.run(&run).unwrap();
    let files = content(&run);
    assert_eq!(files.len(), 2 * EXTRACTION.shards);
    fs::remove_dir_all(&run).unwrap();
    files
}

/// Names of committed shards; each has to be what it would be on an empty disk.
fn committed(run: &Path, right: &[(PathBuf, Vec<u8>)]) -> usize {
    let files = content(run);
    let records = files.iter().filter(|(path, _)| {
        path.starts_with("shards") && path.extension().is_some_and(|extension| extension == "json")
    });
    let mut committed = 0;
    for (path, _) in records {
        for path in [path.clone(), path.with_extension("safetensors")] {
            let file = files.iter().find(|file| file.0 == path).unwrap();
            assert!(right.contains(file), "{}", path.display());
        }
        committed += 1;
    }
    committed
}

/// A clear error of the system's, that says what is safe and how to go on.
fn assert_clear(error: &ShardError, run: &Path, cause: &str) {
    let text = error.to_string();
    assert!(matches!(error, ShardError::Io { .. }), "{text}");
    for part in ["Expected to ", &run.display().to_string(), cause, "the same command again"] {
        assert!(text.contains(part), "{text}");
    }
}

/// Runs one function of this file in a shell, after some preparation there.
fn in_a_shell(wrapper: &[&str], script: &str, test: &str, folder: &Path) -> Output {
    let mut command: Vec<&str> = wrapper.to_vec();
    command.extend(["sh", "-c", script]);
    Command::new(command[0])
        .args(&command[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env(FOLDER, folder)
        .output()
        .unwrap()
}

/// Whether the function has run, and well.
fn has_run(output: &Output) -> bool {
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed")
}

const NAMESPACE: [&str; 3] = ["unshare", "--map-root-user", "--mount"];

#[test]
fn a_full_disk_harms_nothing_and_the_same_job_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size={DISK} none \"${FOLDER}\"");
    // A mount of this process alone, gone with it; asked for before, because not every place allows it.
    let probe = Command::new(NAMESPACE[0])
        .args(&NAMESPACE[1..])
        .args(["sh", "-c", &mount])
        .env(FOLDER, folder.path())
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        use std::io::Write as _;
        // Not by a macro, whose text is kept back where a test passes.
        let warning = "\nSKIPPED: a_full_disk_harms_nothing: no file system can be mounted here\n";
        std::io::stderr().write_all(warning.as_bytes()).unwrap();
        return;
    }
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let output = in_a_shell(&NAMESPACE, &script, "on_a_small_disk", folder.path());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(has_run(&output), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let full = said.lines().find(|line| line.starts_with("full at")).unwrap();
    println!("{full}");
}

/// Not a test but what is run on the small disk.
#[test]
#[ignore = "run by another test"]
fn on_a_small_disk() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("where"));
    let device = |path: &Path| path.metadata().unwrap().dev();
    assert_ne!(device(&folder), device(folder.parent().unwrap()), "no disk of its own");
    let right = undisturbed(&folder);
    let (run, ballast) = (folder.join("run"), folder.join("ballast"));
    let (mut full, mut committed_by_then) = (0, [0; 4]);
    for room in (0..).step_by(PAGE) {
        make_folders(&run);
        fill(&ballast, room);
        let extracted = EXTRACTION.run(&run);
        let is_done = extracted.is_ok();
        if let Err(error) = extracted {
            assert_clear(&error, &run, "No space left on device");
            committed_by_then[committed(&run, &right)] += 1;
            full += 1;
        }
        fs::remove_file(&ballast).unwrap();
        EXTRACTION.run(&run).unwrap();
        assert!(content(&run) == right, "{room} bytes of room");
        fs::remove_dir_all(&run).unwrap();
        if is_done {
            break;
        }
    }
    assert!(full > 10 && committed_by_then[1] > 0 && committed_by_then[2] > 0);
    println!("full at {full} places, {committed_by_then:?} of them with so many shards committed");
}

/// Fills the disk up to so many bytes.
fn fill(ballast: &Path, room: usize) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; PAGE]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(room as u64)).unwrap();
}

#[test]
fn a_limit_on_the_size_of_files_harms_nothing() {
    let right = undisturbed(tempfile::tempdir().unwrap().path());
    let whole = right.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
    let (mut limited, mut blocks) = (0, 0);
    // The shell counts in blocks of 512 bytes; without the signal, a write beyond the limit is an error.
    while blocks * 512 < whole {
        let folder = tempfile::tempdir().unwrap();
        make_folders(folder.path());
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let output = in_a_shell(&["env"], &script, "with_small_files", folder.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(has_run(&output), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        if said.contains("limited") {
            committed(folder.path(), &right);
            limited += 1;
        }
        EXTRACTION.run(folder.path()).unwrap();
        assert!(content(folder.path()) == right, "files of {blocks} blocks");
        blocks += 9;
    }
    assert!(limited > 5, "{limited}");
}

/// Not a test but what is run under the limit.
#[test]
#[ignore = "run by another test"]
fn with_small_files() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("where"));
    if let Err(error) = EXTRACTION.run(&folder) {
        assert_clear(&error, &folder, "File too large");
        println!("limited");
    }
}
