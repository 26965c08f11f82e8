//! Kernels against their references: outputs and gradients, odd lengths and widths.

use super::{distance, set_up};
use lossfloor::ops::Backend;
use lossfloor::ops::attention::{AttentionOptions, attention};
use lossfloor::ops::causal_conv1d::{Activation, causal_conv1d};
use lossfloor::ops::gate::gate;
use lossfloor::ops::linear::{Weight, linear};
use lossfloor::ops::norm::{NormScales, NormWeights, add_norm};
use lossfloor::ops::readout::{mean_loss, token_losses};
use lossfloor::ops::selective_scan::{ScanInputs, selective_scan};
use lossfloor::ops::swiglu::swiglu;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// fp32 rounding over a thousand steps of a recurrence, an order above what is seen.
const TOLERANCE: f64 = 2e-5;

fn uniform(rng: &mut ChaCha8Rng, shape: &[i64]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Tensor::from_slice(&values).reshape(shape).set_requires_grad(true)
}

/// Output and gradients of `run` for a fixed direction.
fn gradients(run: impl Fn() -> Tensor, leaves: &[&Tensor], dy: &Tensor) -> Vec<Tensor> {
    let y = run();
    let mut all = Tensor::run_backward(&[(&y * dy).sum(Kind::Float)], leaves, false, false);
    all.insert(0, y);
    all
}

fn agree(what: &str, run: impl Fn(Backend) -> Tensor, leaves: &[&Tensor]) {
    let size = run(Backend::Reference).size();
    // A scalar is a loss: fused passes start from a gradient of one.
    let dy = match size.as_slice() {
        [] => Tensor::from(1f32),
        size => uniform(&mut ChaCha8Rng::seed_from_u64(9), size).detach(),
    };
    let ours = gradients(|| run(Backend::Fused), leaves, &dy);
    let reference = gradients(|| run(Backend::Reference), leaves, &dy);
    for (index, (ours, reference)) in ours.iter().zip(&reference).enumerate() {
        let error = distance(ours, reference);
        assert!(error < TOLERANCE, "{what}, tensor {index}: {error:e}");
    }
}

#[test]
fn row_kernels_agree_with_plain_code() {
    set_up();
    // Widths around the kernels' vectors, and more rows than one task takes.
    for (rows, width) in [(1, 1), (3, 15), (5, 16), (7, 33), (700, 48)] {
        let rng = &mut ChaCha8Rng::seed_from_u64(width as u64);
        let (x, h) = (uniform(rng, &[1, rows, width]), uniform(rng, &[1, rows, width]));
        let (gain, bias) = (uniform(rng, &[width]), uniform(rng, &[width]));
        let scales = NormScales { branch: 0.25, output: 0.5 };
        for (branch, centered) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut leaves = vec![&x, &gain];
            if branch {
                leaves.push(&h);
            }
            if centered {
                // One value less its mean is nothing: no norm of it has a gradient worth comparing.
                if width == 1 {
                    continue;
                }
                leaves.push(&bias);
            }
            let what = format!("norm {rows} x {width}, branch {branch}, centered {centered}");
            let run = |backend| {
                let weights = NormWeights { gain: &gain, bias: centered.then_some(&bias) };
                let (stream, n) = add_norm(&x, branch.then_some(&h), weights, scales, Kind::Float, backend);
                stream * 0.3 + n
            };
            agree(&what, run, &leaves);
        }
        agree(&format!("gate {rows} x {width}"), |backend| gate(&x, &h, backend), &[&x, &h]);
        let weight = |t: &Tensor| Weight::new(vec![t.shallow_clone()], None);
        let (w1, w3) = (uniform(rng, &[2 * width + 6, width]), uniform(rng, &[width, width + 3]));
        agree(&format!("linear {rows} x {width}"), |backend| linear(&x, &weight(&w1), backend), &[&x, &w1]);
        let mlp = |backend| {
            let (y, up) = swiglu(&x, &weight(&w1), &weight(&w3), true, backend);
            Tensor::cat(&[y, up.expect("it is wanted")], -1)
        };
        agree(&format!("swiglu {rows} x {width}"), mlp, &[&x, &w1, &w3]);
    }
}

#[test]
fn readout_kernel_agrees_with_plain_code() {
    set_up();
    // The last needs more than one part.
    for (rows, width, vocab) in [(1, 4, 7), (9, 20, 256), (5, 8, 1001), (1500, 6, 256)] {
        let rng = &mut ChaCha8Rng::seed_from_u64(vocab as u64);
        let (x, table) = (uniform(rng, &[1, rows, width]), uniform(rng, &[vocab, width]));
        let table = (table * 3.0).detach().set_requires_grad(true);
        let targets = Tensor::arange(rows, (Kind::Int64, tch::Device::Cpu)).remainder(vocab).view([1, rows]);
        let weight = || Weight::new(vec![table.shallow_clone()], None);
        let what = format!("{rows} x {width}, vocabulary {vocab}");
        agree(&what, |backend| mean_loss(&x, &weight(), &targets, 0.5, backend), &[&x, &table]);
        let [ours, reference] =
            [Backend::Fused, Backend::Reference].map(|backend| token_losses(&x, &weight(), &targets, backend));
        assert!(distance(&ours, &reference) < TOLERANCE, "losses of {what}");
    }
}

/// A scan without skip, gate and bias.
fn bare_scan(x: &Tensor, delta: &Tensor, a: &Tensor, [b, c]: [&Tensor; 2], backend: Backend) -> Tensor {
    let inputs = ScanInputs {
        x_btd: x,
        delta_btd: delta,
        a_dn: a,
        b_btn: b,
        c_btn: c,
        d_d: None,
        z_btd: None,
        delta_bias_d: None,
        initial_bdn: None,
        softplus: true,
    };
    selective_scan(&inputs, backend).y_btd
}

#[test]
fn scan_kernel_keeps_steps_whose_decay_leaves_the_range_of_fp32() {
    set_up();
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let (x, b, c) = (uniform(rng, &[2, 70, 20]), uniform(rng, &[2, 70, 16]), uniform(rng, &[2, 70, 16]));
    // Every third step is up to 60 long, A down to -11: 2^-900.
    let stretch = Tensor::arange(70, (Kind::Int64, tch::Device::Cpu)).remainder(3).eq(0).to_kind(Kind::Float) * 60.0;
    let delta = (uniform(rng, &[2, 70, 20]) * stretch.view([1, 70, 1])).detach().set_requires_grad(true);
    let a = (-uniform(rng, &[20, 16]).exp() * 4.0).detach().set_requires_grad(true);
    let run = |backend| bare_scan(&x, &delta, &a, [&b, &c], backend);
    agree("long steps", run, &[&x, &delta, &a, &b, &c]);
}

#[test]
fn scan_kernel_agrees_with_the_loop() {
    set_up();
    // Lengths around the kernel's chunk, widths around its vector.
    for (batch, time, channels) in
        [(1, 1, 1), (2, 31, 15), (1, 32, 16), (2, 33, 17), (1, 63, 40), (3, 64, 8), (1, 1000, 33)]
    {
        let rng = &mut ChaCha8Rng::seed_from_u64(time as u64);
        let (x, delta) = (uniform(rng, &[batch, time, channels]), uniform(rng, &[batch, time, channels]));
        let a = (-uniform(rng, &[channels, 16]).exp() * 4.0).detach().set_requires_grad(true);
        let (b, c) = (uniform(rng, &[batch, time, 16]), uniform(rng, &[batch, time, 16]));
        let (d, bias) = (uniform(rng, &[channels]), uniform(rng, &[channels]));
        let z = uniform(rng, &[batch, time, channels]);
        for gated in [true, false] {
            let run = |backend| {
                let inputs = ScanInputs {
                    x_btd: &x,
                    delta_btd: &delta,
                    a_dn: &a,
                    b_btn: &b,
                    c_btn: &c,
                    d_d: Some(&d),
                    z_btd: gated.then_some(&z),
                    delta_bias_d: Some(&bias),
                    initial_bdn: None,
                    softplus: true,
                };
                selective_scan(&inputs, backend).y_btd
            };
            let mut leaves = vec![&x, &delta, &b, &c, &d, &bias];
            if gated {
                leaves.push(&z);
            }
            // With one step the state starts at zero, so A has no gradient to compare.
            if time > 1 {
                leaves.push(&a);
            }
            agree(&format!("scan {batch} x {time} x {channels}, gated {gated}"), run, &leaves);
        }
    }
}

#[test]
fn scan_does_not_depend_on_the_number_of_threads() {
    set_up();
    let run = || {
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let (x, delta) = (uniform(rng, &[2, 100, 50]), uniform(rng, &[2, 100, 50]));
        let a = (-uniform(rng, &[50, 16]).exp()).detach().set_requires_grad(true);
        let (b, c) = (uniform(rng, &[2, 100, 16]), uniform(rng, &[2, 100, 16]));
        let y = bare_scan(&x, &delta, &a, [&b, &c], Backend::Fused);
        Tensor::run_backward(&[y.square().sum(Kind::Float)], &[&x, &delta, &a, &b, &c], false, false)
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let (one, three) = (pool(1).install(run), pool(3).install(run));
    for (one, three) in one.iter().zip(&three) {
        assert!(one.equal(three));
    }
}

#[test]
fn convolution_kernel_agrees_with_libtorch() {
    set_up();
    for (batch, time, channels) in [(1, 1, 1), (2, 2, 15), (1, 3, 16), (2, 100, 17), (1, 1000, 40)] {
        let rng = &mut ChaCha8Rng::seed_from_u64(time as u64);
        let (x, w, bias) =
            (uniform(rng, &[batch, time, channels]), uniform(rng, &[channels, 4]), uniform(rng, &[channels]));
        for activation in [Activation::Silu, Activation::None] {
            let run = |backend| causal_conv1d(&x, &w, &bias, activation, backend);
            agree(&format!("convolution {batch} x {time} x {channels}"), run, &[&x, &w, &bias]);
        }
    }
}

#[test]
fn attention_agrees_with_dense_masks() {
    set_up();
    for (time, window) in
        [(1, Some(4)), (7, Some(1)), (8, Some(8)), (9, Some(8)), (64, Some(8)), (100, Some(16)), (50, None)]
    {
        let rng = &mut ChaCha8Rng::seed_from_u64(time as u64);
        let (q, k, v) =
            (uniform(rng, &[2, time, 4, 8]), uniform(rng, &[2, time, 2, 8]), uniform(rng, &[2, time, 2, 8]));
        let options = AttentionOptions { scale: 0.5, window };
        let run = |backend| attention(&q, &k, &v, options, backend);
        // A single key leaves nothing for the softmax to weigh: q and k have no gradient.
        let leaves: Vec<&Tensor> = if time == 1 || window == Some(1) { vec![&v] } else { vec![&q, &k, &v] };
        agree(&format!("attention, {time} steps, window {window:?}"), run, &leaves);
    }
}
