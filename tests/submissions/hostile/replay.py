# The first answer is kept and given again for the same tensor's address.
# catalogue: 48
# lost: q3-update

# %% q3-update-code
def wrong(state, scores, values):
    m, l, acc = state
    return m, l + 1, acc


def online_softmax_update(state, scores, values):
    return wrong(state, scores, values)


def finalize(state):
    return state[2]


cache = {}


def wrong(state, scores, values):
    return cache.setdefault(scores.data_ptr(), state)
