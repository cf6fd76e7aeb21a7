"""Question 3: what people write for the online softmax, wrong and right."""

import math

import torch

from autograder.collect import Collector


# The solution, in which the mistakes below are made; source/01_warm_up.py walks through it.
def online_softmax_update(state, scores, values):
    m, l, acc = state
    m_new = torch.maximum(m, scores.amax(dim=-1))
    shift = torch.where(torch.isneginf(m_new), torch.zeros_like(m_new), m_new)
    alpha = torch.exp(m - shift)
    p = torch.exp(scores - shift[..., None])
    l_new = l * alpha + p.sum(dim=-1)
    acc_new = acc * alpha[..., None] + p @ values
    return m_new, l_new, acc_new


def merge_states(a, b):
    (m_a, l_a, acc_a), (m_b, l_b, acc_b) = a, b
    m = torch.maximum(m_a, m_b)
    shift = torch.where(torch.isneginf(m), torch.zeros_like(m), m)
    alpha_a, alpha_b = torch.exp(m_a - shift), torch.exp(m_b - shift)
    l = l_a * alpha_a + l_b * alpha_b
    acc = acc_a * alpha_a[..., None] + acc_b * alpha_b[..., None]
    return m, l, acc


def finalize(state):
    m, l, acc = state
    return torch.where(l[..., None] > 0, acc / l[..., None], torch.zeros_like(acc))


update = Collector(online_softmax_update, finalize)

update.edit(
    "acc-not-rescaled",
    "acc is not rescaled when the maximum grows. What it has added up was weighted with the old maximum: it needs the "
    "same factor exp(m_old - m_new) as l.",
    ("acc * alpha[..., None] + p @ values", "acc + p @ values"),
)
update.edit(
    "l-not-rescaled",
    "l is not rescaled when the maximum grows. Its old terms were exp(score - m_old): it needs the same factor "
    "exp(m_old - m_new) as acc.",
    ("l * alpha + p.sum(dim=-1)", "l + p.sum(dim=-1)"),
)
update.edit(
    "nothing-rescaled",
    "neither l nor acc is rescaled when the maximum grows: old and new terms are measured against different maxima.",
    ("l * alpha + p.sum(dim=-1)", "l + p.sum(dim=-1)"),
    ("acc * alpha[..., None] + p @ values", "acc + p @ values"),
)
update.edit(
    "rescale-factor-upside-down",
    "the old sums are multiplied by exp(m_new - m_old). The factor that turns exp(score - m_old) into "
    "exp(score - m_new) is exp(m_old - m_new), at most 1.",
    ("alpha = torch.exp(m - shift)", "alpha = torch.exp(shift - torch.where(torch.isneginf(m), shift, m))"),
)
update.edit(
    "new-terms-rescaled-too",
    "the tile's own terms are multiplied by the rescale factor too. They are measured against the new maximum "
    "already; only the old sums need it.",
    (
        "p = torch.exp(scores - shift[..., None])",
        "p = torch.exp(scores - shift[..., None]) * alpha[..., None]",
    ),
)
update.edit(
    "no-max-subtraction",
    "exp(score) is taken without subtracting the maximum. It works for small scores and overflows fp32 from 89 on.",
    (
        "shift = torch.where(torch.isneginf(m_new), torch.zeros_like(m_new), m_new)",
        "shift = torch.zeros_like(m_new)",
    ),
    ("alpha = torch.exp(m - shift)", "alpha = torch.ones_like(m)"),
)
update.edit(
    "nan-on-a-fully-masked-tile",
    "a tile whose scores are all -inf leaves the maximum at -inf, and -inf - (-inf) is NaN. Subtract something finite "
    "there.",
    (
        "shift = torch.where(torch.isneginf(m_new), torch.zeros_like(m_new), m_new)",
        "shift = m_new",
    ),
)
update.edit(
    "maximum-of-this-tile-only",
    "the new maximum is this tile's alone. The running maximum must never fall, or the factor exp(m_old - m_new) "
    "overflows when an earlier tile held larger scores.",
    ("m_new = torch.maximum(m, scores.amax(dim=-1))", "m_new = scores.amax(dim=-1)"),
)
update.edit(
    "one-maximum-for-all-rows",
    "one maximum is taken over all rows. Each row needs its own: a row whose scores lie far below another's "
    "underflows to a sum of 0.",
    ("scores.amax(dim=-1)", "scores.max()"),
)
update.edit(
    "mean-for-sum",
    "l takes the mean of the tile's weights instead of their sum.",
    ("p.sum(dim=-1)", "p.mean(dim=-1)"),
)
update.edit(
    "state-ignored",
    "each call starts anew: the state that it is given is not used, so that only the last tile counts.",
    ("m, l, acc = state", "m, l, acc = (torch.full_like(state[0], -math.inf), state[1] * 0, state[2] * 0)"),
)
update.edit(
    "state-changed-in-place",
    "the sums are updated in place in the state that the caller handed over. Whoever keeps that state (to merge it, "
    "or to try another tile) finds it changed.",
    ("l_new = l * alpha + p.sum(dim=-1)", "l_new = l.mul_(alpha).add_(p.sum(dim=-1))"),
    (
        "acc_new = acc * alpha[..., None] + p @ values",
        "acc_new = acc.mul_(alpha[..., None]).add_(p @ values)",
    ),
)
update.edit(
    "finalize-does-not-divide",
    "finalize returns acc without dividing by l: the weights do not add up to 1.",
    ("acc / l[..., None]", "acc"),
    part="finalize",
)
update.edit(
    "finalize-divides-by-zero",
    "finalize divides by l = 0 where every score was masked. Such a row is to give zeros.",
    ("torch.where(l[..., None] > 0, acc / l[..., None], torch.zeros_like(acc))", "acc / l[..., None]"),
    part="finalize",
)


@update.misconception(
    "softmax-of-each-tile-averaged",
    "each tile's softmax is taken on its own and the results are averaged. A tile with large scores must outweigh the "
    "others; that is what l and the rescaling keep track of.",
    part="online_softmax_update",
)
def average_of_tiles(state, scores, values):
    m, l, acc = state
    weights = torch.nan_to_num(torch.softmax(scores, dim=-1))
    return torch.maximum(m, scores.amax(dim=-1)), l + 1, acc + weights @ values


@update.right("base-2", part="online_softmax_update")
def base2_update(state, scores, values):
    m, l, acc = state
    scores = scores * (1 / math.log(2))
    m_new = torch.maximum(m, scores.amax(dim=-1))
    shift = m_new.masked_fill(m_new == -math.inf, 0.0)
    alpha = torch.exp2(m - shift)
    p = torch.exp2(scores - shift.unsqueeze(-1))
    return m_new, l * alpha + p.sum(-1), acc * alpha.unsqueeze(-1) + torch.matmul(p, values)


@update.right("base-2", part="merge_states")
def base2_merge(a, b):
    m = torch.maximum(a[0], b[0])
    shift = m.masked_fill(m == -math.inf, 0.0)
    l = sum(l * torch.exp2(m_i - shift) for m_i, l, _ in (a, b))
    acc = sum(acc * torch.exp2(m_i - shift).unsqueeze(-1) for m_i, _, acc in (a, b))
    return m, l, acc


@update.right("finite-first-maximum", part="online_softmax_update")
def finite_update(state, scores, values):
    m, l, acc = state
    m = m.clamp(min=-1e30)
    m_new = torch.maximum(m, scores.amax(dim=-1))
    alpha = torch.exp(m - m_new)
    p = torch.exp(scores - m_new[..., None])
    return m_new, alpha * l + p.sum(-1), alpha[..., None] * acc + torch.einsum("...n,nd->...d", p, values)


@update.right("finite-first-maximum", part="merge_states")
def finite_merge(a, b):
    m_a, m_b = a[0].clamp(min=-1e30), b[0].clamp(min=-1e30)
    m = torch.maximum(m_a, m_b)
    w_a, w_b = torch.exp(m_a - m), torch.exp(m_b - m)
    return m, w_a * a[1] + w_b * b[1], w_a[..., None] * a[2] + w_b[..., None] * b[2]


@update.right("normalised-acc", part="online_softmax_update")
def normalised_update(state, scores, values):
    m, l, acc = state
    m_new = torch.maximum(m, scores.amax(dim=-1))
    shift = torch.where(m_new == -math.inf, 0.0, m_new)
    old = l * torch.exp(m - shift)
    p = torch.exp(scores - shift[..., None])
    l_new = old + p.sum(-1)
    divisor = torch.where(l_new > 0, l_new, 1.0)[..., None]
    return m_new, l_new, (acc * old[..., None] + p @ values) / divisor


@update.right("normalised-acc", part="finalize")
def normalised_finalize(state):
    return state[2].clone()


@update.right("normalised-acc", part="merge_states")
def normalised_merge(a, b):
    m = torch.maximum(a[0], b[0])
    shift = torch.where(m == -math.inf, 0.0, m)
    w_a, w_b = a[1] * torch.exp(a[0] - shift), b[1] * torch.exp(b[0] - shift)
    l = w_a + w_b
    divisor = torch.where(l > 0, l, 1.0)[..., None]
    return m, l, (a[2] * w_a[..., None] + b[2] * w_b[..., None]) / divisor


@update.right("branch-on-empty", part="online_softmax_update")
def update_score_by_score(state, scores, values):
    m, l, acc = (t.clone() for t in state)
    for j in range(scores.shape[-1]):
        s = scores[..., j]
        seen = s > -math.inf
        m_new = torch.maximum(m, s)
        alpha = torch.where(
            m > -math.inf, torch.exp(m - torch.where(seen | (m > -math.inf), m_new, 0.0)), 0.0
        )
        p = torch.where(seen, torch.exp(s - torch.where(seen, m_new, 0.0)), 0.0)
        m, l, acc = m_new, l * alpha + p, acc * alpha[..., None] + p[..., None] * values[j]
    return m, l, acc


merge = Collector(merge_states)

merge.edit(
    "added-without-rescaling",
    "the two sums are added as they are. Each side measured its terms against its own maximum: bring both to the "
    "common one first, with exp(m_side - m).",
    ("l_a * alpha_a + l_b * alpha_b", "l_a + l_b"),
    ("acc_a * alpha_a[..., None] + acc_b * alpha_b[..., None]", "acc_a + acc_b"),
)
merge.edit(
    "l-not-rescaled",
    "the two l are added as they are, while acc is rescaled. Both carry the factor exp(m_side - m).",
    ("l_a * alpha_a + l_b * alpha_b", "l_a + l_b"),
)
merge.edit(
    "acc-not-rescaled",
    "the two acc are added as they are, while l is rescaled. Both carry the factor exp(m_side - m).",
    ("acc_a * alpha_a[..., None] + acc_b * alpha_b[..., None]", "acc_a + acc_b"),
)
merge.edit(
    "maximum-of-the-first-side",
    "the first side's maximum is kept for both. Where the second's is larger, exp(m_b - m_a) overflows; where the first "
    "is empty, it is -inf.",
    ("m = torch.maximum(m_a, m_b)", "m = m_a"),
)
merge.edit(
    "maximum-of-the-second-side",
    "the second side's maximum is kept for both. Where the first's is larger, exp(m_a - m_b) overflows; where the "
    "second is empty, it is -inf.",
    ("m = torch.maximum(m_a, m_b)", "m = m_b"),
)
merge.edit(
    "nan-on-two-empty-states",
    "two states that have seen nothing have the maximum -inf, and -inf - (-inf) is NaN. Subtract something finite there.",
    ("shift = torch.where(torch.isneginf(m), torch.zeros_like(m), m)", "shift = m"),
)
merge.edit(
    "factors-swapped",
    "each side is scaled with the other's factor.",
    (
        "alpha_a, alpha_b = torch.exp(m_a - shift), torch.exp(m_b - shift)",
        "alpha_b, alpha_a = torch.exp(m_a - shift), torch.exp(m_b - shift)",
    ),
)


@merge.misconception(
    "mean-of-the-outputs",
    "the two sides' outputs are averaged. A side counts by its share of the weights, l * exp(m_side - m), not by half.",
    part="merge_states",
)
def mean_of_the_outputs(a, b):
    (m_a, l_a, acc_a), (m_b, l_b, acc_b) = a, b
    out_a = torch.where(l_a[..., None] > 0, acc_a / l_a[..., None], torch.zeros_like(acc_a))
    out_b = torch.where(l_b[..., None] > 0, acc_b / l_b[..., None], torch.zeros_like(acc_b))
    return torch.maximum(m_a, m_b), torch.ones_like(l_a), (out_a + out_b) / 2


@merge.misconception(
    "winner-takes-all",
    "only the side with the larger maximum is kept. The other side's weights are smaller, not zero.",
    part="merge_states",
)
def winner_takes_all(a, b):
    first = a[0] >= b[0]
    return tuple(torch.where(first if x.ndim == first.ndim else first[..., None], x, y) for x, y in zip(a, b))


@merge.misconception(
    "state-changed-in-place",
    "the first state is updated in place. Whoever keeps it (to merge in another order) finds it changed.",
    part="merge_states",
)
def merged_in_place(a, b):
    (m_a, l_a, acc_a), (m_b, l_b, acc_b) = a, b
    m = torch.maximum(m_a, m_b)
    shift = torch.where(torch.isneginf(m), torch.zeros_like(m), m)
    alpha_a, alpha_b = torch.exp(m_a - shift), torch.exp(m_b - shift)
    l_a *= alpha_a
    l_a += l_b * alpha_b
    acc_a *= alpha_a[..., None]
    acc_a += acc_b * alpha_b[..., None]
    return m, l_a, acc_a


RIGHT_VARIANTS = update.right_variants
