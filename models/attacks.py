"""The attacks of `attack.py`, which says where each is from.

An attack takes a target, photos `[3, H, W]` in 0–1, the classes `[N]` to mislead from, ε (in 0–1), steps, and random views a step; it
returns the photos changed by ε at most.
"""

import numpy as np
import torch
import torch.nn.functional as F

import methods
from attack_target import VIEWS_AT_ONCE, low_pass

# What the cosine has above the gate's bound where it costs nothing: rounding to bytes and the program's int8 kernels take a little of it.
GATE_MARGIN = 0.01
# Weight of what the cosine lacks, in logits that it would be worth: more than the cross-entropies can gain by it.
GATE_WEIGHT = 3.0


def random_view(photo, resolution):
    """A random crop, mirrored half of the time: torchvision's RandomResizedCrop (scale 0.08–1, ratio 3/4–4/3)."""
    height, width = photo.shape[1:]
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(0.08, 1).item()
        ratio = torch.empty(1).uniform_(np.log(3 / 4), np.log(4 / 3)).exp().item()
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, (1,)).item()
            left = torch.randint(0, width - w + 1, (1,)).item()
            photo = photo[:, top : top + h, left : left + w]
            break
    view = F.interpolate(photo[None], (resolution, resolution), mode="bilinear", antialias=True)[0]
    return view.flip(2) if torch.rand(1).item() < 0.5 else view


def project(moved, clean, eps):
    return torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)


def likely_others(logits, truth, count):
    """The `count` most probable classes other than the true one, `[N, count]`, or all of them if there are fewer."""
    count = min(count, logits.shape[1] - 1)
    return logits.scatter(1, truth[:, None], -torch.inf).topk(count, dim=1).indices


def gradients_of(losses_of, photos):
    """The gradients of the sum of the losses; one loss is differentiated before the next is computed, for the sake of memory."""
    leaves = [photo.detach().requires_grad_() for photo in photos]
    total = [torch.zeros_like(photo) for photo in photos]
    for loss in losses_of(leaves):
        # A part has no gradient for the photos that it is not of.
        for whole, part in zip(total, torch.autograd.grad(loss, leaves, allow_unused=True)):
            if part is not None:
                whole += part
    return total


def descend(losses_of, photos, eps, steps):
    """PGD that raises the sum of `losses_of`, from a random start, with steps of a quarter of ε."""
    attacked = [(photo + torch.empty_like(photo).uniform_(-eps, eps)).clamp(0, 1) for photo in photos]
    for _ in range(steps):
        moved = zip(attacked, gradients_of(losses_of, attacked), photos)
        attacked = [project(photo + eps / 4 * gradient.sign(), clean, eps) for photo, gradient, clean in moved]
    return attacked


def pgd(target, photos, truth, eps, steps, _views):
    return descend(lambda x: [F.cross_entropy(target.clean_logits(x), truth, reduction="sum")], photos, eps, steps)


def targeted(target, photos, truth, eps, steps, _views):
    """PGD towards a class that is drawn for each photo among the others."""
    classes = len(target.labels)
    wanted = (truth + torch.randint(1, classes, truth.shape)) % classes
    return descend(lambda x: [-F.cross_entropy(target.clean_logits(x), wanted, reduction="sum")], photos, eps, steps)


def cw(target, photos, truth, eps, steps, _views, kappa):
    """PGD on the margin `max z_other - z_y`, which beyond κ (logits) counts no more."""

    def losses_of(photos):
        logits = target.clean_logits(photos)
        right = logits.gather(1, truth[:, None])[:, 0]
        others = logits.scatter(1, truth[:, None], -torch.inf).amax(1)
        yield (others - right).clamp(max=kappa).sum()

    return descend(losses_of, photos, eps, steps)


def eot(target, photos, truth, eps, steps, views):
    """PGD on the cross-entropy of `views` random views and the clean one."""
    plan = [(place, True) for place in range(len(photos)) for _ in range(views)]
    plan += [(place, False) for place in range(len(photos))]

    def losses_of(photos):
        for start in range(0, len(plan), VIEWS_AT_ONCE):
            part = plan[start : start + VIEWS_AT_ONCE]
            drawn = [random_view(photos[i], target.resolution) if is_random else target.clean_view(photos[i]) for i, is_random in part]
            wanted = truth[[place for place, _ in part]]
            yield F.cross_entropy(target.logits(torch.stack(drawn)), wanted, reduction="sum")

    return descend(losses_of, photos, eps, steps)


def groups(count, views):
    """Slices of `count` photos, each of as many as have their views in memory together, and of one at least."""
    size = max(1, VIEWS_AT_ONCE // views)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def dbd_logits(target, features):
    """The logits `[N, C]` of the method dbd's answers with the target's parameters, from features `[N, V, D]`, a clean view first."""
    settings = methods.Settings(selection=target.dbd["selection"])
    of_photo = lambda rows: methods.dbd(rows, target.table, target.scale, settings, target.dbd["lambda"], target.dbd["bound"])
    return target.of_labels(torch.stack([of_photo(rows).prediction for rows in features]))


def eot_dbd(target, photos, truth, eps, steps, views):
    """EOT through dbd: PGD on the cross-entropy of its answer from the clean view and `views` random ones.

    Which views are selected and how long dbd's step is are discrete: for the gradient of a step here they are constants.
    """

    def losses_of(photos):
        for group in groups(len(photos), 1 + views):
            drawn = [[target.clean_view(photo), *(random_view(photo, target.resolution) for _ in range(views))] for photo in photos[group]]
            features = target.features_in_parts(torch.stack(sum(drawn, []))).unflatten(0, (-1, 1 + views))
            yield F.cross_entropy(dbd_logits(target, features), truth[group], reduction="sum")

    return descend(losses_of, photos, eps, steps)


def gate(target, photos, truth, eps, steps, views, bound):
    """PGD that makes the clean view, the low-passed one and `views` random ones wrong alike, while the cosine of the first two passes the gate.

    The common wrong class is the most probable one of the clean photo's low-passed view: an attack moves that view the least, so what is near
    there already is the cheapest answer that both can have. A photo's result is, of the iterates that pass with a wrong answer, that of least
    loss, or the last iterate.
    """
    with torch.no_grad():
        wanted = likely_others(target.logits(low_pass(target.clean_views(photos))), truth, 1)
    least, kept = torch.full((len(photos),), torch.inf), [None] * len(photos)

    def losses_of(photos):
        for group in groups(len(photos), 2 + views):
            cleans = target.clean_views(photos[group])
            drawn = [[*pair, *(random_view(photo, target.resolution) for _ in range(views))]
                     for photo, *pair in zip(photos[group], cleans, low_pass(cleans))]
            features = target.features_in_parts(torch.stack(sum(drawn, [])))
            logits = target.logits_of(features).unflatten(0, (-1, 2 + views))
            features = features.unflatten(0, (-1, 2 + views))
            cosine = (features[:, 0] * features[:, 1]).sum(1)
            each = -logits.log_softmax(2).gather(2, wanted[group, None].expand(-1, 2 + views, 1))[:, :, 0]
            loss = each[:, :2].sum(1) + GATE_WEIGHT * target.scale * (bound + GATE_MARGIN - cosine).clamp(min=0)
            if views:
                loss = loss + each[:, 2:].mean(1)
            clean, passed = logits[:, 0].argmax(1), logits[:, 1].argmax(1)
            passes = (cosine >= bound) & (clean == passed) & (clean != truth[group])
            for i in (passes & (loss < least[group])).nonzero().flatten().tolist():
                least[group.start + i], kept[group.start + i] = loss[i].detach(), photos[group][i].detach()
            yield -loss.sum()

    attacked = descend(losses_of, photos, eps, steps)
    with torch.no_grad():
        # The last iterate is looked at, too.
        list(losses_of(attacked))
    return [last if one is None else one for one, last in zip(kept, attacked)]


def cross_entropy_each(logits, truth):
    return F.cross_entropy(logits, truth, reduction="none")


def logit_difference_ratio(logits, truth):
    """Each image's DLR loss `-(z_y - max z_other) / (z_1 - z_3)`, `[N]` (Croce and Hein 2020, equation 6)."""
    ordered = logits.sort(1).values
    right = logits.gather(1, truth[:, None])[:, 0]
    others = logits.scatter(1, truth[:, None], -torch.inf).amax(1)
    return -(right - others) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def targeted_ratio(logits, truth, wanted):
    """Each image's targeted DLR loss `-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)`, `[N]` (Croce and Hein 2020, equation 7).

    Of three labels z_3 is z_4, too.
    """
    ordered = logits.sort(1, descending=True).values
    right, other = (logits.gather(1, classes[:, None])[:, 0] for classes in (truth, wanted))
    fourth = ordered[:, min(3, logits.shape[1] - 1)]
    return -(right - other) / (ordered[:, 0] - (ordered[:, 2] + fourth) / 2 + 1e-12)


def apgd_once(target, photos, truth, eps, steps, loss_each):
    """Auto-PGD: momentum 0.75, and steps halved at checkpoints where the loss hardly rose or the best did not move.

    Returns the iterates of largest loss, and beside them the last ones with a wrong answer, None where there was none.
    """
    count = len(photos)
    checkpoints, share, last = [0], 0.22, 0.0
    while checkpoints[-1] < steps:
        checkpoints.append(int(np.ceil(steps * share)))
        share, last = share + max(share - last - 0.03, 0.06), share
    current = [(photo + torch.empty_like(photo).uniform_(-eps, eps)).clamp(0, 1) for photo in photos]
    before = current
    best, best_loss, misled = list(current), torch.full((count,), -torch.inf), [None] * count
    step_size, rises = torch.full((count,), 2 * eps), torch.zeros(count)
    old_loss, seen_size, seen_best = torch.full((count,), -torch.inf), step_size.clone(), best_loss.clone()
    since = 0
    for step in range(steps + 1):
        leaves = [photo.detach().requires_grad_() for photo in current]
        logits = target.clean_logits(leaves)
        losses = loss_each(logits, truth)
        gradients = torch.autograd.grad(losses.sum(), leaves)
        losses = losses.detach()
        rises += losses > old_loss
        old_loss = losses
        for i in torch.nonzero(losses > best_loss).flatten().tolist():
            best[i], best_loss[i] = current[i], losses[i]
        for i in torch.nonzero(logits.argmax(1) != truth).flatten().tolist():
            misled[i] = current[i]
        if step in checkpoints[1:]:
            stuck = (rises < 0.75 * (step - since)) | ((step_size == seen_size) & (best_loss == seen_best))
            seen_size, seen_best = step_size.clone(), best_loss.clone()
            step_size = torch.where(stuck, step_size / 2, step_size)
            current = [best[i] if stuck[i] else current[i] for i in range(count)]
            rises, since = torch.zeros(count), step
        if step == steps:
            break
        moved = []
        for i, (now, old, gradient, clean) in enumerate(zip(current, before, gradients, photos)):
            along = project(now + step_size[i] * gradient.sign(), clean, eps)
            keep = 0.75 if step else 1.0
            moved.append(project(now + keep * (along - now) + (1 - keep) * (now - old), clean, eps))
        before, current = current, moved
    return best, misled


def still_right(target, photos, truth):
    """The places of the photos whose clean view is not misled."""
    with torch.no_grad():
        return (target.clean_logits(photos).argmax(1) == truth).nonzero().flatten().tolist()


def apgd_parts(target, photos, truth, eps, steps, losses):
    """Auto-PGD with each loss in turn, where those before did not succeed."""
    attacked = list(photos)
    for loss_each in losses:
        right = still_right(target, attacked, truth)
        if right:
            found, _ = apgd_once(target, [photos[i] for i in right], truth[right], eps, steps, loss_each)
            for i, photo in zip(right, found):
                attacked[i] = photo
    return attacked


def apgd_ce(target, photos, truth, eps, steps, _views):
    return apgd_parts(target, photos, truth, eps, steps, [cross_entropy_each])


def apgd(target, photos, truth, eps, steps, _views):
    return apgd_parts(target, photos, truth, eps, steps, [cross_entropy_each, logit_difference_ratio])


def apgd_t(target, photos, truth, eps, steps, _views):
    """Targeted Auto-PGD towards each of the nine most probable other classes, where those before did not succeed.

    Any wrong answer is a success, whichever class was the target.
    """
    with torch.no_grad():
        likely = likely_others(target.clean_logits(photos), truth, 9)
    attacked = list(photos)
    for wanted in likely.T:
        right = still_right(target, attacked, truth)
        if right:
            loss_each = lambda logits, truth: targeted_ratio(logits, truth, wanted[right])
            found, misled = apgd_once(target, [photos[i] for i in right], truth[right], eps, steps, loss_each)
            for i, best, wrong in zip(right, found, misled):
                attacked[i] = best if wrong is None else wrong
    return attacked
