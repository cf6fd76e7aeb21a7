# One cell has a schema version of the future.
# catalogue: 18
# lost: nothing

# %% q3-update nbgrader={"schema_version": 99}
