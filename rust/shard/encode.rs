//! Arrays of the pipeline, turned into the bytes that the schema asks for.
//!
//! Casts are the schema's, never silent: a number that its stored type cannot hold is an error.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::schema::Dtype;
use super::schema_violation::Violation;

/// Borrowed elements of an array, in C order.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    U16(&'a [u16]),
    I8(&'a [i8]),
    U8(&'a [u8]),
}

impl Values<'_> {
    const fn name(self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::F16(_) => "float16",
            Self::I64(_) => "int64",
            Self::I32(_) => "int32",
            Self::U16(_) => "uint16",
            Self::I8(_) => "int8",
            Self::U8(_) => "uint8",
        }
    }
}

/// A borrowed array: its elements and its shape.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    /// Elements in C order.
    pub values: Values<'a>,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
}

/// The bytes of `values` as `dtype`, little endian, or what stands in the way.
///
/// `BF16` takes the bits as `U16`, because numpy has no such type.
///
/// # Errors
/// [`Violation::Cast`], or a number that `dtype` cannot hold.
pub fn encode(values: Values<'_>, dtype: Dtype) -> Result<Vec<u8>, Violation> {
    match (values, dtype) {
        (Values::F32(from), Dtype::F32) => Ok(bytes(from, f32::to_le_bytes)),
        (Values::F32(from), Dtype::F16) => narrow(from),
        (Values::F16(from), Dtype::F16) => Ok(bytes(from, f16::to_le_bytes)),
        (Values::I64(from), Dtype::I64) => Ok(bytes(from, i64::to_le_bytes)),
        (Values::I32(from), Dtype::I32) => Ok(bytes(from, i32::to_le_bytes)),
        (Values::I32(from), Dtype::U16) => {
            fits(from, |x| u16::try_from(x).is_ok())?;
            Ok(bytes(from, |x| [x.to_le_bytes()[0], x.to_le_bytes()[1]]))
        }
        (Values::I32(from), Dtype::U32) => {
            fits(from, |x| x >= 0)?;
            Ok(bytes(from, i32::to_le_bytes))
        }
        (Values::U16(from), Dtype::U16 | Dtype::BF16) => Ok(bytes(from, u16::to_le_bytes)),
        (Values::I8(from), Dtype::I8) => Ok(bytes(from, i8::to_le_bytes)),
        (Values::U8(from), Dtype::U8) => Ok(from.to_vec()),
        (values, dtype) => Err(Violation::Cast { from: values.name(), dtype }),
    }
}

fn bytes<T: Copy, const N: usize>(from: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    from.iter().flat_map(|&x| to_bytes(x)).collect()
}

/// float16, rounded to nearest even; what is finite and would become infinite is refused.
fn narrow(from: &[f32]) -> Result<Vec<u8>, Violation> {
    let mut to = vec![f16::ZERO; from.len()];
    to.convert_from_f32_slice(from);
    match from.iter().zip(&to).find(|(x, y)| x.is_finite() && y.is_infinite()) {
        Some((&value, _)) => Err(Violation::Overflow { value }),
        None => Ok(bytes(&to, f16::to_le_bytes)),
    }
}

fn fits(from: &[i32], holds: impl Fn(i32) -> bool) -> Result<(), Violation> {
    from.iter().find(|&&x| !holds(x)).map_or(Ok(()), |&number| Err(Violation::Number { number }))
}
