# A cell of the learner's own with a null byte.
# catalogue: 27
# lost: nothing

# %% own-null
x = '<null>'
