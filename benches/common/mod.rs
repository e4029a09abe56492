//! What the benches and the count of instructions have in common: attention, and everything made of it in
//! one pass.

use hallutrace::attention::{BatchView, Elements, Layout};
use hallutrace::error::InputError;
use hallutrace::reduce::{LayerReducer, SequenceShape};
use hallutrace::sparsify::{Combine, Rules};

/// `[heads, tokens, tokens]`, causal softmax rows over uniform logits in (-6, 6).
pub fn attention(heads: usize, tokens: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 * 2.0_f32.powi(-24)
    };
    let mut weights = vec![0.0; heads * tokens * tokens];
    for (number, row) in weights.chunks_exact_mut(tokens).enumerate() {
        let row = &mut row[..=number % tokens];
        for weight in &mut *row {
            *weight = (12.0 * unit() - 6.0).exp();
        }
        let sum: f32 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    weights
}

/// Head mean, top-16 and all marginals of all rows; gives the number of edges.
pub fn all_in_one(elements: Elements<'_>, layout: Layout) -> Result<usize, InputError> {
    let prompt = layout.keys / 2;
    let shape = SequenceShape { tokens: layout.keys, prompt, segments: vec![1, prompt] };
    let selection = (Rules::new(Some(16), 0.0, None)?, Combine::Mean);
    let mut reducer = LayerReducer::new(layout.heads, vec![shape], selection, false, true)?;
    reducer.push(&BatchView::new(elements, layout, 1, 0)?, 0)?;
    Ok(reducer.finish()?[0].keys.len())
}
