"""The space in which images and texts meet, from the image tower's features `[N, F]` and the rows `[N, F]` of its classifier, F = 1280.

A feature x becomes `[Pᵀ(x - m), c]` and a class row w becomes `[Qᵀw, 0]`, each of unit length, with P = M⁻½V and Q = M½V, so that their product is that of the
classifier: (x - m)ᵀw, as far as the V kept directions hold it. M is the covariance of features within classes, shrunk, so that what differs between photos of
one thing counts less (linear discriminant analysis: Fisher 1936; shrinkage: Ledoit and Wolf 2004). m is the mean feature over ImageNet, which the last batch
normalisation gives without a photo. The last coordinate, the same for every image, is that of "none of these": the less a photo has of anything known, the
more of its length it is.
"""

from dataclasses import dataclass

import numpy as np

# Shrinkage towards a multiple of the identity, in units of the mean eigenvalue.
SHRINKAGE = 1.0
# What the last coordinate is of the median length of the others.
NONE_SHARE = 0.3


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def mean_feature(tower):
    """The mean `[F]` of the tower's features over the photos that it was trained on: its last normalisation makes them normal with mean β and deviation γ a
    channel, and ReLU6 cuts them."""
    shift, deviation = (value.detach().numpy().astype(np.float64) for value in (tower._bn1.bias, tower._bn1.weight))
    points = np.linspace(-6, 6, 2001)
    weights = np.exp(-(points**2) / 2)
    values = np.clip(shift[:, None] + np.abs(deviation)[:, None] * points, 0, 6)
    return values @ (weights / weights.sum())


def within_classes(sets):
    """The covariance `[F, F]` of features less the mean of their class; `sets` are pairs of features and labels."""
    rest = [features[labels == label] - features[labels == label].mean(0) for features, labels in sets for label in np.unique(labels)]
    return np.cov(np.concatenate(rest).T)


@dataclass
class Space:
    """`mean [F]`, `image [F, D - 1]`, `text [F, D - 1]` and the last coordinate of every image."""

    mean: np.ndarray
    image: np.ndarray
    text: np.ndarray
    none: float

    @classmethod
    def of(cls, mean, rows, sets, width):
        """The space of `width` D; `rows` are the centred rows of the classifier, `sets` pairs of features `[N, F]` and labels `[N]`."""
        covariance = within_classes(sets)
        values, vectors = np.linalg.eigh(covariance)
        lengths = np.sqrt(values + SHRINKAGE * values.mean())
        root = vectors * lengths @ vectors.T
        inverse = vectors / lengths @ vectors.T
        kept = np.linalg.svd(unit(rows @ root), full_matrices=False)[2][: width - 1].T
        space = cls(mean, inverse @ kept, root @ kept, 0.0)
        lengths = [np.linalg.norm((features - mean) @ space.image, axis=1) for features, _ in sets]
        space.none = float(NONE_SHARE * np.median(np.concatenate(lengths)))
        return space

    def images(self, features):
        """Unit embeddings `[N, D]` of features."""
        known = (features - self.mean) @ self.image
        return unit(np.concatenate([known, np.full((len(known), 1), self.none)], 1))

    def texts(self, rows):
        """Unit embeddings `[N, D]` of rows of the classifier."""
        return unit(np.concatenate([rows @ self.text, np.zeros((len(rows), 1))], 1))

    def nothing(self):
        """The embedding `[D]` of "none of these"."""
        return np.eye(self.image.shape[1] + 1)[-1]
