//! The CPU's row kernels: what plain tensor code would do in several passes over memory, in one. Rows are handled in
//! parallel in tasks of a fixed size, so results do not depend on the number of threads.

use super::lanes::{LANES, exp, load, mul_add, sigmoid, splat, store, sum};
use multiversion::multiversion;
use rayon::prelude::*;

/// Values that a task handles, about.
const TASK_VALUES: usize = 1 << 14;

/// Rows that a task handles.
fn task_rows(width: usize) -> usize {
    (TASK_VALUES / width.max(1)).max(1)
}

/// Where the vectors of a row begin, and how many lanes each has.
#[inline(always)]
fn vectors(width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..width).step_by(LANES).map(move |first| (first, LANES.min(width - first)))
}

/// silu(gate) ⊙ up of rows that hold gate and up side by side, `inner` values each.
pub(super) fn swiglu_forward(h: &[f32], product: &mut [f32], inner: usize) {
    let rows = task_rows(inner);
    let tasks = product.par_chunks_mut(rows * inner).zip(h.par_chunks(rows * 2 * inner));
    tasks.for_each(|(product, h)| swiglu_rows(h, product, inner));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn swiglu_rows(h: &[f32], product: &mut [f32], inner: usize) {
    for (h, product) in h.chunks_exact(2 * inner).zip(product.chunks_exact_mut(inner)) {
        let (gate, up) = h.split_at(inner);
        gated(gate, up, product);
    }
}

/// silu(z) ⊙ m of neighbouring values.
#[inline(always)]
fn gated(z: &[f32], m: &[f32], y: &mut [f32]) {
    for (first, lanes) in vectors(y.len()) {
        let (z, m) = (load(&z[first..], lanes), load(&m[first..], lanes));
        let s = sigmoid(&z);
        let mut out = splat(0.0);
        for lane in 0..LANES {
            out[lane] = z[lane] * s[lane] * m[lane];
        }
        store(&mut y[first..], &out, lanes);
    }
}

/// The gradient of both halves; `product` holds its own gradient and becomes the product again. `dup` is a further
/// gradient of up.
pub(super) fn swiglu_backward(h: &[f32], dup: Option<&[f32]>, product: &mut [f32], dh: &mut [f32], inner: usize) {
    let rows = task_rows(inner);
    let tasks = product.par_chunks_mut(rows * inner).zip(h.par_chunks(rows * 2 * inner));
    tasks.zip(dh.par_chunks_mut(rows * 2 * inner)).enumerate().for_each(|(task, ((product, h), dh))| {
        let from = task * rows * inner;
        swiglu_rows_back(h, dup.map(|dup| &dup[from..from + product.len()]), product, dh, inner);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn swiglu_rows_back(h: &[f32], dup: Option<&[f32]>, product: &mut [f32], dh: &mut [f32], inner: usize) {
    let rows = h.chunks_exact(2 * inner).zip(product.chunks_exact_mut(inner)).zip(dh.chunks_exact_mut(2 * inner));
    for (row, ((h, product), dh)) in rows.enumerate() {
        let (gates, ups) = h.split_at(inner);
        let (dgates, dups) = dh.split_at_mut(inner);
        for (first, lanes) in vectors(inner) {
            let (gate, up) = (load(&gates[first..], lanes), load(&ups[first..], lanes));
            let dproduct = load(&product[first..], lanes);
            let further = dup.map_or(splat(0.0), |dup| load(&dup[row * inner + first..], lanes));
            let s = sigmoid(&gate);
            let [mut out, mut dgate, mut dup] = [splat(0.0); 3];
            for lane in 0..LANES {
                let silu = gate[lane] * s[lane];
                out[lane] = silu * up[lane];
                dup[lane] = mul_add(dproduct[lane], silu, further[lane]);
                dgate[lane] = dproduct[lane] * up[lane] * s[lane] * (1.0 + gate[lane] * (1.0 - s[lane]));
            }
            store(&mut product[first..], &out, lanes);
            store(&mut dgates[first..], &dgate, lanes);
            store(&mut dups[first..], &dup, lanes);
        }
    }
}

/// silu(z) ⊙ m.
pub(super) fn gate_forward(z: &[f32], m: &[f32], y: &mut [f32]) {
    let tasks = y.par_chunks_mut(TASK_VALUES).zip(z.par_chunks(TASK_VALUES)).zip(m.par_chunks(TASK_VALUES));
    tasks.for_each(|((y, z), m)| gate_values(z, m, y));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gate_values(z: &[f32], m: &[f32], y: &mut [f32]) {
    gated(z, m, y);
}

/// The gradients of z and m.
pub(super) fn gate_backward(dy: &[f32], z: &[f32], m: &[f32], dz: &mut [f32], dm: &mut [f32]) {
    let gradients = dz.par_chunks_mut(TASK_VALUES).zip(dm.par_chunks_mut(TASK_VALUES));
    let inputs = dy.par_chunks(TASK_VALUES).zip(z.par_chunks(TASK_VALUES)).zip(m.par_chunks(TASK_VALUES));
    gradients.zip(inputs).for_each(|((dz, dm), ((dy, z), m))| gate_values_back(dy, z, m, dz, dm));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gate_values_back(dy: &[f32], z: &[f32], m: &[f32], dz: &mut [f32], dm: &mut [f32]) {
    for (first, lanes) in vectors(dy.len()) {
        let [dy, z, m] = [dy, z, m].map(|values| load(&values[first..], lanes));
        let s = sigmoid(&z);
        let [mut to_z, mut to_m] = [splat(0.0); 2];
        for lane in 0..LANES {
            to_m[lane] = dy[lane] * z[lane] * s[lane];
            to_z[lane] = dy[lane] * m[lane] * s[lane] * (1.0 + z[lane] * (1.0 - s[lane]));
        }
        store(&mut dz[first..], &to_z, lanes);
        store(&mut dm[first..], &to_m, lanes);
    }
}

/// What a norm's kernels read besides the stream.
#[derive(Clone, Copy)]
pub(super) struct NormSettings<'a> {
    pub gain: &'a [f32],
    /// Of a layer norm.
    pub bias: Option<&'a [f32]>,
    /// Multiplies the branch.
    pub branch_scale: f32,
    /// Multiplies the result.
    pub out_scale: f32,
    pub epsilon: f32,
}

/// The new stream x + r·branch, where there is a branch, its norm, and two values of each row for the backward pass: its
/// mean, of a layer norm, and 1 / rms.
pub(super) fn norm_forward(
    x: &[f32],
    branch: Option<(&[f32], &mut [f32])>,
    settings: NormSettings,
    n: &mut [f32],
    statistics: &mut [f32],
) {
    let width = settings.gain.len();
    let rows = task_rows(width);
    let out = n.par_chunks_mut(rows * width).zip(statistics.par_chunks_mut(2 * rows));
    match branch {
        Some((branch, stream)) => {
            let streams = stream.par_chunks_mut(rows * width).zip(branch.par_chunks(rows * width));
            out.zip(x.par_chunks(rows * width)).zip(streams).for_each(|(((n, statistics), x), (stream, branch))| {
                add_rows(x, branch, settings.branch_scale, stream);
                norm_rows(stream, settings, n, statistics);
            });
        }
        None => {
            out.zip(x.par_chunks(rows * width)).for_each(|((n, statistics), x)| norm_rows(x, settings, n, statistics))
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(x: &[f32], branch: &[f32], scale: f32, out: &mut [f32]) {
    for ((out, x), branch) in out.iter_mut().zip(x).zip(branch) {
        *out = x + branch * scale;
    }
}

/// Lane-wise sums over a row.
#[inline(always)]
fn sum_row(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut total = splat(0.0);
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            total[lane] += term(values[lane]);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        total[lane] += term(*value);
    }
    sum(&total)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn norm_rows(x: &[f32], settings: NormSettings, n: &mut [f32], statistics: &mut [f32]) {
    let NormSettings { gain, bias, out_scale, epsilon, .. } = settings;
    let width = gain.len();
    let rows = x.chunks_exact(width).zip(n.chunks_exact_mut(width)).zip(statistics.chunks_exact_mut(2));
    for ((x, n), statistics) in rows {
        let mean = if bias.is_some() { sum_row(x, |v| v) / width as f32 } else { 0.0 };
        let rstd = 1.0 / (sum_row(x, |v| (v - mean) * (v - mean)) / width as f32 + epsilon).sqrt();
        statistics.copy_from_slice(&[mean, rstd]);
        match bias {
            None => {
                for i in 0..width {
                    n[i] = x[i] * rstd * gain[i] * out_scale;
                }
            }
            Some(bias) => {
                for i in 0..width {
                    n[i] = ((x[i] - mean) * rstd * gain[i] + bias[i]) * out_scale;
                }
            }
        }
    }
}

/// Where a norm's gradients go.
pub(super) struct NormGradients<'a> {
    /// Of the old stream.
    pub x: &'a mut [f32],
    pub branch: Option<&'a mut [f32]>,
    pub gain: &'a mut [f32],
    pub bias: Option<&'a mut [f32]>,
}

/// From the gradients of the norm and, where it goes on, of the stream.
pub(super) fn norm_backward(
    dn: &[f32],
    dstream: Option<&[f32]>,
    stream: &[f32],
    statistics: &[f32],
    settings: NormSettings,
    out: NormGradients,
) {
    let width = settings.gain.len();
    let rows = task_rows(width);
    let columns = if out.bias.is_some() { 2 * width } else { width };
    let tasks = out.x.par_chunks_mut(rows * width).zip(dn.par_chunks(rows * width));
    let tasks = tasks.zip(stream.par_chunks(rows * width)).zip(statistics.par_chunks(2 * rows)).enumerate();
    // Sums of a task's rows for gain and bias.
    let parts: Vec<Vec<f32>> = tasks
        .map(|(task, (((dx, dn), stream), statistics))| {
            let from = task * rows * width;
            let arriving = dstream.map(|d| &d[from..from + dx.len()]);
            let mut sums = vec![0.0; columns];
            norm_rows_back(dn, arriving, stream, statistics, settings, dx, &mut sums);
            sums
        })
        .collect();
    let mut totals = vec![0.0; columns];
    for part in &parts {
        for (total, value) in totals.iter_mut().zip(part) {
            *total += value;
        }
    }
    out.gain.copy_from_slice(&totals[..width]);
    if let Some(bias) = out.bias {
        bias.copy_from_slice(&totals[width..]);
    }
    if let Some(branch) = out.branch {
        let scale = settings.branch_scale;
        branch.par_chunks_mut(TASK_VALUES).zip(out.x.par_chunks(TASK_VALUES)).for_each(|(branch, x)| {
            for (branch, x) in branch.iter_mut().zip(x) {
                *branch = x * scale;
            }
        });
    }
}

/// With x̂ = (x − mean) rstd and u = dn s gain: dx = dx_in + rstd (u − x̂ mean(u x̂)), for a layer norm − rstd mean(u)
/// besides; dgain = Σ dn s x̂, dbias = Σ dn s.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn norm_rows_back(
    dn: &[f32],
    arriving: Option<&[f32]>,
    stream: &[f32],
    statistics: &[f32],
    settings: NormSettings,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let NormSettings { gain, bias, out_scale, .. } = settings;
    let width = gain.len();
    let (dgain, dbias) = sums.split_at_mut(width);
    let rows = dn.chunks_exact(width).zip(stream.chunks_exact(width)).zip(statistics.chunks_exact(2));
    for (row, (((dn, x), statistics), dx)) in rows.zip(dx.chunks_exact_mut(width)).enumerate() {
        let (mean, rstd) = (statistics[0], statistics[1]);
        let mut along = splat(0.0);
        let mut constant = splat(0.0);
        for (first, lanes) in vectors(width) {
            let [d, x, g] = [dn, x, gain].map(|values| load(&values[first..], lanes));
            let mut to_gain = load(&dgain[first..], lanes);
            for lane in 0..LANES {
                let normed = (x[lane] - mean) * rstd;
                let d = d[lane] * out_scale;
                to_gain[lane] = mul_add(d, normed, to_gain[lane]);
                let u = d * g[lane];
                // Lanes past the row's end have u = 0.
                along[lane] = mul_add(u, normed, along[lane]);
                constant[lane] += u;
            }
            store(&mut dgain[first..], &to_gain, lanes);
        }
        let along = sum(&along) / width as f32;
        let constant = if bias.is_some() { sum(&constant) / width as f32 } else { 0.0 };
        for i in 0..width {
            let normed = (x[i] - mean) * rstd;
            dx[i] = rstd * (dn[i] * out_scale * gain[i] - normed * along - constant);
        }
        if let Some(arriving) = arriving {
            for (dx, arriving) in dx.iter_mut().zip(&arriving[row * width..]) {
                *dx += arriving;
            }
        }
        for (dbias, dn) in dbias.iter_mut().zip(dn) {
            *dbias += dn * out_scale;
        }
    }
}

/// −ln softmax(logits)[target] of rows of `vocab` logits; with a scale, logits become their gradient times it. A row
/// whose target is negative counts for nothing.
pub(super) fn cross_entropy(
    logits: &mut [f32],
    targets: &[i64],
    losses: &mut [f32],
    vocab: usize,
    gradient_scale: Option<f32>,
) {
    let rows = task_rows(vocab);
    let tasks = logits.par_chunks_mut(rows * vocab).zip(targets.par_chunks(rows)).zip(losses.par_chunks_mut(rows));
    tasks.for_each(|((logits, targets), losses)| loss_rows(logits, targets, losses, vocab, gradient_scale));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn loss_rows(logits: &mut [f32], targets: &[i64], losses: &mut [f32], vocab: usize, gradient_scale: Option<f32>) {
    for ((row, target), loss) in logits.chunks_exact_mut(vocab).zip(targets).zip(losses) {
        let Ok(target) = usize::try_from(*target) else {
            *loss = 0.0;
            if gradient_scale.is_some() {
                row.fill(0.0);
            }
            continue;
        };
        let mut largest = splat(f32::NEG_INFINITY);
        for (first, lanes) in vectors(vocab) {
            for (largest, value) in largest.iter_mut().zip(&row[first..first + lanes]) {
                // Keeps a NaN, unlike f32::max.
                *largest = if *value <= *largest { *largest } else { *value };
            }
        }
        let largest = largest.iter().fold(f32::NEG_INFINITY, |a, b| if *b <= a { a } else { *b });
        let logit = row[target];
        let mut total = splat(0.0);
        for (first, lanes) in vectors(vocab) {
            let mut shifted = load(&row[first..], lanes);
            for lane in 0..LANES {
                shifted[lane] -= largest;
            }
            let mass = exp(&shifted);
            for lane in 0..lanes {
                total[lane] += mass[lane];
            }
            if gradient_scale.is_some() {
                store(&mut row[first..], &mass, lanes);
            }
        }
        let total = sum(&total);
        *loss = total.ln() + largest - logit;
        if let Some(scale) = gradient_scale {
            let factor = scale / total;
            for value in row.iter_mut() {
                *value *= factor;
            }
            row[target] -= scale;
        }
    }
}
