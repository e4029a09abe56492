//! What is done with made-up bytes, by libFuzzer (`fuzz/`) and by the test that replays its corpus.
//!
//! Checksums stop random bytes at the door, so the first byte of an input says how the rest is dressed up:
//! as it is, or with lengths, offsets and checksums that are right, so that the rules behind them are met.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::path::Path;
use std::sync::Arc;

use hallutrace::shard::graph::Layer;
use hallutrace::shard::journal::{self, Batch, Opening};
use hallutrace::shard::schema::{Dtype, SCHEMA, Tensor};
use hallutrace::shard::storage::Storage;
use hallutrace::shard::writer::{Grouping, ShardPaths, ShardWriter};
use hallutrace::shard::{Shard, header_layout};
use hallutrace::sparsify::Combine;
use safetensors::SafeTensors;
use xxhash_rust::xxh3::xxh3_64;

use crate::faulty::FaultyDisk;
use crate::forging::{apart, edited, file_of, laid_out, template, with_length};
use crate::made_up::{MadeUp, finish, plan};

/// Opens a shard strictly, and reads all of what is let through as a stranger to our code would.
///
/// Whether it was let through.
pub fn shard(input: &[u8]) -> bool {
    let file = match input {
        [b'h', rest @ ..] => with_length(rest),
        [b'e', rest @ ..] => file_of(edited(rest)),
        [_, rest @ ..] => rest.to_vec(),
        [] => return false,
    };
    let Ok(shard) = Shard::from_bytes(file) else { return false };
    // A header of our own making needs no second look.
    let is_strange = input[0] != b'e';
    let bytes = shard.bytes();
    assert!(
        !is_strange
            || bytes[8..]
                .starts_with(header_layout::encode(shard.commit(), shard.traces()).as_bytes())
    );
    let is_good = shard.verify().is_ok();
    for position in 0..shard.traces().len() {
        for tensor in Tensor::ALL {
            match shard.tensor(position, tensor) {
                Ok(Some((form, bytes))) => assert_eq!(form.bytes(), Some(bytes.len())),
                Ok(None) => assert!(tensor.is_optional()),
                Err(_) => assert!(!is_good),
            }
        }
        for combine in [Combine::Mean, Combine::Max, Combine::Each] {
            if let Ok(edges) = shard.layer(position, Layer { at: 0, heads: 1, combine }) {
                assert_eq!(edges.indptr().last(), i64::try_from(edges.len()).ok().as_ref());
            }
        }
        if is_good {
            check(&shard, position);
        }
    }
    if is_good && is_strange {
        SafeTensors::deserialize(bytes).unwrap();
    }
    is_good
}

/// What every consumer of a trace relies on, told once more.
fn check(shard: &Shard, position: usize) {
    let read = |tensor| shard.tensor(position, tensor).unwrap().unwrap();
    let numbers = |tensor| -> Vec<i64> {
        let (form, bytes) = read(tensor);
        let signed = matches!(form.dtype, Dtype::I32 | Dtype::I64);
        let number = |bytes: &[u8]| {
            let negative = signed && bytes[bytes.len() - 1] >= 128;
            let mut wide = if negative { [255; 8] } else { [0; 8] };
            wide[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        bytes.chunks_exact(form.dtype.size()).map(number).collect()
    };
    let (offsets, keys) = (numbers(Tensor::EdgesOffset), numbers(Tensor::EdgesKey));
    let (indptr, rows) = (numbers(Tensor::EdgesIndptr), read(Tensor::EdgesIndptr).0.shape[1]);
    let count = |keys: &[i64]| i64::try_from(keys.len()).unwrap();
    assert_eq!((offsets[0], offsets[offsets.len() - 1]), (0, count(&keys)));
    for (graph, span) in offsets.windows(2).enumerate() {
        let keys = &keys[usize::try_from(span[0]).unwrap()..usize::try_from(span[1]).unwrap()];
        let indptr = &indptr[graph * rows..(graph + 1) * rows];
        assert_eq!((indptr[0], indptr[rows - 1]), (0, count(keys)));
        for (query, span) in (0..).zip(indptr.windows(2)) {
            let row = &keys[usize::try_from(span[0]).unwrap()..usize::try_from(span[1]).unwrap()];
            assert!(row.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(row.iter().all(|&key| key <= query));
        }
    }
    let meta: serde_json::Value = serde_json::from_slice(read(Tensor::Meta).1).unwrap();
    let (id, sample) = &shard.traces()[position].key;
    assert_eq!(
        (meta["id"].as_str(), meta["sample"].as_u64()),
        (Some(&**id), Some((*sample).into()))
    );
}

/// Goes on with a shard whose journal and data are made up; what comes of it has to be a shard.
///
/// Whether there was anything to go on with.
pub fn journal(input: &[u8]) -> bool {
    let run = Path::new("/run");
    let paths = ShardPaths::of(run, "00000");
    let (mode, input) = match input {
        [mode, rest @ ..] => (*mode, rest),
        [] => return false,
    };
    let (lines, data) = if mode == b'e' {
        forged_journal(input)
    } else {
        let end = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
        let (text, data) = (&input[..end], input.get(end + 1..).unwrap_or(&[]));
        let checked = text.split(|&byte| byte == b'\n').flat_map(checked);
        (if mode == b'c' { checked.collect() } else { text.to_vec() }, data.to_vec())
    };
    let Some((opening, batches, trusted)) = journal::read(&lines) else { return false };
    let again = batches.iter().map(journal::line);
    let again: Vec<u8> = [journal::line(&opening)].into_iter().chain(again).flatten().collect();
    assert!(trusted <= lines.len() && journal::read(&again).unwrap().1 == batches);
    if batches.is_empty() {
        return false;
    }
    let disk = FaultyDisk::default();
    let mut partial = vec![0; 8 + header_layout::header_space(2)];
    if data.is_empty() {
        partial.extend((0..2).flat_map(|_| template().1).flatten());
    } else {
        partial.extend_from_slice(&data);
    }
    disk.create(&paths.journal).unwrap().write_at(&lines, 0).unwrap();
    disk.create(&paths.partial).unwrap().write_at(&partial, 0).unwrap();
    let storage = Arc::new(disk.clone());
    let writer = ShardWriter::begin(storage, paths.clone(), plan("made up", "00000", 2)).unwrap();
    let mut writer = writer.grouped(Grouping::default());
    let is_gone_on = !writer.notes().is_empty();
    let made_up = MadeUp::new("new");
    writer.append(&made_up.record(77_777, "new")).unwrap();
    writer.end_batch("last").unwrap();
    match finish(&mut writer) {
        Ok(_) => {
            let shard = Shard::from_bytes(disk.content(&paths.shard).unwrap()).unwrap();
            shard.verify().unwrap();
            assert_eq!(shard.traces().len(), writer.len());
        }
        // The one thing that cannot be told before: a forged trace has the number of a new one.
        Err(error) => assert!(error.to_string().contains("trace 77777 twice"), "{error}"),
    }
    is_gone_on
}

/// A journal of edited traces, one a batch, and their data: all right but for what was edited.
fn forged_journal(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (traces, data) = laid_out(edited(input));
    let opening = journal::line(&Opening::new("made up", header_layout::header_space(2)));
    let batches = traces.into_iter().map(|trace| {
        let data = trace.tensors.last().map_or(0, |last| last.end);
        journal::line(&Batch { data, note: String::new(), traces: vec![trace] })
    });
    (std::iter::once(opening).chain(batches).flatten().collect(), data)
}

/// A line with the checksum that it should have.
fn checked(line: &[u8]) -> Vec<u8> {
    let mut checked = format!("{:016x} ", xxh3_64(line)).into_bytes();
    checked.extend_from_slice(line);
    checked.push(b'\n');
    checked
}

/// Inputs to begin with: name, and bytes.
pub fn seeds_of_shards() -> Vec<(String, Vec<u8>)> {
    let file = file_of(vec![apart(0, "a"), apart(3, "b\"\\\n\u{1f}\u{fc}")]);
    let space = u64::from_le_bytes(file[..8].try_into().unwrap());
    let data = 8 + usize::try_from(space).unwrap();
    let text = String::from_utf8_lossy(&file[8..data]).trim_end().to_owned();
    let header = [b"h".as_slice(), text.as_bytes(), b"\0", &file[data..]].concat();
    let mut seeds = vec![
        ("file".to_owned(), [b"f".as_slice(), &file].concat()),
        ("header".to_owned(), header),
        ("empty".to_owned(), [b"f".as_slice(), &file_of(Vec::new())].concat()),
        ("as-it-was".to_owned(), b"e".to_vec()),
    ];
    for tensor in 0..template().0.tensors.len() as u8 {
        for (name, edit) in [("shape", [0, tensor, 1, 1]), ("byte", [1, tensor, 0, 1])] {
            seeds.push((format!("{name}-{tensor}"), [b"e".as_slice(), &edit].concat()));
        }
    }
    let meta = br#"{"id":"a","sample":0,"group":"g","index":3,"question":"q?","context":null,"prompt":"p","answer":"a","references":["r"],"prompt_length":2,"segments":[1,2],"finish_reason":"eos","hidden":{"layers":[0,1],"tokens":[1,3]}}"#;
    seeds.push(("meta".to_owned(), [b"e\x07\0\0\0".as_slice(), meta].concat()));
    seeds
}

/// Inputs to begin with: name, and bytes.
pub fn seeds_of_journals() -> Vec<(String, Vec<u8>)> {
    let disk = FaultyDisk::default();
    let paths = ShardPaths::of(Path::new("/run"), "00000");
    let storage = Arc::new(disk.clone());
    let writer = ShardWriter::begin(storage, paths.clone(), plan("made up", "00000", 2)).unwrap();
    let mut writer = writer.grouped(Grouping { bytes: 0, age: std::time::Duration::ZERO });
    for number in 0..2 {
        writer.append(&MadeUp::new("a").record(number, "a")).unwrap();
        writer.end_batch("note").unwrap();
    }
    drop(writer);
    let lines = disk.content(&paths.journal).unwrap();
    let plain: Vec<&[u8]> =
        lines.split(|&byte| byte == b'\n').filter_map(|line| line.get(17..)).collect();
    let first = format!(
        r#"{{"header_space":{},"identity":"made up","schema":{SCHEMA}}}"#,
        header_layout::header_space(2)
    );
    vec![
        ("lines".to_owned(), [b"r".as_slice(), &lines].concat()),
        ("plain".to_owned(), [b"c".as_slice(), &plain.join(&b'\n')].concat()),
        ("first".to_owned(), [b"c".as_slice(), first.as_bytes()].concat()),
        ("as-it-was".to_owned(), b"e".to_vec()),
    ]
}
