"""Deep features of the two domains, their t-SNE map (Fig. 6), and how well a linear classifier separates them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from voxuda.data.domain import Domain
from voxuda.errors import InputError
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.training.config import BatchNorm
from voxuda.training.domains import load_domains
from voxuda.training.run_folder import load_network, read_config

BATCH = 16
"""Volumes in the network at a time."""


@torch.no_grad()
def deep_features(network: nn.Module, volumes: torch.Tensor) -> torch.Tensor:
    """Average the deepest tap, v6, over each volume; ``(N, C)`` for volumes ``(N, 1, D, H, W)``."""
    network.eval()
    return torch.cat([network.features(part)["v6"].mean((2, 3, 4)) for part in volumes.split(BATCH)])  # type: ignore[operator]


def separability(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the five-fold cross-validated accuracy of a linear classifier between features ``(N, C)`` and ``(M, C)``.

    The larger set is thinned to the size of the smaller, so 0.5 is chance.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(len(a), len(b))
    if n < 2:
        raise InputError(f"{n} sample of one domain; separability needs at least 2 of each.")
    thin = [x[np.linspace(0, len(x) - 1, n).astype(int)] for x in (a, b)]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    labels = np.repeat([0, 1], n)
    folds = StratifiedKFold(min(5, n), shuffle=True, random_state=0)
    return float(cross_val_score(model, np.concatenate(thin), labels, cv=folds).mean())


def domain_features(run: str | Path, statistics: BatchNorm = "target") -> tuple[list[np.ndarray], list[Domain]]:
    """Compute features ``(N, C)`` of the source and the held-out target with a run's network, and return both domains too.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    statistics : str
        Batch norm statistics: "running" uses the running averages of training for both domains, "mixed" mixes these and the
        target's in equal parts, and "target" uses each domain's own, measured on its training samples.
    """
    source, seen, target = load_domains(read_config(run))
    network = load_network(run, statistics)
    features = []
    for measured, domain in ((source, source), (seen, target)):
        if statistics == "target":
            network.load_state_dict(target_batch_norm(network, measured.volumes), strict=False)
        features.append(deep_features(network, domain.volumes).numpy())
    return features, [source, target]


def embed(run: str | Path, statistics: BatchNorm = "target") -> dict:
    """Map the features of both domains (:func:`domain_features`) by t-SNE.

    Returns ``points``, one ``[x, y]`` per sample, with ``domain`` ("source" or "target") and ``classes``.
    """
    from sklearn.manifold import TSNE  # slow to import
    from sklearn.preprocessing import StandardScaler

    features, (source, target) = domain_features(run, statistics)
    both = StandardScaler().fit_transform(np.concatenate(features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        points = TSNE(perplexity=min(30, (len(both) - 1) / 3), random_state=0).fit_transform(both)
    return {
        "points": points.round(2).tolist(),
        "domain": ["source"] * len(source) + ["target"] * len(target),
        "classes": [*source.classes, *target.classes],
    }
