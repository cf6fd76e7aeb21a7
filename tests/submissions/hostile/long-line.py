# 30 MB in one line. Harmless.
# catalogue: 32
# lost: nothing

# %% q3-update-code
# <the right answer>
print('x' * 30_000_000)
