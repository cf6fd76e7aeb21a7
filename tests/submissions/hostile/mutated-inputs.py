# The inputs are zeroed, so that the truth made from them is zero.
# catalogue: 45
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
    values.zero_()
    return state
