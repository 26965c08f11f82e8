#!/usr/bin/env python3
"""How long the usual Python tools take for the fits that `lossfloor fit` does.

    python3 -m venv venv && venv/bin/pip install numpy scipy
    venv/bin/python scripts/bench_fits_scipy.py                  # everything, a few minutes on two cores
    venv/bin/python scripts/bench_fits_scipy.py --grid 100 --boots 40 --groups 10     # a quick look

Data: tests/data/fits/chinchilla.csv without its five highest losses (240 runs). Form: L = A N^-alpha + B D^-beta + E in
the logarithms of A, B and E. Objective: the sum of Huber(1e-3) over the residuals of log L. The 4,500 starts are those
of Hoffmann et al. (2022). Two processes with one BLAS thread each unless --procs says otherwise. When fewer starts,
replicates or groups than the full number are run, the time of the full number is extrapolated, and the line says so.
"""
import os
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy: the processes share the cores, not the libraries
import argparse, csv, itertools, pathlib, time, warnings
from multiprocessing import Pool
import numpy as np
import scipy
from scipy.optimize import brentq, curve_fit, minimize, minimize_scalar
from scipy.stats import f as f_distribution

warnings.filterwarnings("ignore")
DELTA = 1e-3
FULL = {"grid": 4500, "boots": 4000, "groups": 10000}


def read(path):
    with open(path) as file:
        rows = [(float(r["n"]), float(r["d"]), float(r["loss"])) for r in csv.DictReader(file)]
    n, d, loss = np.array(rows).T
    keep = loss < np.sort(loss)[-5]
    return np.log(n[keep]), np.log(d[keep]), np.log(loss[keep])


DATA = read(pathlib.Path(__file__).resolve().parent.parent / "tests/data/fits/chinchilla.csv")


def value_and_gradient(p, x, z, y):
    a, b, e, alpha, beta = p
    u, v, w = a - alpha * x, b - beta * z, np.full_like(x, e)
    log_sum = np.logaddexp(np.logaddexp(u, v), w)
    r = log_sum - y
    size = np.abs(r)
    value = np.where(size <= DELTA, r * r / 2, DELTA * (size - DELTA / 2)).sum()
    slope = np.clip(r, -DELTA, DELTA)
    u, v, w = (slope * np.exp(t - log_sum) for t in (u, v, w))
    return value, np.array([u.sum(), v.sum(), w.sum(), -u @ x, -v @ z])


def value_only(p, x, z, y):
    return value_and_gradient(p, x, z, y)[0]


def grid_fit(job):
    start, analytic = job
    function = value_and_gradient if analytic else value_only
    return minimize(function, start, args=DATA, jac=analytic or None, method="L-BFGS-B").fun


def polish(start, data):
    return minimize(value_and_gradient, start, args=data, jac=True, method="BFGS", options={"gtol": 1e-7})


def resample_fit(job):
    seed, start = job
    pick = np.random.default_rng(seed).integers(0, len(DATA[0]), len(DATA[0]))
    return polish(start, tuple(v[pick] for v in DATA)).x


def power_floor(x, a, b, c):
    return a * x**-b + c


def profile_rss(c, x, y):
    """Residual sum of squares of the power law with its floor fixed, smallest over the exponent."""
    def rss(b):
        t = x**-b
        r = y - c - t * (t @ (y - c)) / (t @ t)
        return r @ r
    return minimize_scalar(rss, bounds=(1e-4, 3), method="bounded", options={"xatol": 1e-10}).fun


def group_fit(seed):
    """Six noisy points over three decades: the fit and the 95 % profile interval (F quantile) of its floor."""
    rng = np.random.default_rng(seed)
    x = np.logspace(0, 3, 6)
    y = power_floor(x, rng.uniform(0.5, 2), rng.uniform(0.2, 0.5), rng.uniform(1, 2)) + rng.normal(0, 0.002, 6)
    bounds = ([0, 0, 0], [np.inf, 3, y.min()])
    p, _ = curve_fit(power_floor, x, y, p0=[y[0] - 0.95 * y.min(), 0.3, 0.95 * y.min()], bounds=bounds, maxfev=10000)
    r = y - power_floor(x, *p)
    limit = (r @ r) * (1 + f_distribution.ppf(0.95, 1, 3) / 3)
    excess = lambda c: profile_rss(c, x, y) - limit
    top, ends = y.min() - 1e-9, []
    for edge in (0.0, top):
        inside = excess(edge) <= 0 or excess(p[2]) >= 0
        ends.append(edge if inside else brentq(excess, *sorted((edge, p[2])), xtol=1e-7))
    return p[2], ends[0], ends[1]


def timed(pool, label, function, jobs, full):
    began = time.perf_counter()
    result = pool.map(function, jobs, chunksize=max(1, len(jobs) // 200))
    wall = time.perf_counter() - began
    note = "" if len(jobs) == full else f"   extrapolated to {full}: {wall * full / len(jobs):.1f} s"
    print(f"{label:<52} {len(jobs):>6} in {wall:8.2f} s wall{note}", flush=True)
    return result


def main():
    option = argparse.ArgumentParser(description="times of numpy and scipy for the fits of lossfloor")
    option.add_argument("--procs", type=int, default=2)
    option.add_argument("--grid", type=int, default=FULL["grid"], help="how many of the 4,500 starts")
    option.add_argument("--boots", type=int, default=FULL["boots"], help="pairs-bootstrap replicates")
    option.add_argument("--groups", type=int, default=200, help="groups of six points (of 10,000)")
    args = option.parse_args()
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, {args.procs} processes, {len(DATA[0])} runs")
    exponents = (0, 0.5, 1, 1.5, 2)
    starts = list(itertools.product(range(0, 30, 5), range(0, 30, 5), (-1, -0.5, 0, 0.5, 1), exponents, exponents))
    starts = [starts[i] for i in np.random.default_rng(0).permutation(len(starts))[: args.grid]]
    best = polish(np.array([6.0, 7.6, 0.6, 0.35, 0.37]), DATA)
    for _ in range(3):
        best = min(best, polish(best.x, DATA), key=lambda fit: fit.fun)
    runs, began = 20, time.perf_counter()
    for _ in range(runs):
        polish(np.log([406.4, 410.7, 1.69, 1, 1]) + [0, 0, 0, 0.34, 0.28], DATA)
    each = (time.perf_counter() - began) / runs
    print(f"{'one fit from the published parameters (BFGS)':<52} {1:>6} in {each:8.4f} s wall")
    a, b, e, alpha, beta = best.x
    print(f"optimum: objective {best.fun:.16f}, A {np.exp(a):.4f}, B {np.exp(b):.3f}, E {np.exp(e):.6f}, "
          f"alpha {alpha:.6f}, beta {beta:.6f}")
    with Pool(args.procs) as pool:
        for analytic, label in ((True, "analytic gradient"), (False, "finite differences")):
            jobs = [(np.array(s, float), analytic) for s in starts]
            found = np.array(timed(pool, f"grid of starts, L-BFGS-B, {label}", grid_fit, jobs, FULL["grid"]))
            print(f"    starts that reach the optimum: to 1e-9 {np.mean(found <= best.fun + 1e-9):.1%}, "
                  f"to 1 % {np.mean(found <= best.fun * 1.01):.1%}; best objective {found.min():.12f}")
        jobs = [(seed, best.x) for seed in range(args.boots)]
        refits = timed(pool, "pairs bootstrap, BFGS from the optimum", resample_fit, jobs, FULL["boots"])
        spread = np.std(refits, axis=0)
        print(f"    standard errors of log A, log B, log E, alpha, beta: {np.array2string(spread, precision=4)}")
        label = "groups of six points: curve_fit and profile interval"
        floors = timed(pool, label, group_fit, range(args.groups), FULL["groups"])
        width = [high - low for _, low, high in floors]
        print(f"    median width of the interval of the floor: {np.median(width):.3f}")


if __name__ == "__main__":
    main()
