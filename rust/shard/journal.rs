//! The journal of a shard in progress: one line a batch, each with its own checksum.
//!
//! ```text
//! 5f0c… {"header_space":3576,"identity":"…","schema":1}
//! 91ab… {"data":8192,"note":"…","traces":[…]}
//! ```
//! A line is written only when the data it tells of is on the disk. Reading stops at the first line that
//! is cut short or does not match its checksum: what follows was never promised.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::header_layout::TraceEntry;
use super::schema::SCHEMA;

/// The first line: what the shard is, so that a journal of something else is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Bytes reserved for the header.
    pub header_space: usize,
    /// Whatever the caller tells shards apart by.
    pub identity: String,
    /// Version of the format.
    pub schema: u32,
}

impl Opening {
    /// The first line of a new journal.
    pub fn new(identity: &str, header_space: usize) -> Self {
        Self { header_space, identity: identity.to_owned(), schema: SCHEMA }
    }
}

/// A line after the first: one whole batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Bytes of the data section once the batch was appended.
    pub data: usize,
    /// The caller's own words about the batch.
    pub note: String,
    /// The traces of the batch; none where all of them failed.
    pub traces: Vec<TraceEntry>,
}

/// A line of the journal, its checksum before it.
pub fn line(content: &impl Serialize) -> Vec<u8> {
    // Serialising to memory cannot fail: the keys of every map are strings.
    let json = serde_json::to_string(content).unwrap_or_default();
    format!("{:016x} {json}\n", xxh3_64(json.as_bytes())).into_bytes()
}

/// The first line and the batches of a journal, as far as it can be trusted, and how many bytes that is.
pub fn read(bytes: &[u8]) -> Option<(Opening, Vec<Batch>, usize)> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next()?;
    let opening: Opening = parse(first)?;
    let mut trusted = first.len();
    let mut batches: Vec<Batch> = Vec::new();
    for line in lines {
        let Some(batch) = parse::<Batch>(line) else { break };
        if batches.last().is_some_and(|before| batch.data < before.data) {
            break;
        }
        trusted += line.len();
        batches.push(batch);
    }
    Some((opening, batches, trusted))
}

/// The lines of a journal, with an opening of another header's room.
pub(super) fn with_header_space(lines: &[u8], header_space: usize) -> Vec<u8> {
    let end = lines.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (first, batches) = lines.split_at(end);
    match parse::<Opening>(first) {
        Some(opening) if opening.header_space != header_space => {
            [line(&Opening { header_space, ..opening }).as_slice(), batches].concat()
        }
        _ => lines.to_vec(),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Option<T> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(16)?;
    let json = json.strip_prefix(b" ")?;
    // As text, because numbers have several forms.
    let due = format!("{:016x}", xxh3_64(json));
    (checksum == due.as_bytes()).then(|| serde_json::from_slice(json).ok())?
}
