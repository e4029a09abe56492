//! Damage of every kind is noticed, named, and costs no more memory than the file has bytes.
//!
//! `HALLUTRACE_DAMAGES=100000 cargo test --release --test damage` makes the long series. What is forged so
//! well that it keeps every rule is a shard, and another one than was committed: the checksum of the whole
//! file in the commit record tells, which the tests of `hallutrace verify` show.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod allocations;
mod forging;
mod made_up;

use allocations::peak_of;
use hallutrace::error::ShardError;
use hallutrace::shard::schema::{SCHEMA, Tensor};
use hallutrace::shard::{Commit, Description, Outcome, Shard, Verify};

/// Memory beyond the file's size: messages, small vectors, the tables of a few traces.
const ROOM: usize = 64 << 10;

/// A good shard of three traces.
fn good() -> Vec<u8> {
    forging::file_of(vec![
        forging::apart(0, "a"),
        forging::apart(2, "b"),
        forging::apart(5, "c\"\n"),
    ])
}

/// Opens and verifies, and holds the reader to its memory.
fn verify(bytes: &[u8]) -> Result<(), ShardError> {
    let copy = bytes.to_vec();
    let (verified, peak) = peak_of(|| Shard::from_bytes(copy).and_then(|shard| shard.verify()));
    assert!(peak <= bytes.len() + ROOM, "{peak} bytes for a file of {}", bytes.len());
    verified
}

/// Where the data begins.
fn data_of(file: &[u8]) -> usize {
    8 + usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}

#[test]
fn a_good_shard_is_not_damaged() {
    verify(&good()).unwrap();
}

#[test]
fn every_bit_of_the_header_counts() {
    let good = good();
    let mut bytes = good.clone();
    for at in 0..data_of(&good) {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let opened = Shard::from_bytes(bytes.clone());
            assert!(opened.and_then(|shard| shard.verify()).is_err(), "byte {at}, bit {bit}");
            bytes[at] = good[at];
        }
    }
}

/// The numbers in the header's text: where each begins and ends.
fn numbers(file: &[u8]) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in file.iter().enumerate().take(data_of(file)).skip(8) {
        match spans.last_mut() {
            _ if !byte.is_ascii_digit() => {}
            Some((_, end)) if *end == at => *end = at + 1,
            _ => spans.push((at, at + 1)),
        }
    }
    spans
}

/// A header with one span of its text replaced; the padding takes up the difference.
fn with_text(file: &[u8], (begin, end): (usize, usize), text: &[u8]) -> Vec<u8> {
    let data = data_of(file);
    let mut header = [&file[8..begin], text, &file[end..data]].concat();
    let words = header.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    header.truncate(words);
    forging::assemble(&header, &file[data..])
}

/// One damage of a kind; it may, rarely, change nothing.
fn damaged(good: &[u8], kind: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let length = bytes.len();
    let (from, to) = (dice.roll(length), dice.roll(length));
    let (low, high) = (from.min(to), from.max(to));
    let spans = numbers(good);
    let (one, other) = (spans[dice.roll(spans.len())], spans[dice.roll(spans.len())]);
    match kind {
        0 => (0..=dice.roll(8)).for_each(|_| bytes[dice.roll(length)] ^= 1 << dice.roll(8)),
        1 => bytes.truncate(from),
        2 => (0..=dice.roll(200)).for_each(|_| bytes.push(u8::try_from(dice.roll(256)).unwrap())),
        3 => bytes[low..high].fill(0),
        4 => (0..=dice.roll(64)).for_each(|at| bytes[(from + at) % length] = 0xff),
        5 => drop(bytes.drain(low..high.min(low + 4096))),
        6 => {
            let again = bytes[low..high.min(low + 4096)].to_vec();
            bytes.splice(to..to, again);
        }
        // Two numbers of the header change places: offsets, lengths, digits of checksums.
        7 => {
            let texts = [good[one.0..one.1].to_vec(), good[other.0..other.1].to_vec()];
            bytes = with_text(good, one.max(other), &texts[usize::from(one >= other)]);
            bytes = with_text(&bytes, one.min(other), &texts[usize::from(one < other)]);
        }
        // Another number, from the next one to those that overflow.
        8 => {
            let forged = [1_u128, 2, 1 << 16, 1 << 32, 1 << 63, u64::MAX.into(), u128::MAX];
            let text = (forged[dice.roll(forged.len())] - dice.roll(2) as u128).to_string();
            bytes = with_text(good, one, text.as_bytes());
        }
        // Another length of the header.
        9 => {
            let forged = [0, 1, 64, 4096, length, length - 8, 1 << 31, usize::MAX];
            let length = forged[dice.roll(forged.len())].saturating_sub(dice.roll(2)) as u64;
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        _ => unreachable!(),
    }
    bytes
}

#[test]
fn random_damage_of_every_kind_is_noticed() {
    let wanted: usize =
        std::env::var("HALLUTRACE_DAMAGES").map_or(10_000, |number| number.parse().unwrap());
    let good = good();
    let (mut dice, mut done) = (Dice(7), 0);
    for at in 0.. {
        if done == wanted {
            break;
        }
        let bytes = damaged(&good, at % 10, &mut dice);
        if bytes == good {
            continue;
        }
        let error = verify(&bytes).expect_err(&format!("damage {at} of kind {}", at % 10));
        let is_damage =
            matches!(error, ShardError::Damaged { .. } | ShardError::OtherSchema { .. });
        assert!(is_damage, "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
        done += 1;
    }
    println!("{done} damages noticed");
}

#[test]
fn a_damaged_trace_names_shard_and_trace_and_spares_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00042.safetensors");
    let good = good();
    let entries = Shard::from_bytes(good.clone()).unwrap().traces().to_vec();
    for (position, trace) in entries.iter().enumerate() {
        for entry in trace.tensors.iter().filter(|entry| entry.begin < entry.end) {
            let mut bytes = good.clone();
            bytes[data_of(&good) + entry.begin] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            for when in [Verify::First, Verify::Always] {
                let shard = Shard::open_with(&path, when).unwrap();
                let error = shard.trace(position).unwrap_err().to_string();
                let name = format!(
                    "`{}` of trace {:05} in {}",
                    entry.tensor,
                    trace.number,
                    path.display()
                );
                assert!(error.contains(&name), "{error}");
                assert!(shard.tensor(position, entry.tensor).is_err());
                assert!(shard.verify().is_err());
                for other in (0..entries.len()).filter(|&other| other != position) {
                    shard.trace(other).unwrap();
                }
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for path in [&pipe, folder.path()] {
        let error = Shard::open(path).err().unwrap();
        assert!(error.to_string().contains("something that is no file"), "{error}");
    }
    let missing = Shard::open(&folder.path().join("missing")).err().unwrap();
    assert!(matches!(missing, ShardError::Io { .. }), "{missing}");
}

/// A header that begins as one of ours does, and goes on with so much of one thing.
fn bomb(before: &str, again: &str) -> Vec<u8> {
    let text = format!("{before}{}", again.repeat((2 << 20) / again.len()));
    forging::assemble(text.as_bytes(), &[])
}

#[test]
fn headers_made_to_exhaust_memory_are_refused_within_their_size() {
    let metadata = r#"{"__metadata__":{"hallutrace":"{\"checksums\":["#;
    let needed = Tensor::ALL.iter().filter(|tensor| !tensor.is_optional()).count();
    let digits = "0".repeat(16 * needed);
    let blank = Commit {
        description: Description::default(),
        outcome: Outcome { indices: vec![0], ..Outcome::default() },
    };
    let commit = serde_json::to_string(&blank.to_json()).unwrap();
    let checksum = xxhash_rust::xxh3::xxh3_64(blank.to_json().as_bytes());
    let begun = format!(r#"{metadata}\"{digits}\"],\"commit\":"#);
    let one = format!(
        r#"{begun}{},\"commit_checksum\":\"{checksum:016x}\",\"keys\":["#,
        &commit[1..commit.len() - 1]
    );
    let named =
        format!(r#"{one}[\"a\",0]],\"numbers\":[0],\"schema\":{SCHEMA}}}"}},"00000.tokens":"#);
    let until = |member: &str| {
        let quoted = format!(r#"\"{member}\":"#);
        let end = commit.find(&quoted).unwrap() + quoted.len();
        format!("{begun}{}", &commit[1..end])
    };
    let bombs = [
        bomb("", " "),
        bomb("", "["),
        bomb("", r#"{"__metadata__":"#),
        bomb(metadata, r#"\"\","#),
        bomb(metadata, &format!(r#"\"{digits}\","#)),
        bomb(&format!(r#"{metadata}\""#), "0"),
        bomb(&format!("{}{{", until("counts")), r#"\"a\":0,"#),
        bomb(&format!(r#"{}{{\"a\":"#, until("counts")), "9"),
        bomb(&format!(r#"{}\""#, until("digest")), "d"),
        bomb(&format!(r#"{}{{\"a\":"#, until("environment")), "{"),
        bomb(&format!("{}[", until("halvings")), "[0,0],"),
        bomb(&format!("{}[", until("indices")), "0,"),
        bomb(&one, r#"[\"\",0],"#),
        bomb(&format!(r#"{one}[\""#), "x"),
        bomb(&format!(r#"{one}[\""#), r#"\\\""#),
        bomb(&format!(r#"{one}[\"a\",0]],\"numbers\":["#), "0,"),
        bomb(&format!(r#"{one}[\"a\",0]],\"numbers\":["#), "9"),
        bomb(&format!(r#"{named}{{"dtype":"I32","shape":["#), "0,"),
        bomb(&format!(r#"{named}{{"dtype":""#), "I"),
    ];
    for (at, bytes) in bombs.iter().enumerate() {
        let error = verify(bytes).expect_err(&format!("bomb {at}"));
        assert!(error.to_string().len() < 1000, "{at}: {error}");
    }
}

#[test]
fn the_smallest_traces_take_no_more_memory_than_their_text() {
    // The most entries for the fewest bytes of data: no layers at all.
    let traces = (0..2000).map(|number| {
        let (mut entry, mut parts) = forging::apart(number, "a");
        for (at, part) in entry.tensors.iter_mut().zip(&mut parts) {
            let shape = &mut at.form.shape;
            match at.tensor {
                Tensor::EdgesOffset => *shape = vec![1],
                Tensor::EdgesKey | Tensor::EdgesWeight => *shape = vec![0],
                Tensor::Logprob
                | Tensor::TokenEntropy
                | Tensor::Logsumexp
                | Tensor::AlternativesToken
                | Tensor::AlternativesLogprob
                | Tensor::Tokens
                | Tensor::Meta => {}
                _ => shape[0] = 0,
            }
            part.resize(at.form.bytes().unwrap(), 0);
        }
        (entry, parts)
    });
    verify(&forging::file_of(traces.collect())).unwrap();
}
