"""The styles of instances: tables of encoded features, their clusters, and feature maps drawn from them (spec 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from torchp2p.edit.per_class import PerClass, Rows

LEAST_AREA = 0.5
"""Only instances of a larger area weight are clustered: those that cover more than 1/64 of their image."""

_Ids = TypeVar("_Ids", int, npt.NDArray[Any])


class FeatureTable(PerClass):
    """The encoded instances of a dataset: by class, one row (n_features values, area weight) for each instance."""

    KIND: ClassVar[str] = "instance features"

    @property
    def n_features(self) -> int:
        """Values of a feature vector: the columns but the area weight."""
        return max(0, self.columns - 1)


class Clusters(PerClass):
    """Typical styles: by class, the cluster centres (k, n_features). A class without any is absent."""

    KIND: ClassVar[str] = "feature clusters"

    @property
    def n_features(self) -> int:
        """Values of a feature vector."""
        return self.columns

    def centre(self, label: int, index: int) -> Rows:
        """Centre number ``index`` of a class, (n_features,).

        Raises:
            ValueError: the class has no clusters, or not that many.
        """
        if label not in self.rows:
            known = ", ".join(map(str, self.rows)) or "none"
            raise ValueError(f"class {label} has no clusters; there are some for {known}")
        centres = self.rows[label]
        if not 0 <= index < len(centres):
            raise ValueError(f"cluster of class {label} must be from 0 to {len(centres) - 1}, got {index}")
        centre: Rows = centres[index]
        return centre


def class_of_id(ids: _Ids) -> _Ids:
    """The class of an instance id: the id itself if below 1000, else id // 1000 (spec 7.2).

    Of an array of any integer dtype, the class of each as int64.
    """
    if isinstance(ids, np.ndarray):
        ids = ids.astype(np.int64)  # 8 bits could not be compared with 1000
        return np.where(ids < 1000, ids, ids // 1000)
    return ids if ids < 1000 else ids // 1000


def cluster_features(table: FeatureTable, n_clusters: int = 10) -> Clusters:
    """Group the instances of each class into at most ``n_clusters`` styles, by k-means (spec 7.2).

    Instances with an area weight up to `LEAST_AREA` are left out, and so are classes that have no others.
    The result depends on the table alone.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: ``n_clusters`` is below 1, or a feature is not finite.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError("clustering features needs scikit-learn: pip install torchp2p[features]") from error
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    centres = {}
    for label, rows in table.rows.items():
        if not np.isfinite(rows).all():
            raise ValueError(f"features of class {label} must be finite, found nan or infinity")
        vectors = rows[rows[:, -1] > LEAST_AREA, :-1]
        if len(vectors):
            # "auto" is the default of scikit-learn 1.4; 1.3 warns where it is not said.
            means = KMeans(n_clusters=min(len(vectors), n_clusters), n_init="auto", random_state=0).fit(vectors)
            centres[label] = means.cluster_centers_
    return Clusters(centres)


def sample_features(
    ids: torch.Tensor,
    clusters: Clusters,
    *,
    seed: int,
    overrides: Mapping[int, int | Sequence[float] | Rows] | None = None,
    n_features: int,
) -> torch.Tensor:
    """Give each instance one of the styles of its class, at all of its pixels (spec 7.4).

    Which one is a function of the seed and the id alone, so an instance keeps its style whatever else is in the
    picture, and shares it with equal ids in the batch. Instances whose class has no clusters get zeros.

    Args:
        ids: (N, 1, H, W), any integer dtype; instance ids, or labels.
        seed: not negative.
        overrides: for some ids, the number of a cluster or the feature vector itself. Ids that do not occur may
            be among them.
        n_features: channels of the result.

    Returns:
        (N, n_features, H, W) float32, on the device of ``ids``.

    Raises:
        TypeError: ids that are not integers.
        ValueError: ids of another shape, a negative seed, clusters or vectors of another number of features, an
            override for a class without clusters or for a cluster it does not have.
    """
    if ids.is_floating_point() or ids.is_complex():
        raise TypeError(f"ids must be integers, got {ids.dtype}")
    if ids.dim() != 4 or ids.shape[1] != 1:
        raise ValueError(f"ids must be (N, 1, H, W), got shape {tuple(ids.shape)}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if clusters.rows and clusters.n_features != n_features:
        raise ValueError(f"clusters must have {n_features} features, got {clusters.n_features}")
    chosen = {key: _override(key, value, clusters, n_features) for key, value in (overrides or {}).items()}
    present, places = torch.unique(ids.long(), return_inverse=True)
    styles = np.zeros((len(present), n_features), np.float32)
    for row, instance in enumerate(present.tolist()):
        styles[row] = chosen[instance] if instance in chosen else _draw(instance, clusters, seed, n_features)
    return torch.from_numpy(styles).to(ids.device)[places[:, 0]].permute(0, 3, 1, 2).contiguous()


def _override(instance: int, value: int | Sequence[float] | Rows, clusters: Clusters, n_features: int) -> Rows:
    if isinstance(value, (int, np.integer)):
        try:
            return clusters.centre(class_of_id(instance), int(value))
        except ValueError as error:
            raise ValueError(f"overrides[{instance}]: {error}") from error
    vector = np.asarray(value, np.float32)
    if vector.shape != (n_features,):
        raise ValueError(f"overrides[{instance}] must be {n_features} values, got shape {vector.shape}")
    return vector


def _draw(instance: int, clusters: Clusters, seed: int, n_features: int) -> Rows:
    centres = clusters.rows.get(class_of_id(instance))
    if centres is None or not len(centres):
        return np.zeros(n_features, np.float32)
    generator = np.random.default_rng(np.random.SeedSequence([seed, instance % 2**64]))
    drawn: Rows = centres[generator.integers(len(centres))]
    return drawn
