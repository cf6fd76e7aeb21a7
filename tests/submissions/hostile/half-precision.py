# A right answer in half precision.
# catalogue: 53
# lost: q3-update

# %% q3-update-code
# <the right answer>

exact = online_softmax_update


def online_softmax_update(state, scores, values):
    return tuple(x.half().float() for x in exact(state, scores, values))
