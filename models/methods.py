"""Every method of rtpt in PyTorch, from features to answer, by the papers' formulas: autograd, torch.optim.AdamW, SVD.

Features `[V, D]` and classes `[C, D]` have unit rows; `scale` is the logit scale. A prediction `[C]` is what a softmax
makes probabilities of. Nothing here shares code with rtpt.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

RATES = {"class-lowrank": 2e-2, "view-shift": 1e-1}
SELECTIONS = {"zero": 0.3, "view-shift": 1.0, "mta": 1.0, "dbd": 0.25}
METHODS = ("zero-shot", "none", "class-shift", "class-lowrank", "view-shift", "context", "mta", "zero", "dbd")


@dataclass
class Settings:
    """Of one method; the published ones if nothing is said."""

    steps: int = 1
    learning_rate: float = 5e-3
    selection: float = 0.1
    rank: int = 32
    betas: tuple = field(default=(0.9, 0.999))
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    @classmethod
    def of(cls, method):
        return cls(learning_rate=RATES.get(method, 5e-3), selection=SELECTIONS.get(method, 0.1))


@dataclass
class Result:
    """What a method made of one image."""

    logits: torch.Tensor
    selected: torch.Tensor
    weights: torch.Tensor
    tuned: torch.Tensor
    prediction: torch.Tensor
    losses: list
    theta: torch.Tensor | None = None  # of dbd the mean cosine s


def entropy(logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def reliability(features, neighbours=20, temperature=0.01):
    """R-TPT's weights, the view itself left out by index; T-VSS's with 5 and 0.05."""
    if len(features) == 1:
        return torch.ones(1, dtype=features.dtype)
    cosines = features @ features.T
    cosines.fill_diagonal_(float("-inf"))
    neighbours = min(neighbours, len(features) - 1)
    return torch.softmax(cosines.topk(neighbours, dim=1).values.mean(1) / temperature, 0)


def confident(logits, fraction):
    """The indices of the views of least entropy, in its order."""
    return entropy(logits).argsort(stable=True)[: max(1, int(len(logits) * fraction))]


def descend(theta, loss_of, settings):
    """AdamW on `theta`; the losses before each step."""
    theta.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [theta], settings.learning_rate, settings.betas, settings.epsilon, settings.weight_decay
    )
    losses = []
    for _ in range(settings.steps):
        optimizer.zero_grad()
        loss = loss_of(theta)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


def view_basis(features):
    """The fewest right singular vectors `[D, m]` of f_i - f_0 that hold 90 % of the energy."""
    if len(features) < 2:
        return features.new_zeros(features.shape[1], 0)
    _, values, directions = torch.linalg.svd(features[1:] - features[0], full_matrices=False)
    energy = values.square().cumsum(0)
    rank = int((energy < 0.9 * energy[-1]).sum()) + 1
    return directions[:rank].T


def view_shift(features, classes, scale, settings):
    logits, weights = scale * features @ classes.T, reliability(features, 5, 0.05)
    selected = confident(logits, settings.selection)
    basis = view_basis(features)
    theta = features.new_zeros(basis.shape[1])
    moved = lambda theta: F.normalize(features + basis @ theta, dim=1)

    def loss_of(theta):
        chosen = weights[selected] / weights[selected].sum()
        return (chosen * entropy(scale * moved(theta)[selected] @ classes.T)).sum()

    losses = descend(theta, loss_of, settings)
    tuned = scale * moved(theta.detach()) @ classes.T
    return Result(logits, selected, weights, tuned, (weights @ tuned.softmax(1)).log(), losses, theta.detach())


def mta(features, classes, scale, _settings=None):
    """Mean shift with inlierness: bandwidths of 30 % of the views, λ_y = 0.2, λ_q = 4, five passes a loop."""
    logits = scale * features @ classes.T
    probabilities = logits.softmax(1)
    affinity = probabilities @ probabilities.T
    count = len(features)
    neighbours = max(1, int(0.3 * (count - 1)))
    distances = (features[:, None] - features[None]).square().sum(2)
    nearest = distances.sort(1).values[:, 1 : neighbours + 1]
    bandwidths = (0.5 * nearest.mean(1)).clamp_min(torch.finfo(features.dtype).eps)
    density_at = lambda mode: torch.exp(-(features - mode).square().sum(1) / (2 * bandwidths))
    inlierness, mode = torch.full_like(bandwidths, 1 / count), features[0]
    for _ in range(5):
        density = density_at(mode)
        for _ in range(5):
            before, inlierness = inlierness, torch.softmax((density + 4 * affinity @ inlierness) / 0.2, 0)
            if (before - inlierness).norm() < 1e-6:
                break
        for _ in range(5):
            weights = density_at(mode) * inlierness
            weights = weights / weights.sum()
            before, mode = mode, F.normalize(weights @ features, dim=0)
            if (before - mode).norm() < 1e-6:
                break
    return Result(logits, confident(logits, 1.0), weights, logits, scale * classes @ mode, [])


def zero(features, classes, scale, settings):
    """Votes at zero temperature; a tie goes to the tied class that the next confident views vote for first."""
    logits = scale * features @ classes.T
    order = confident(logits, 1.0)
    voters = order[: max(1, int(len(order) * settings.selection))]
    answers = logits.argmax(1)
    votes = torch.bincount(answers[voters], minlength=len(classes)).to(features.dtype)
    tied = (votes == votes.max()).nonzero().flatten()
    rest = order[len(voters) :]
    if len(tied) > 1:
        broken = [view for view in rest if answers[view] in tied]
        judge = logits[rest[0] if len(rest) else order[0]]
        votes[answers[broken[0]] if broken else tied[judge[tied].argmax()]] += 1
    weights = torch.zeros(len(features), dtype=features.dtype)
    weights[voters] = 1 / len(voters)
    return Result(logits, voters, weights, logits, (votes / votes.sum()).log(), [])


def dbd(features, classes, scale, settings, step=2.5, bound=0.8):
    """f_0 moved along the mean difference of the confident other views, further where these agree (arXiv 2606.06186). The bound is that for
    16 views, as published: n unit vectors of mean cosine c to each other have the cosine √((1 + (n - 1) c) / n) with their mean."""
    logits = scale * features @ classes.T
    weights = torch.zeros(len(features), dtype=features.dtype)
    if len(features) == 1:
        weights[0] = 1
        return Result(logits, torch.arange(0), weights, logits, logits[0], [])
    others = entropy(logits[1:]).argsort(stable=True)
    selected = 1 + others[: max(1, int((len(features) - 1) * settings.selection + 0.5))]
    differences = features[selected] - features[0]
    mean = differences.mean(0)
    agreement = F.cosine_similarity(differences, mean[None], dim=1).mean()
    count, to_each_other = len(selected), (16 * bound**2 - 1) / 15
    bound = ((1 + (count - 1) * to_each_other) / count) ** 0.5 if count > 1 else torch.inf
    moved = F.normalize(features[0] + (step if agreement > bound else 1.0) * mean, dim=0)
    weights[selected] = 1 / len(selected)
    return Result(logits, selected, weights, logits, scale * classes @ moved, [], agreement)


def tuned_classes(features, classes, scale, settings, start, classes_of):
    """R-TPT with any parameters of the classes: `classes_of(θ)` are unit rows `[C, D]`."""
    logits, weights = scale * features @ classes.T, reliability(features)
    selected = confident(logits, settings.selection)
    losses = descend(start, lambda theta: entropy(scale * features[selected] @ classes_of(theta).T).mean(), settings)
    tuned = scale * features @ classes_of(start).detach().T
    return Result(logits, selected, weights, tuned, weights @ tuned, losses, start.detach())


def untuned(features, classes, scale, settings):
    logits, weights = scale * features @ classes.T, reliability(features)
    return Result(logits, confident(logits, settings.selection), weights, logits, weights @ logits, [])


def run(method, features, classes, scale, settings=None, context=None):
    """One image by one method; `context` gives θ at the start and the classes of a θ, for the head of that name."""
    settings = settings or Settings.of(method)
    if method == "zero-shot":
        return untuned(features[:1], classes, scale, settings)
    if method == "none":
        return untuned(features, classes, scale, settings)
    if method in ("view-shift", "mta", "zero", "dbd"):
        return {"view-shift": view_shift, "mta": mta, "zero": zero, "dbd": dbd}[method](features, classes, scale, settings)
    if method == "class-shift":
        start, classes_of = torch.zeros_like(classes), lambda theta: F.normalize(classes + theta, dim=1)
    elif method == "class-lowrank":
        rank = min(settings.rank, len(classes) - 1, classes.shape[1])
        basis = torch.linalg.svd(classes - classes.mean(0), full_matrices=False).Vh[:rank].T
        start, classes_of = classes.new_zeros(len(classes), rank), lambda theta: F.normalize(classes + theta @ basis.T, dim=1)
    else:
        start, classes_of = context
    return tuned_classes(features, classes, scale, settings, start, classes_of)
