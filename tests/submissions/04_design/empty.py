# The released notebook, handed in untouched.
