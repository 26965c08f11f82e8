//! Linear least squares with coefficients that may not be negative, for a handful of columns.

/// The best coefficients ≥ 0 of `columns`, given as slices of equal length; and the sum of squares left over.
///
/// Columns are orthogonalised rather than squared, since those of small exponents are nearly parallel. When a
/// coefficient turns out negative, subsets of columns are tried, which for so few of them is both exact and fast; but
/// not those of a set that already leaves more than the best.
pub fn non_negative(columns: &[Vec<f64>], y: &[f64], scratch: &mut Scratch) -> (Vec<f64>, f64) {
    let all: u32 = (1 << columns.len()) - 1;
    let mut best = (vec![0.0; columns.len()], y.iter().map(|y| y * y).sum());
    // What each set of columns leaves over at the least. From larger numbers to smaller ones, it precedes its subsets.
    let mut least = [0.0; 1 << MOST];
    for set in (1..=all).rev() {
        let absent = (0..columns.len()).filter(|k| set >> k & 1 == 0);
        let of_larger = absent.map(|k| least[(set | 1 << k) as usize]).fold(0.0, f64::max);
        least[set as usize] = of_larger;
        if of_larger >= best.1 {
            continue;
        }
        let Some(found) = unconstrained(columns, y, set, scratch) else { continue };
        least[set as usize] = found.1;
        if found.0.iter().all(|c| *c >= 0.0) && found.1 < best.1 {
            best = found;
        }
    }
    best
}

/// Columns at most; no law has as many terms.
const MOST: usize = 6;

/// Memory of a solution, kept from one to the next.
#[derive(Default)]
pub struct Scratch {
    basis: Vec<Vec<f64>>,
    rest: Vec<f64>,
}

/// Least squares over the columns in `set`; `None` when they are linearly dependent.
fn unconstrained(columns: &[Vec<f64>], y: &[f64], set: u32, scratch: &mut Scratch) -> Option<(Vec<f64>, f64)> {
    use super::vector::{add_scaled, dot};
    let kept: Vec<usize> = (0..columns.len()).filter(|k| set >> k & 1 == 1).collect();
    let p = kept.len();
    debug_assert!(p <= MOST);
    let (mut r, mut share) = ([[0.0; MOST]; MOST], [0.0; MOST]);
    scratch.basis.resize(scratch.basis.len().max(p), Vec::new());
    scratch.rest.clear();
    scratch.rest.extend_from_slice(y);
    // Backwards, so that the floor, which comes last, is taken out of the others first.
    for (i, k) in kept.iter().rev().enumerate() {
        let (done, open) = scratch.basis.split_at_mut(i);
        let q = &mut open[0];
        q.clear();
        q.extend_from_slice(&columns[*k]);
        let before = dot(q, q);
        for (j, earlier) in done.iter().enumerate() {
            r[j][i] = dot(earlier, q);
            add_scaled(-r[j][i], earlier, q);
        }
        let norm = dot(q, q);
        if norm <= 1e-24 * before || norm.is_nan() {
            return None;
        }
        let norm = norm.sqrt();
        r[i][i] = norm;
        q.iter_mut().for_each(|value| *value *= 1.0 / norm);
        share[i] = dot(q, &scratch.rest);
        add_scaled(-share[i], q, &mut scratch.rest);
    }
    let mut out = vec![0.0; columns.len()];
    for i in (0..p).rev() {
        let known: f64 = (i + 1..p).map(|j| r[i][j] * out[kept[p - 1 - j]]).sum();
        out[kept[p - 1 - i]] = (share[i] - known) / r[i][i];
    }
    Some((out, dot(&scratch.rest, &scratch.rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_coefficient_is_left_out() {
        let line = |a: f64, b: f64| -> Vec<f64> { (0..6).map(|i| a + b * f64::from(i)).collect() };
        let columns = [line(0.0, 1.0), line(1.0, 0.0)];
        let (c, sse) = non_negative(&columns, &line(2.0, 3.0), &mut Scratch::default());
        assert!((c[0] - 3.0).abs() < 1e-12 && (c[1] - 2.0).abs() < 1e-12 && sse < 1e-24);
        let (c, sse) = non_negative(&columns, &line(2.0, -1.0), &mut Scratch::default());
        // The mean, -0.5, is negative too: only nothing is left.
        assert_eq!((c, sse), (vec![0.0, 0.0], 4.0 + 1.0 + 0.0 + 1.0 + 4.0 + 9.0));
        let (c, _) = non_negative(&columns, &line(6.0, -1.0), &mut Scratch::default());
        assert!(c[0] == 0.0 && (c[1] - 3.5).abs() < 1e-12);
    }
}
