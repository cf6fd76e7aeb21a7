"""A pytest plugin for tools/sanitize.sh: no kernel is launched before the one in front of it has ended.

compute-sanitizer rewrites kernels, and does not expect that two of one stream run at once.
"""

import kernels.runtime

kernels.runtime.EARLY_LAUNCHES = False
