# A right answer that writes warnings.
# catalogue: 33
# lost: nothing

# %% q3-update-code
# <the right answer>

import sys

right = online_softmax_update


def online_softmax_update(state, scores, values):
    print("scores of shape", tuple(scores.shape), file=sys.stderr)
    return right(state, scores, values)
