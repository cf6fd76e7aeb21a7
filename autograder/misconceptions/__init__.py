"""The mistakes that people make, and right answers by other roads, as data: one module for each exercise.

Every function stands by itself (only torch, Triton and the standard library), as it would in a learner's notebook.
"""

import kernels  # noqa: F401  before anything that loads triton: without a GPU, this turns its interpreter on
