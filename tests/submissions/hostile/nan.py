# NaN is hoped to compare with anything.
# catalogue: 47
# lost: q3-update

# %% q3-update-code
def wrong(state, scores, values):
    m, l, acc = state
    return m, l + 1, acc


def online_softmax_update(state, scores, values):
    return wrong(state, scores, values)


def finalize(state):
    return state[2]


def wrong(state, scores, values):
    return tuple(x * float("nan") for x in state)
