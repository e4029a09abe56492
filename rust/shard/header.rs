//! Reads the header of a shard: the one form that [`header_layout`] writes, and no other.
//!
//! What is not the writer's next byte is damage, so a header is read from its first byte to its last without
//! a tree in between. No number in it is believed before it is checked, and what is kept of it takes no more
//! memory than its text: a trace has a bounded number of tensors and a tensor of axes.

use xxhash_rust::xxh3::xxh3_64;

use super::commit::Commit;
use super::damage::Damage;
use super::header_layout::{self, LENGTH_BYTES, LONGEST_HEADER, TensorEntry, TraceEntry};
use super::schema::{self, ALIGNMENT, Disagreement, Dtype, Form, MOST_AXES, Tensor};
use super::text::Text;

/// Hexadecimal digits of a checksum.
const DIGITS: usize = 16;

/// What a header tells.
pub(super) struct Header {
    /// Where the data begins.
    pub data: usize,
    /// What the shard says of itself.
    pub commit: Commit,
    /// The traces, in the order of the file.
    pub traces: Vec<TraceEntry>,
}

/// Reads a header, or says what is wrong with it.
///
/// `file` is the beginning of a file of `size` bytes, the whole header at least.
pub(super) fn parse(file: &[u8], size: u64) -> Result<Header, Damage> {
    let length = file
        .first_chunk::<LENGTH_BYTES>()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or(Damage::Short { bytes: file.len() })?;
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_HEADER && length <= file.len() - LENGTH_BYTES)
        .ok_or(Damage::HeaderLength { length, size })?;
    let data = LENGTH_BYTES + length;
    if length == 0 || !data.is_multiple_of(ALIGNMENT) {
        return Err(Damage::Unfinished { length });
    }
    let header = &file[LENGTH_BYTES..data];
    let mut text = Text::new(header);
    let (commit, announced) =
        announced(&mut text).map_err(|damage| other_schema(header, damage))?;
    let traces = traces(&mut text, announced)?;
    text.literal("}")?;
    text.padding()?;
    let end = traces.last().and_then(|trace| trace.tensors.last()).map_or(0, |last| last.end);
    if (data as u64).checked_add(end as u64) != Some(size) {
        return Err(Damage::Size { size, data, end });
    }
    Ok(Header { data, commit, traces })
}

/// What is wrong with a header: the version of its format, where that is another; else as it was found.
fn other_schema(header: &[u8], found: Damage) -> Damage {
    let key: &[u8] = br#",\"schema\":"#;
    let at = header.windows(key.len()).position(|part| part == key);
    let schema = at.and_then(|at| Text::new(&header[at + key.len()..]).number().ok());
    match schema {
        Some(schema) if schema != schema::SCHEMA => Damage::Schema { schema },
        _ => found,
    }
}

/// A rule of the schema that a trace breaks.
pub(super) fn in_trace(trace: &TraceEntry, (tensor, found): Disagreement) -> Damage {
    Damage::Trace { number: trace.number, tensor, found }
}

/// What the metadata says of each trace: its number, its key, and the digits of its checksums.
type Announced<'a> = Vec<(usize, (String, u32), &'a [u8])>;

/// The metadata: JSON text in a JSON string, so every quote of it has a backslash.
fn announced<'a>(text: &mut Text<'a>) -> Result<(Commit, Announced<'a>), Damage> {
    let needed = Tensor::ALL.into_iter().filter(|tensor| !tensor.is_optional()).count();
    text.literal(r#"{"__metadata__":{"hallutrace":"{\"checksums\":"#)?;
    let mut checksums: Vec<&[u8]> = Vec::new();
    text.list(|text| {
        text.literal(r#"\""#)?;
        let digits = text.until(b'\\')?;
        let is_hex = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let count = digits.len() / DIGITS;
        let counts = needed..=Tensor::ALL.len();
        if !is_hex || !digits.len().is_multiple_of(DIGITS) || !counts.contains(&count) {
            return Err(Damage::Checksums { position: checksums.len() });
        }
        checksums.push(digits);
        text.literal(r#"\""#)
    })?;
    let count = checksums.len();
    let mut announced = Vec::with_capacity(count);
    let mut checksums = checksums.into_iter();
    text.literal(r#",\"commit\":"#)?;
    let commit = Commit::read(text, count)?;
    let checksum = format!("{:016x}", xxh3_64(commit.to_json().as_bytes()));
    text.literal(r#",\"commit_checksum\":"#)?;
    if text.quoted()? != checksum {
        return Err(Damage::Commit);
    }
    text.literal(r#",\"keys\":"#)?;
    text.list(|text| {
        let digits = checksums.next().ok_or(Damage::MoreKeys)?;
        text.literal("[")?;
        let id = text.quoted()?;
        text.literal(",")?;
        let sample: usize = text.number()?;
        let sample = u32::try_from(sample).map_err(|_| Damage::Sample { sample })?;
        announced.push((0, (id, sample), digits));
        text.literal("]")
    })?;
    text.literal(r#",\"numbers\":"#)?;
    let (mut at, keys) = (0, announced.len());
    text.list(|text| {
        let (number, ..) = announced.get_mut(at).ok_or(Damage::MoreNumbers)?;
        *number = text.number()?;
        at += 1;
        Ok(())
    })?;
    if at != keys || keys != count {
        return Err(Damage::Counts { numbers: at, keys });
    }
    text.literal(r#",\"schema\":"#)?;
    let schema = text.number()?;
    if schema != schema::SCHEMA {
        return Err(Damage::Schema { schema });
    }
    text.literal(r#"}"}"#)?;
    Ok((commit, announced))
}

/// Deals the header's tensors out to the traces that the metadata names.
fn traces(text: &mut Text<'_>, announced: Announced<'_>) -> Result<Vec<TraceEntry>, Damage> {
    let mut seen = std::collections::HashSet::with_capacity(announced.len());
    let mut traces = Vec::with_capacity(announced.len());
    let mut begin = 0;
    for (number, key, checksums) in announced {
        if !seen.insert(number) {
            return Err(Damage::Twice { number });
        }
        let mut tensors = Vec::with_capacity(checksums.len() / DIGITS);
        let prefix = format!(",\"{number:05}.");
        for digits in checksums.chunks_exact(DIGITS) {
            text.literal(&prefix)?;
            let entry = tensor(text, digits, begin)?;
            begin = entry.end;
            tensors.push(entry);
        }
        let trace = TraceEntry { number, key, tensors };
        let forms = header_layout::forms(&trace);
        let order = schema::disk_order(&forms);
        if !order.iter().eq(trace.tensors.iter().map(|entry| &entry.tensor)) {
            return Err(Damage::Order { number });
        }
        schema::dimensions(&forms).map_err(|violation| in_trace(&trace, violation))?;
        if !begin.is_multiple_of(ALIGNMENT) {
            return Err(Damage::Cut { number });
        }
        traces.push(trace);
    }
    Ok(traces)
}

/// The rest of a tensor's entry, from its name on; it has to begin at `due`.
fn tensor(text: &mut Text<'_>, digits: &[u8], due: usize) -> Result<TensorEntry, Damage> {
    let name = text.until(b'"')?;
    let tensor = std::str::from_utf8(name).ok().and_then(Tensor::named);
    let tensor = tensor.ok_or_else(|| text.other())?;
    text.literal(r#"":{"dtype":""#)?;
    let dtype = std::str::from_utf8(text.until(b'"')?).ok().and_then(Dtype::named);
    let dtype = dtype.ok_or_else(|| text.other())?;
    text.literal(r#"","shape":"#)?;
    let (mut shape, mut axes) = ([0; MOST_AXES], 0);
    text.list(|text| {
        *shape.get_mut(axes).ok_or_else(|| text.other())? = text.number()?;
        axes += 1;
        Ok(())
    })?;
    let form = Form { dtype, shape: shape[..axes].to_vec() };
    text.literal(r#","data_offsets":["#)?;
    let begin = text.number()?;
    text.literal(",")?;
    let end = text.number()?;
    text.literal("]}")?;
    let due_end = form.bytes().and_then(|bytes| bytes.checked_add(due));
    if begin != due || Some(end) != due_end {
        return Err(Damage::Offsets { tensor, begin, end, due, due_end });
    }
    let digits = std::str::from_utf8(digits).ok();
    let checksum = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let checksum = checksum.ok_or_else(|| text.other())?;
    Ok(TensorEntry { tensor, form, begin, end, checksum })
}
