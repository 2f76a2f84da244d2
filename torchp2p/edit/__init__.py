"""What happens to a scene before it is rendered: the styles of its instances (spec 7)."""

from torchp2p.edit.encode import encode_features, precompute_features
from torchp2p.edit.old_features import convert_features
from torchp2p.edit.styles import Clusters, FeatureTable, class_of_id, cluster_features, sample_features

__all__ = [
    "Clusters",
    "FeatureTable",
    "class_of_id",
    "cluster_features",
    "convert_features",
    "encode_features",
    "precompute_features",
    "sample_features",
]
