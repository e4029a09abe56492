//! The text of a header, read from its first byte to its last.

use std::str::FromStr;

use super::damage::Damage;
use super::header_layout::LENGTH_BYTES;

/// What is left of the header's text.
#[derive(Clone)]
pub(super) struct Text<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// All of a header's text.
    pub(super) fn new(header: &'a [u8]) -> Self {
        Self { rest: header, length: header.len() }
    }

    /// What comes next.
    pub(super) fn next(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// What to say where the text is not the writer's.
    pub(super) fn other(&self) -> Damage {
        let at = LENGTH_BYTES + self.length - self.rest.len();
        Damage::Form { at }
    }

    pub(super) fn literal(&mut self, due: &str) -> Result<(), Damage> {
        self.rest = self.rest.strip_prefix(due.as_bytes()).ok_or_else(|| self.other())?;
        Ok(())
    }

    /// The bytes before the next `end`, which stays.
    pub(super) fn until(&mut self, end: u8) -> Result<&'a [u8], Damage> {
        let at = self.rest.iter().position(|&byte| byte == end).ok_or_else(|| self.other())?;
        let (before, rest) = self.rest.split_at(at);
        self.rest = rest;
        Ok(before)
    }

    /// `[`, so many of them with commas in between, `]`.
    pub(super) fn list(
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
    pub(super) fn number<T: FromStr>(&mut self) -> Result<T, Damage> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let is_padded = digits.len() > 1 && digits[0] == b'0';
        let number = std::str::from_utf8(digits).ok().filter(|_| !is_padded);
        let number = number.and_then(|digits| digits.parse().ok()).ok_or_else(|| self.other())?;
        self.rest = rest;
        Ok(number)
    }

    /// A string of the metadata, with its quotes.
    pub(super) fn quoted(&mut self) -> Result<String, Damage> {
        self.literal(r#"\""#)?;
        let mut ahead = self.rest;
        let length = std::iter::from_fn(|| unescape(&mut ahead)).count();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(std::iter::from_fn(|| unescape(&mut self.rest)).take(length));
        self.literal(r#"\""#)?;
        String::from_utf8(bytes).map_err(|_| self.other())
    }

    /// Nothing but the spaces that fill the reserved room.
    pub(super) fn padding(&mut self) -> Result<(), Damage> {
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
