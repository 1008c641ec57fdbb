"""What a network makes of the two domains: deep features, their map by t-SNE (Fig. 6), and how well they can be told apart."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from voxuda.runs import load_domains, load_network, read_config


@torch.no_grad()
def deep_features(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Means of the deepest tap v6 over each volume, ``(N, C)`` of volumes ``(N, 1, D, H, W)``."""
    network.eval()
    return torch.cat([network.features(part)["v6"].mean((2, 3, 4)) for part in volumes.split(batch_size)])  # type: ignore[operator]


def separability(a: np.ndarray, b: np.ndarray) -> float:
    """Accuracy of a linear classifier between features ``(N, C)`` and ``(M, C)`` by five-fold cross-validation.

    The larger set is thinned, so 0.5 means that the two cannot be told apart.
    """
    n = min(len(a), len(b))
    thin = [x[np.linspace(0, len(x) - 1, n).astype(int)] for x in (a, b)]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    labels = np.repeat([0, 1], n)
    return float(cross_val_score(model, np.concatenate(thin), labels, cv=min(5, n)).mean())


def embed(run: str | Path, *, seed: int = 0) -> dict:
    """Map of the source's and the held-out target's features by a run's network.

    Each domain goes through the network with the batch norm statistics that suit it: running ones for the source, the target's
    for the target.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    seed : int
        Of t-SNE.

    Returns
    -------
    dict
        ``points``, one ``[x, y]`` a sample; ``domain``, "source" or "target"; ``classes``; ``separability``.
    """
    config = read_config(run)
    source, _, target = load_domains(config)
    features = [
        deep_features(load_network(run, kind), domain.volumes).numpy()  # type: ignore[arg-type]
        for kind, domain in (("running", source), ("target", target))
    ]
    both = StandardScaler().fit_transform(np.concatenate(features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        points = TSNE(perplexity=min(30, (len(both) - 1) / 3), random_state=seed).fit_transform(both)
    return {
        "points": points.round(2).tolist(),
        "domain": ["source"] * len(source) + ["target"] * len(target),
        "classes": [*source.classes, *target.classes],
        "separability": round(separability(*features), 4),
    }
