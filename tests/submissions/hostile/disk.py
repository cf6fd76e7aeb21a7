# A right answer that fills what it may write to, up to 500 MB.
# catalogue: 36
# lost: nothing

# %% q3-update-code
# <the right answer>

try:
    with open("large", "wb") as file:
        for _ in range(500):
            file.write(bytes(10**6))
except OSError:
    pass
