//! Files that are forged: made-up traces taken apart, changed, and put together with right checksums.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::sync::OnceLock;

use hallutrace::shard::Commit;
use hallutrace::shard::header_layout::{self, TraceEntry};
use hallutrace::shard::schema::{Dtype, Form, Tensor};
use xxhash_rust::xxh3::xxh3_64;

use crate::made_up::{MadeUp, TYPES, description, outcome};

/// The most bytes that an edit gives a tensor.
const LARGEST: usize = 4096;

/// A header, byte 0, and data: given its length, padding, and the right checksums as far as it has room.
pub fn with_length(input: &[u8]) -> Vec<u8> {
    let end = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    let (mut header, data) = (input[..end].to_vec(), input.get(end + 1..).unwrap_or(&[]));
    let offsets: Vec<u64> = find(&header, b"\"data_offsets\":[")
        .map(|at| {
            let text = String::from_utf8_lossy(&header[at..header.len().min(at + 30)]).into_owned();
            let mut numbers = text.split([',', ']']).map_while(|number| number.parse().ok());
            let (begin, end): (usize, usize) =
                (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            data.get(begin..end).map_or(0, xxh3_64)
        })
        .collect();
    let mut slots = header.iter().position(|&byte| byte == b'[').unwrap_or(header.len());
    for checksum in offsets {
        // Digits stand together; between two traces there are quotes and a comma.
        let Some(next) = header[slots..].iter().position(u8::is_ascii_hexdigit) else { break };
        let Some(slot) = header.get_mut(slots + next..slots + next + 16) else { break };
        if !slot.iter().all(u8::is_ascii_hexdigit) {
            break;
        }
        slot.copy_from_slice(format!("{checksum:016x}").as_bytes());
        slots += next + 16;
    }
    assemble(&header, data)
}

fn find<'a>(text: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let parts = text.windows(what.len()).enumerate();
    parts.filter(move |(_, part)| *part == what).map(|(at, _)| at + what.len())
}

/// A file of a header's text and its data.
pub fn assemble(header: &[u8], data: &[u8]) -> Vec<u8> {
    let space = header_layout::padded_header(header.len());
    let mut file = (space as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(8 + space, b' ');
    file.extend_from_slice(data);
    file
}

/// A trace that may be forged: its entry, and the bytes of each of its tensors.
pub type Forged = (TraceEntry, Vec<Vec<u8>>);

/// A made-up trace, taken apart; made once, because that takes longer than to read it.
pub fn template() -> Forged {
    static TEMPLATE: OnceLock<Forged> = OnceLock::new();
    TEMPLATE.get_or_init(|| apart(0, "a")).clone()
}

/// A made-up trace, taken apart.
pub fn apart(number: usize, id: &str) -> Forged {
    let made_up = MadeUp::new(id);
    let (entry, data) = made_up.record(number, id).lay_out(TYPES, 0).unwrap();
    let parts = entry.tensors.iter().map(|at| data[at.begin..at.end].to_vec()).collect();
    (entry, parts)
}

/// A file of such traces in which lengths, offsets and checksums are right, whatever else is not.
///
/// What comes last in a trace, its meta, is padded as a writer would.
pub fn file_of(traces: Vec<Forged>) -> Vec<u8> {
    let (entries, data) = laid_out(traces);
    let commit = Commit { description: description("00000"), outcome: outcome(entries.len()) };
    assemble(header_layout::encode(&commit, &entries).as_bytes(), &data)
}

/// Entries with the right offsets and checksums, and the data that they tell of.
pub fn laid_out(traces: Vec<Forged>) -> (Vec<TraceEntry>, Vec<u8>) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (mut entry, mut parts) in traces {
        let bytes: usize = parts.iter().map(Vec::len).sum();
        if let (Some(last), Some(meta)) = (entry.tensors.last_mut(), parts.last_mut())
            && last.tensor == Tensor::Meta
        {
            meta.resize(meta.len() + bytes.next_multiple_of(64) - bytes, b' ');
            last.form.shape = vec![meta.len()];
        }
        for (at, part) in entry.tensors.iter_mut().zip(parts) {
            at.begin = data.len();
            data.extend_from_slice(&part);
            at.end = data.len();
            at.checksum = xxh3_64(&part);
        }
        entries.push(entry);
    }
    (entries, data)
}

/// Made-up traces, changed by instructions of four bytes: what, where, and two that say how.
pub fn edited(input: &[u8]) -> Vec<Forged> {
    let mut traces = vec![template(), template()];
    traces[1].0.number = 3;
    let mut left = input;
    while let [what, place, first, second, rest @ ..] = left {
        left = rest;
        let (entry, parts) = &mut traces[usize::from(place >> 7)];
        let at = usize::from(place & 127) % entry.tensors.len().max(1);
        let Some(tensor) = entry.tensors.get_mut(at) else { continue };
        let shape = &mut tensor.form.shape;
        match what % 8 {
            // A length of a shape, and bytes for it; some so large that there are none.
            0 => {
                let axis = usize::from(first & 3) % shape.len().max(1);
                if let Some(length) = shape.get_mut(axis) {
                    let shift = u32::from(first >> 2);
                    *length = usize::from(*second).wrapping_shl(shift) >> (shift % 2);
                }
                resize(&tensor.form.clone(), &mut parts[at]);
            }
            1 | 2 => {
                let length = parts[at].len().max(1);
                let offset = (usize::from(*first) + 256 * usize::from(*what >> 3)) % length;
                parts[at].get_mut(offset).into_iter().for_each(|byte| *byte = *second);
            }
            3 => {
                entry.tensors.remove(at);
                parts.remove(at);
            }
            4 => {
                let types = [Dtype::I64, Dtype::F32, Dtype::U32, Dtype::F16, Dtype::U16, Dtype::I8];
                tensor.form.dtype = types[usize::from(*first) % types.len()];
                resize(&tensor.form.clone(), &mut parts[at]);
            }
            5 => {
                let other = usize::from(*first) % entry.tensors.len();
                entry.tensors.swap(at, other);
                parts.swap(at, other);
            }
            6 => entry.number = usize::from(*first) << (second % 60),
            // The rest of the input is the meta.
            _ => {
                if let Some(meta) = parts.last_mut() {
                    *meta = left.to_vec();
                }
                left = &[];
            }
        }
    }
    traces
}

fn resize(form: &Form, part: &mut Vec<u8>) {
    if let Some(bytes) = form.bytes().filter(|&bytes| bytes <= LARGEST) {
        part.resize(bytes, 0);
    }
}
