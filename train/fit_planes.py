"""Fit `entropy.planes.PlanePrior` in closed form: weighted least squares for means and scales, counting for the tables.

Step by step in the order of coding, on what the integers of the earlier steps give, so nothing is fitted to values a decoder will not see.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.planes import (
    BOUND,
    MEAN_BITS,
    QUARTERS,
    SCALE_BITS,
    SCALE_UNIT,
    PlanePrior,
    Planes,
    Step,
    View,
    feature_peaks,
    predict_mean,
    predict_scale,
    steps,
)
from latentpress.entropy.tables import Tables

CLASSES = 32
ROUNDS = 3  # of reweighting
PSEUDO = 32.0  # counts that a Laplace law of the row's scale adds


def fit(images: list[Planes], peak: int) -> PlanePrior:
    """images: int32 [channels, h, w] each, of any sizes."""
    channels = images[0].shape[0]
    views = [View(channels, (i.shape[1], i.shape[2])) for i in images]
    means: list[tuple[NDArray[np.int64], int]] = []
    scales: list[tuple[NDArray[np.int64], int]] = []
    seen: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []  # value, mean, scale
    order = steps(channels)
    for index, step in enumerate(order):
        target = np.concatenate([i[step.channel][step.points(v.size)].ravel() for i, v in zip(images, views, strict=True)])
        mean_features = np.concatenate([v.for_mean(step).reshape(-1, _count(v, step)) for v in views], 1)
        scale_features = np.concatenate([v.for_scale(step).reshape(-1, _count(v, step)) for v in views], 1)
        mean_peaks, scale_peaks = feature_peaks(step, peak)
        weight = np.ones(len(target))
        for _ in range(2):  # the second time weighted by how well each point can be known
            mean_fit = to_integers(*regress(mean_features, target * float(QUARTERS), weight), MEAN_BITS, mean_peaks)
            mean = predict_mean(mean_fit[0].astype(np.float32), mean_fit[1], mean_features, len(target), peak)
            misses = np.abs(QUARTERS * target - mean)
            scale_fit = to_integers(*regress_scale(scale_features, misses), SCALE_BITS, scale_peaks)
            scale = predict_scale(scale_fit[0].astype(np.float32), scale_fit[1], scale_features, len(target))
            weight = 1 / np.maximum(scale / SCALE_UNIT, 1.0) ** 2
        means.append(mean_fit)
        scales.append(scale_fit)
        seen.append((target, mean, scale))
        _fill(views, images, step, misses)
        if index + 1 == len(order) or order[index + 1].channel != step.channel:
            for view in views:
                view.finish(step.channel)
    thresholds, tables = count_tables(*(np.concatenate(part) for part in zip(*seen, strict=True)))
    return PlanePrior(
        channels, peak, np.concatenate([w for w, _ in means]).astype(np.int16), np.array([b for _, b in means], np.int32),
        np.concatenate([w for w, _ in scales]).astype(np.int16), np.array([b for _, b in scales], np.int32), thresholds, tables,
    )  # fmt: skip


def _count(view: View, step: Step) -> int:
    return int(view.values[0, :-1, :-1][step.points(view.size)].size)


def _fill(views: list[View], images: list[Planes], step: Step, misses: NDArray[np.int32]) -> None:
    begin = 0
    for view, image in zip(views, images, strict=True):
        channel, points = step.channel, step.points(view.size)
        values = image[channel][points]
        view.values[channel, :-1, :-1][points] = values
        view.misses[channel, :-1, :-1][points] = misses[begin : begin + values.size].reshape(values.shape)
        begin += values.size


def regress(features: NDArray[np.float32], target: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weighted least squares with a bias: (weights, bias). A ridge keeps few points from being fitted by many weights."""
    x = np.concatenate([features, np.ones((1, len(target)), np.float32)])
    weighted = x * (weight / weight.mean()).astype(np.float32)
    gram = (weighted @ x.T).astype(np.float64)
    ridge = np.diag(gram) * (1e-4 + 4 / len(target)) + 1e-3
    solution = np.linalg.solve(gram + np.diag(ridge), weighted @ target)
    return solution[:-1], float(solution[-1])


def regress_scale(features: NDArray[np.float32], misses: NDArray[np.int32]) -> tuple[NDArray[np.float64], float]:
    """Expected miss, linear in the features; reweighted by its own inverse square, as for a law with a scale."""
    target = misses.astype(np.float64)
    floor = 0.1 * target.mean() + 0.2
    weight = np.ones(len(target))
    for _ in range(ROUNDS):
        w, b = regress(features, target, weight)
        expected = np.maximum(w @ features + b if len(w) else np.full(len(target), b), floor)
        weight = expected**-2.0
    return w, b


def to_integers(w: NDArray[np.float64], b: float, bits: int, peaks: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Weights in 2**-bits that fit int16 and whose sums float32 holds."""
    limit = 32767 / 2**bits
    shrink = min(1.0, 0.98 * BOUND / 2**bits / max(float((np.abs(w) * peaks).sum() + abs(b)), 1e-9))
    scaled = np.round(np.clip(w * shrink, -limit, limit) * 2**bits).astype(np.int64)
    return scaled, round(b * shrink * 2**bits)


def count_tables(
    values: NDArray[np.int32], means: NDArray[np.int32], scales: NDArray[np.int32]
) -> tuple[NDArray[np.int32], Tables]:
    """Classes of equal ratio between the 0.1 % points of the scale; a histogram a row, smoothed by a Laplace law of the same mean miss."""
    low, high = np.maximum(np.quantile(scales, [0.001, 0.999]), SCALE_UNIT // 4)
    thresholds = np.unique(np.round(np.geomspace(low, high * 1.01, CLASSES - 1)).astype(np.int32))
    row = np.searchsorted(thresholds, scales, side="right") * QUARTERS + means % QUARTERS
    symbols = values - means // QUARTERS
    masses, lows = [], []
    typical = 1.0
    for r in range((len(thresholds) + 1) * QUARTERS):
        chosen = symbols[row == r]
        center = (r % QUARTERS + 0.5) / QUARTERS
        if len(chosen) > 100:
            typical = float(np.abs(chosen - center).mean())
        reach = int(np.ceil(8 * typical)) + 1
        k = np.arange(-reach, reach + 2)
        laplace = np.exp(-np.abs(k - center) / max(typical, 0.05))
        inside = chosen[np.abs(chosen) <= reach]
        mass = np.bincount(inside + reach, minlength=len(k)) + PSEUDO * laplace / laplace.sum() + 1e-3
        masses.append(np.append(mass, len(chosen) - len(inside) + 0.5))
        lows.append(-reach)
    return thresholds, Tables.from_masses(masses, lows)
