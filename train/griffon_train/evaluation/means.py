"""Means, and their confidence intervals by bootstrap."""

from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean

import numpy as np

RESAMPLES = 1000
_SEED = 0


def mean(values: Sequence[float]) -> float | None:
    """The mean, exact whatever the order of the values; None if there are none."""
    return fmean(values) if values else None


def means(figures: Mapping[str, Sequence[float]], clusters: Sequence[Hashable]) -> dict[str, object]:
    """The mean of each figure by name, and `interval`, their intervals by name."""
    return {**{name: mean(values) for name, values in figures.items()}, "interval": intervals(figures, clusters)}


def intervals(figures: Mapping[str, Sequence[float]], clusters: Sequence[Hashable]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of the mean of each figure: percentiles of the means of `RESAMPLES` resamples.

    Clusters are resampled, not values, because the questions about one image are not independent. The same values in
    the same order give the same intervals.

    Args:
        figures: values by name, all of the same length.
        clusters: the cluster of each value, of that length.
    """
    if not clusters:
        return {}
    numbers: dict[Hashable, int] = {}
    of_value = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    values = np.array(list(figures.values()), dtype=np.float64).T  # [values, figures]
    sums = np.zeros((len(numbers), len(figures)))
    np.add.at(sums, of_value, values)
    sizes = np.bincount(of_value, minlength=len(numbers))
    random = np.random.RandomState(_SEED)  # its stream is the same in every version of numpy
    means = np.empty((RESAMPLES, len(figures)))
    for resample in range(RESAMPLES):
        times = np.bincount(random.randint(0, len(numbers), len(numbers)), minlength=len(numbers))
        means[resample] = (
            np.einsum("c,cf->f", times, sums) / (times * sizes).sum()
        )  # without BLAS: always the same bits
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return {name: (float(low[place]), float(high[place])) for place, name in enumerate(figures)}
