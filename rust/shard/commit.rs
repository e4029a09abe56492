//! What a shard says of itself in its header: whose it is, which questions it covers, and what came of them.
//!
//! ```text
//! {"counts":{"traces":2,…},"digest":"…","environment":{"threads":8,…},"fingerprint":"…","first":0,
//!  "halvings":[[batch,size],…],"indices":[0,1],"name":"00000","questions":2}
//! ```
//! With the keys of the traces, and the size and the checksum of the file, it is the commit record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::text::Text;

/// Most bytes of a [`Description`] in JSON; a real one has some hundred.
pub const DESCRIPTION_LIMIT: usize = 16_384;
/// Most entries of a map: what is read from a file takes no more memory than its text.
const MOST_ENTRIES: usize = 64;

/// A value of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Setting {
    Number(u64),
    Text(String),
    Nothing,
}

/// What is known of a shard before it is written; fields in the order of canonical JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Stands for the questions that the shard covers.
    pub digest: String,
    /// Versions, device and threads that it was made with.
    pub environment: BTreeMap<String, Setting>,
    /// Of the run's manifest.
    pub fingerprint: String,
    /// Number of the first question it covers; -1 where questions are tried again.
    pub first: i64,
    /// Of the shard, as its file is called.
    pub name: String,
    /// How many questions it covers.
    pub questions: u64,
}

/// What is known once all its traces are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Traces, failures and the like.
    pub counts: BTreeMap<String, u64>,
    /// Batches that were halved for want of memory, and to which size.
    pub halvings: Vec<[u32; 2]>,
    /// Row in the source of each trace, in the order of the traces' numbers.
    pub indices: Vec<u64>,
}

/// All that a shard says of itself, but for the keys of its traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Commit {
    pub description: Description,
    pub outcome: Outcome,
}

impl Commit {
    /// Canonical JSON.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Canonical<'a> {
            counts: &'a BTreeMap<String, u64>,
            digest: &'a str,
            environment: &'a BTreeMap<String, Setting>,
            fingerprint: &'a str,
            first: i64,
            halvings: &'a [[u32; 2]],
            indices: &'a [u64],
            name: &'a str,
            questions: u64,
        }
        let Self { description: about, outcome } = self;
        let canonical = Canonical {
            counts: &outcome.counts,
            digest: &about.digest,
            environment: &about.environment,
            fingerprint: &about.fingerprint,
            first: about.first,
            halvings: &outcome.halvings,
            indices: &outcome.indices,
            name: &about.name,
            questions: about.questions,
        };
        // Cannot fail: every key is a string.
        serde_json::to_string(&canonical).unwrap_or_default()
    }

    /// One of so many traces and nothing else, to try whether a header can hold them.
    pub(super) fn blank(traces: usize) -> Self {
        let outcome = Outcome { indices: vec![0; traces], ..Outcome::default() };
        Self { outcome, ..Self::default() }
    }

    /// Reads one within the header's metadata; `traces` is how many the header tells of.
    pub(super) fn read(text: &mut Text<'_>, traces: usize) -> Result<Self, Damage> {
        let mut commit = Self::default();
        let Self { description: about, outcome } = &mut commit;
        text.literal(r#"{\"counts\":"#)?;
        outcome.counts = map(text, count)?;
        text.literal(r#",\"digest\":"#)?;
        about.digest = text.quoted()?;
        text.literal(r#",\"environment\":"#)?;
        about.environment = map(text, |text| match text.next() {
            Some(b'n') => text.literal("null").map(|()| Setting::Nothing),
            Some(b'\\') => text.quoted().map(Setting::Text),
            _ => text.number().map(Setting::Number),
        })?;
        text.literal(r#",\"fingerprint\":"#)?;
        about.fingerprint = text.quoted()?;
        text.literal(r#",\"first\":"#)?;
        let is_again = text.literal("-1").is_ok();
        about.first = if is_again { -1 } else { text.number()? };
        text.literal(r#",\"halvings\":"#)?;
        let mut halvings = 0;
        text.clone().list(|text| {
            halvings += 1;
            halving(text).map(|_| ())
        })?;
        outcome.halvings.reserve_exact(halvings);
        text.list(|text| {
            outcome.halvings.push(halving(text)?);
            Ok(())
        })?;
        text.literal(r#",\"indices\":"#)?;
        outcome.indices.reserve_exact(traces);
        text.list(|text| {
            if outcome.indices.len() == traces {
                return Err(Damage::MoreIndices);
            }
            outcome.indices.push(text.number()?);
            Ok(())
        })?;
        if outcome.indices.len() < traces {
            return Err(Damage::Indices { indices: outcome.indices.len(), traces });
        }
        text.literal(r#",\"name\":"#)?;
        about.name = text.quoted()?;
        text.literal(r#",\"questions\":"#)?;
        about.questions = text.number()?;
        text.literal("}")?;
        Ok(commit)
    }
}

fn count(text: &mut Text<'_>) -> Result<u64, Damage> {
    text.number()
}

fn halving(text: &mut Text<'_>) -> Result<[u32; 2], Damage> {
    text.literal("[")?;
    let batch = text.number()?;
    text.literal(",")?;
    let size = text.number()?;
    text.literal("]")?;
    Ok([batch, size])
}

/// A map of the metadata, whose names ascend.
fn map<T>(
    text: &mut Text<'_>,
    mut value: impl FnMut(&mut Text<'_>) -> Result<T, Damage>,
) -> Result<BTreeMap<String, T>, Damage> {
    let mut found = BTreeMap::new();
    text.literal("{")?;
    if text.literal("}").is_ok() {
        return Ok(found);
    }
    loop {
        let name = text.quoted()?;
        let is_next = found.last_key_value().is_none_or(|(last, _)| *last < name);
        if !is_next || found.len() == MOST_ENTRIES {
            return Err(text.other());
        }
        text.literal(":")?;
        found.insert(name, value(text)?);
        if text.literal(",").is_err() {
            text.literal("}")?;
            return Ok(found);
        }
    }
}
