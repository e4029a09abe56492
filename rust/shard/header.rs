//! Reads the header of a shard: the one form that [`layout`] writes, and no other.
//!
//! What is not the writer's next byte is damage, so a header is read from its first byte to its last without
//! a tree in between. No number in it is believed before it is checked, and what is kept of it takes no more
//! memory than its text: a trace has a bounded number of tensors and a tensor of axes.

use super::damage::Damage;
use super::layout::{self, LENGTH_BYTES, LONGEST_HEADER, TensorEntry, TraceEntry};
use super::schema::{self, ALIGNMENT, Disagreement, Dtype, Form, MOST_AXES, Tensor};

/// Hexadecimal digits of a checksum.
const DIGITS: usize = 16;

/// Where the data begins, and the traces; or what is wrong with the header.
///
/// `file` is the beginning of a file of `size` bytes, the whole header at least.
pub(super) fn parse(file: &[u8], size: u64) -> Result<(usize, Vec<TraceEntry>), Damage> {
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
    let mut text = Text { rest: &file[LENGTH_BYTES..data], length };
    let announced = announced(&mut text)?;
    let traces = traces(&mut text, announced)?;
    text.literal("}")?;
    text.padding()?;
    let end = traces.last().and_then(|trace| trace.tensors.last()).map_or(0, |last| last.end);
    if (data as u64).checked_add(end as u64) != Some(size) {
        return Err(Damage::Size { size, data, end });
    }
    Ok((data, traces))
}

/// A misfit of a trace.
pub(super) fn in_trace(trace: &TraceEntry, (tensor, found): Disagreement) -> Damage {
    Damage::Trace { number: trace.number, tensor, found }
}

/// What the metadata says of each trace: its number, its key, and the digits of its checksums.
type Announced<'a> = Vec<(usize, (String, u32), &'a [u8])>;

/// The metadata: JSON text in a JSON string, so every quote of it has a backslash.
fn announced<'a>(text: &mut Text<'a>) -> Result<Announced<'a>, Damage> {
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
    text.literal(r#",\"keys\":"#)?;
    text.list(|text| {
        let digits = checksums.next().ok_or(Damage::MoreKeys)?;
        text.literal(r#"[\""#)?;
        let id = text.id()?;
        text.literal(r#"\","#)?;
        let sample = text.number()?;
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
    match text.number()? {
        schema if schema == schema::SCHEMA as usize => text.literal(r#"}"}"#)?,
        schema => return Err(Damage::Schema { schema }),
    }
    Ok(announced)
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
            let entry = text.tensor(digits, begin)?;
            begin = entry.end;
            tensors.push(entry);
        }
        let trace = TraceEntry { number, key, tensors };
        let forms = layout::forms(&trace);
        let order = schema::disk_order(&forms);
        if !order.iter().eq(trace.tensors.iter().map(|entry| &entry.tensor)) {
            return Err(Damage::Order { number });
        }
        schema::dimensions(&forms).map_err(|misfit| in_trace(&trace, misfit))?;
        if !begin.is_multiple_of(ALIGNMENT) {
            return Err(Damage::Cut { number });
        }
        traces.push(trace);
    }
    Ok(traces)
}

/// What is left of the header's text.
struct Text<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// What to say where the text is not the writer's.
    fn other(&self) -> Damage {
        let at = LENGTH_BYTES + self.length - self.rest.len();
        Damage::Form { at }
    }

    fn literal(&mut self, due: &str) -> Result<(), Damage> {
        self.rest = self.rest.strip_prefix(due.as_bytes()).ok_or_else(|| self.other())?;
        Ok(())
    }

    /// The bytes before the next `end`, which stays.
    fn until(&mut self, end: u8) -> Result<&'a [u8], Damage> {
        let at = self.rest.iter().position(|&byte| byte == end).ok_or_else(|| self.other())?;
        let (before, rest) = self.rest.split_at(at);
        self.rest = rest;
        Ok(before)
    }

    /// `[`, so many of them with commas in between, `]`.
    fn list(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        self.literal("[")?;
        if self.literal("]").is_ok() {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.literal(",").is_err() {
                return self.literal("]");
            }
        }
    }

    /// A number without sign, fraction or leading zero.
    fn number(&mut self) -> Result<usize, Damage> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let is_padded = digits.len() > 1 && digits[0] == b'0';
        let number = std::str::from_utf8(digits).ok().filter(|_| !is_padded);
        let number = number.and_then(|digits| digits.parse().ok()).ok_or_else(|| self.other())?;
        self.rest = rest;
        Ok(number)
    }

    /// A string of the metadata, up to its closing quote.
    fn id(&mut self) -> Result<String, Damage> {
        let mut ahead = self.rest;
        let length = std::iter::from_fn(|| unescape(&mut ahead)).count();
        let mut id = Vec::with_capacity(length);
        id.extend(std::iter::from_fn(|| unescape(&mut self.rest)).take(length));
        String::from_utf8(id).map_err(|_| self.other())
    }

    /// The rest of a tensor's entry, from its name on; it has to begin at `due`.
    fn tensor(&mut self, digits: &[u8], due: usize) -> Result<TensorEntry, Damage> {
        let name = self.until(b'"')?;
        let tensor = std::str::from_utf8(name).ok().and_then(Tensor::named);
        let tensor = tensor.ok_or_else(|| self.other())?;
        self.literal(r#"":{"dtype":""#)?;
        let dtype = std::str::from_utf8(self.until(b'"')?).ok().and_then(Dtype::named);
        let dtype = dtype.ok_or_else(|| self.other())?;
        self.literal(r#"","shape":"#)?;
        let (mut shape, mut axes) = ([0; MOST_AXES], 0);
        self.list(|text| {
            *shape.get_mut(axes).ok_or_else(|| text.other())? = text.number()?;
            axes += 1;
            Ok(())
        })?;
        let form = Form { dtype, shape: shape[..axes].to_vec() };
        self.literal(r#","data_offsets":["#)?;
        let begin = self.number()?;
        self.literal(",")?;
        let end = self.number()?;
        self.literal("]}")?;
        let due_end = form.bytes().and_then(|bytes| bytes.checked_add(due));
        if begin != due || Some(end) != due_end {
            return Err(Damage::Offsets { tensor, begin, end, due, due_end });
        }
        let digits = std::str::from_utf8(digits).ok();
        let checksum = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let checksum = checksum.ok_or_else(|| self.other())?;
        Ok(TensorEntry { tensor, form, begin, end, checksum })
    }

    /// Nothing but the spaces that fill the reserved room.
    fn padding(&mut self) -> Result<(), Damage> {
        let words = self.rest.iter().position(|&byte| byte != b' ');
        self.rest = &self.rest[words.unwrap_or(self.rest.len())..];
        if self.rest.is_empty() { Ok(()) } else { Err(self.other()) }
    }
}

/// The next byte of a string in a string, `None` at its closing quote or at what no writer writes.
///
/// The inner text has `\"`, `\\`, `\n` and the like, `\u001f`; the outer doubles every backslash and puts one
/// before every quote.
fn unescape(rest: &mut &[u8]) -> Option<u8> {
    let (byte, tail) = match *rest {
        [b'\\', b'\\', b'\\', byte @ (b'"' | b'\\'), tail @ ..] => (*byte, tail),
        [b'\\', b'\\', b'u', b'0', b'0', high @ (b'0' | b'1'), low, tail @ ..] => {
            let low = match low {
                b'0'..=b'9' => low - b'0',
                b'a'..=b'f' => low - b'a' + 10,
                _ => return None,
            };
            let byte = (high - b'0') * 16 + low;
            // Those have a letter.
            (!matches!(byte, 8 | 9 | 10 | 12 | 13)).then_some((byte, tail))?
        }
        [b'\\', b'\\', letter, tail @ ..] => {
            let at = b"btnfr".iter().position(|known| known == letter)?;
            ([8, 9, 10, 12, 13][at], tail)
        }
        [b'\\' | b'"', ..] => return None,
        [byte, tail @ ..] if *byte >= b' ' => (*byte, tail),
        _ => return None,
    };
    *rest = tail;
    Some(byte)
}
