//! kill -9 at random moments, the same job again until it is done: the same bytes, nothing left over.
//!
//! `HALLUTRACE_KILLS=1000 cargo test --release --test kills` makes the long series.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod made_up;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use made_up::{Extraction, content, make_folders};

const FOLDER: &str = "HALLUTRACE_MADE_UP_RUN";
const EXTRACTION: Extraction = Extraction { shards: 4, batches: 12, batch: 4, group: 8000 };

/// Not a test but the process that is killed.
#[test]
#[ignore = "run by another test"]
fn made_up_extraction() {
    let folder = std::env::var_os(FOLDER).expect("where");
    make_folders(Path::new(&folder));
    EXTRACTION.run(Path::new(&folder)).unwrap();
}

/// Runs the extraction in a process of its own, killed after a time; whether it ended by itself.
fn run_for(run: &Path, time: Duration) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "made_up_extraction", "--ignored"])
        .env(FOLDER, run)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return true;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

#[test]
fn kills_at_random_moments_change_nothing() {
    let wanted: usize =
        std::env::var("HALLUTRACE_KILLS").map_or(100, |number| number.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = folder.path().join("undisturbed");
    let began = Instant::now();
    assert!(run_for(&undisturbed, Duration::from_secs(600)));
    let whole = began.elapsed();
    let right = content(&undisturbed);
    assert_eq!(right.len(), 2 * EXTRACTION.shards);
    let (mut kills, mut runs, mut dice) = (0, 0, 12_345_u64);
    while kills < wanted {
        let run = folder.path().join(format!("run-{runs}"));
        loop {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Short enough that most runs are killed several times.
            let share = f64::from(u32::try_from(dice >> 32).unwrap()) / f64::from(u32::MAX);
            if run_for(&run, whole.mul_f64(0.3 * share)) {
                break;
            }
            kills += 1;
        }
        let differing: Vec<PathBuf> = content(&run)
            .into_iter()
            .filter(|file| !right.contains(file))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(differing, [] as [PathBuf; 0], "run {runs}");
        assert_eq!(content(&run).len(), right.len(), "run {runs}");
        fs::remove_dir_all(&run).unwrap();
        runs += 1;
    }
    println!("{kills} kills, {runs} runs, all with the same bytes");
}
