//! The rules: what is kept of a row, and how heads become one.

use std::str::FromStr;

use crate::error::InputError;
use crate::float_environment::with_ours;

/// How heads become graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// One graph of the mean: the float32 sum in head order, divided by the number of heads.
    Mean,
    /// One graph of the largest weight over the heads.
    Max,
    /// One graph per head.
    Each,
}

impl Combine {
    /// How many graphs so many heads give.
    pub fn graphs(self, heads: usize) -> usize {
        if self == Self::Each { heads } else { 1 }
    }
}

impl FromStr for Combine {
    type Err = InputError;

    fn from_str(heads: &str) -> Result<Self, InputError> {
        match heads {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            "each" => Ok(Self::Each),
            _ => Err(InputError::Heads { heads: heads.to_owned() }),
        }
    }
}

/// What is kept of each row; rules combine as an intersection, and a weight of zero is never kept.
///
/// In the descending order of a row (ties to the lower key) every rule keeps a prefix, so the
/// intersection is the shortest of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    top_k: Option<usize>,
    floor: f32,
    top_mass: Option<f64>,
}

impl Rules {
    /// Checks the rules; `min_weight` is rounded to float32.
    ///
    /// # Errors
    /// [`InputError::TopK`] for 0, [`InputError::MinWeight`] for a negative one or one that float32
    /// does not hold, [`InputError::TopMass`] outside (0, 1].
    pub fn new(
        top_k: Option<usize>,
        min_weight: f64,
        top_mass: Option<f64>,
    ) -> Result<Self, InputError> {
        with_ours(|| Self::checked(top_k, min_weight, top_mass))
    }

    fn checked(
        top_k: Option<usize>,
        min_weight: f64,
        top_mass: Option<f64>,
    ) -> Result<Self, InputError> {
        let least = min_weight as f32;
        if let Some(top_k @ 0) = top_k {
            return Err(InputError::TopK { top_k });
        }
        if !(least.is_finite() && min_weight >= 0.0) {
            return Err(InputError::MinWeight { min_weight });
        }
        if let Some(top_mass) = top_mass
            && !(top_mass > 0.0 && top_mass <= 1.0)
        {
            return Err(InputError::TopMass { top_mass });
        }
        // A share of 1 keeps all that is not zero, as no rule does.
        let top_mass = top_mass.filter(|&share| share < 1.0);
        // -0.0 has more bits than any weight.
        let floor = f32::from_bits((least + 0.0).to_bits().max(1));
        Ok(Self { top_k, floor, top_mass })
    }

    /// The largest number of edges of a row.
    pub(crate) fn top_k(&self) -> Option<usize> {
        self.top_k
    }

    /// The smallest weight that can be kept; positive.
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    /// Whether a positive weight can be too small to be kept.
    pub(crate) fn has_floor(&self) -> bool {
        self.floor.to_bits() > 1
    }

    /// The share of the row's mass to reach; less than 1.
    pub(crate) fn top_mass(&self) -> Option<f64> {
        self.top_mass
    }
}
