# %% title [markdown]
# # Lesson 4: Design like a staff engineer
#
# You can build a kernel. Here you decide: which one is faster and for whom, how a kind of attention that nobody has written yet
# is brought in, and which of two kernels is lying.
#
# 1. a benchmark that can be wrong, and says so (question 11);
# 2. a new backend: latent-compressed KV against the contract (question 12);
# 3. a debugging path: one backend is right, another is not, and you cannot look inside (question 13).
#
# **After it you can**
# - plan a serving benchmark, say what would refute its hypothesis, and conclude no more than its spread supports;
# - bring a new attention backend up against vLLM's three classes, and say what of the rest serves it unchanged;
# - find a fault in a kernel by differential testing, make the failing case small, and name it.
#
# | part | what you do | time | difficulty |
# | --- | --- | --- | --- |
# | 1 | plan a benchmark, run it, conclude | 60 min | ●●○ |
# | 2 | three classes for latent-compressed KV | 60 min | ●●● |
# | 3 | hunt faults in closed backends | 50 min | ●●● |
# | 4 | grade yourself; where to reread | 10 min | ●○○ |
#
# About three hours. After each part there is a **natural stop**.

# %% how-to-work [markdown]
# **No GPU needed.** Without one, Part 1 replays kernel times that the course measured on a GPU, under the same scheduler, and says so;
# Parts 2 and 3 run in torch and in Triton's interpreter.
#
# **Predict first**, write it down, then reveal. **Check as often as you like.** **Ten minutes stuck, not an hour**: each
# exercise has folds below it and `autograder.hint("...")` in a new cell. Taking the last hint is fine.

# %% setup nbgrader={"locked": true}
import torch

import autograder
import course
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on

device = kernels.device()
print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())

# %% q11-read [markdown]
# ## Part 1: A benchmark that can be wrong

# %% q12-read [markdown]
# ## Part 2: A new backend

# %% q13-read [markdown]
# ## Part 3: Garbage

# %% remember [markdown]
# ### What to remember
