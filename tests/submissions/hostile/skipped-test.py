# The test is tagged so that nbclient leaves it out.
# catalogue: 1
# lost: q3-update

# %% q3-update-code
def wrong(state, scores, values):
    m, l, acc = state
    return m, l + 1, acc


def online_softmax_update(state, scores, values):
    return wrong(state, scores, values)


def finalize(state):
    return state[2]

# %% q3-update tags=["skip-execution"]
