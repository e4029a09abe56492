//! One matrix at a time.

use super::band::Block;
use super::sweep::sweep;
use super::{Plan, Reduction};
use crate::attention::AttentionView;
use crate::edges::EdgeList;
use crate::error::InputError;
use crate::float_environment::with_ours;
use crate::marginals::{MarginalRows, Marginals, Segments};
use crate::simd::InstructionSet;
use crate::sparsify::{Combine, Rules};

/// The edges of one matrix, ordered by head, query, key.
///
/// # Errors
/// [`InputError::Weight`] for a weight that is read and NaN, infinite or negative;
/// [`InputError::MeanOverflow`].
///
/// ```
/// use hallutrace::attention::{AttentionView, Elements, Layout};
/// use hallutrace::sparsify::{Combine, Rules};
///
/// let weights = [1.0, 0.0, 0.0, 0.7, 0.3, 0.0, 0.2, 0.2, 0.6];
/// let layout = Layout::contiguous(1, 3, 3);
/// let view = AttentionView::new(Elements::F32(&weights), layout, true, None)?;
/// let edges = hallutrace::reduce::sparsify(&view, Rules::new(Some(2), 0.0, None)?, Combine::Mean)?;
/// assert_eq!(edges.indptr(), [0, 1, 3, 5]);
/// assert_eq!(edges.keys(), [0, 0, 1, 0, 2]);
/// # Ok::<(), hallutrace::error::InputError>(())
/// ```
pub fn sparsify(
    view: &AttentionView<'_>,
    rules: Rules,
    combine: Combine,
) -> Result<EdgeList, InputError> {
    let plan =
        Plan { combine, rules, edge_rows: 0..view.queries(), marginals: MarginalRows::default() };
    with_ours(|| Ok(reduce(view, plan)?.edges.into_list(view.keys(), view.first_query())))
}

/// The marginals of one matrix; `received` counts all its rows.
///
/// # Errors
/// [`InputError::Weight`] for a weight that is read and NaN, infinite or negative;
/// [`InputError::SumOverflow`].
pub fn marginals(view: &AttentionView<'_>, segments: Segments) -> Result<Marginals, InputError> {
    let rows = 0..view.queries();
    let marginals =
        MarginalRows { diagonal: rows.clone(), detail: rows.clone(), received: rows, segments };
    let rules = Rules::new(None, 0.0, None)?;
    let plan = Plan { combine: Combine::Each, rules, edge_rows: 0..0, marginals };
    with_ours(|| Ok(reduce(view, plan)?.marginals.finish(|_| 1.0)))
}

fn reduce(view: &AttentionView<'_>, plan: Plan) -> Result<Reduction, InputError> {
    let set = InstructionSet::current()?;
    let mut reduction = Reduction::new(plan, view.heads(), view.keys());
    let block = Block { sequence: None, view: *view, first_row: 0, plan: &reduction.plan };
    for (_, band) in sweep(set, &[block])? {
        reduction.push(set, band);
    }
    Ok(reduction)
}
