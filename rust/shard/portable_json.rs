//! JSON that every reader of JSON reads, looked at without decoding it.

use serde_json::value::RawValue;

use super::schema_violation::MetaFault;

/// Levels of nesting, as many as `serde_json` reads; a meta has three.
const DEEPEST: usize = 128;

/// Digits of the longest whole number: all that fit in 64 bits.
const MOST_DIGITS: usize = 19;

/// Characters of the longest other number: a float of 64 bits has at most 25.
const LONGEST_NUMBER: usize = 25;

/// Whether a JSON value is this string; one that cannot be is not decoded.
pub(super) fn is_json_of(value: &RawValue, text: &str) -> bool {
    let json = value.get();
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => plain == text,
        // An escape is at most six bytes for one.
        Some(escaped) => {
            escaped.len() <= 6 * text.len()
                && serde_json::from_str::<String>(json).is_ok_and(|id| id == text)
        }
        None => false,
    }
}

/// Refuses what is JSON but not what every reader of JSON reads: nesting that exhausts a stack, whole numbers
/// too long for 64 bits, others too large for a float, half characters.
pub(super) fn check_portable(text: &str) -> Result<(), MetaFault> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at += string(&bytes[at..]).ok_or(MetaFault::HalfCharacter)?,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'0'..=b'9' => {
                let number = number_text(&text[at - 1..]);
                at += number.len() - 1;
                let is_whole = number.bytes().all(|byte| byte.is_ascii_digit());
                let fits = if is_whole {
                    number.len() <= MOST_DIGITS
                } else {
                    number.len() <= LONGEST_NUMBER && number.parse().is_ok_and(f64::is_finite)
                };
                if !fits {
                    return Err(MetaFault::Number);
                }
            }
            _ => {}
        }
        if depth > DEEPEST {
            return Err(MetaFault::Deep { deepest: DEEPEST });
        }
    }
    Ok(())
}

/// The number that a text begins with.
fn number_text(text: &str) -> &str {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'));
    &text[..end.unwrap_or(text.len())]
}

/// Bytes of a string up to its closing quote and with it; `None` where it has half a pair of UTF-16.
fn string(bytes: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return Some(at + 1),
            b'\\' => match unit(at) {
                Some(0xd800..0xdc00) => {
                    unit(at + 6).filter(|low| (0xdc00..0xe000).contains(low)).map(|_| 12)?
                }
                Some(0xdc00..0xe000) => return None,
                _ => 2,
            },
            _ => 1,
        };
    }
    Some(bytes.len())
}
