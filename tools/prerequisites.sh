#!/bin/sh
# Prints the Python interpreter to build the environment with, or one sentence that says what is missing.
# PYTHON, where given, is taken and nothing else is tried.
set -u

missing() {
    printf 'The course cannot be set up yet: %s\n' "$1" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || missing "it needs Linux (Triton has no build for $(uname -s)); use a Linux machine, a container or WSL 2."

# Running an interpreter is the only test that holds: a name on PATH may be a version manager's empty shim.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

found=
if [ -n "${PYTHON:-}" ]; then
    is_new_enough "$PYTHON" && found=$PYTHON
    if [ -z "$found" ]; then
        version=$(version_of "$PYTHON") || missing "PYTHON=$PYTHON does not run; give the name or path of a Python 3.11, 3.12 or 3.13."
        missing "PYTHON=$PYTHON is Python $version, and 3.11, 3.12 or 3.13 is needed; give one of those, or leave PYTHON out."
    fi
else
    for candidate in python3 python3.12 python3.11 python3.13; do
        if is_new_enough "$candidate"; then
            found=$candidate
            break
        fi
    done
    if [ -z "$found" ]; then
        version=$(version_of python3) || version=
        if [ -n "$version" ]; then
            missing "python3 is Python $version, and 3.11, 3.12 or 3.13 is needed; on Debian: apt-get install python3.11 python3.11-venv, then again."
        fi
        missing "there is no Python; on Debian: apt-get install python3 python3-venv, then again."
    fi
fi

# Debian keeps ensurepip, without which venv cannot make an environment, in a package of its own.
if ! "$found" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    version=$(version_of "$found")
    missing "Python $version has no venv module; on Debian: apt-get install python$version-venv, then again."
fi

printf '%s\n' "$found"
