#!/bin/sh
# Makes .venv, or leaves it alone when it already holds what pyproject.toml and constraints.txt ask for.
# PYTHON: the interpreter to make it with. TORCH=cpu: the CPU-only torch, a much smaller download.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.made
python=$venv/bin/python
torch=${TORCH:-}

case $torch in
    "" | cpu) ;;
    *) printf 'TORCH=%s is not known: leave it out, or give TORCH=cpu for the CPU-only torch.\n' "$torch" >&2; exit 1 ;;
esac

# The folder is part of the stamp because the scripts in an environment hold its full path; PYTHON is, where it is given.
wanted() {
    { pwd -P; cat pyproject.toml constraints.txt tools/environment.sh; } | sha256sum | cut -d ' ' -f 1
}

made_wanted=; made_torch=; made_python=
if [ -f "$stamp" ]; then
    { read -r made_wanted && read -r made_torch && read -r made_python; } < "$stamp" || true
fi
[ -n "$torch" ] || torch=${made_torch:-default}
wanted=$(wanted)

if [ "$wanted" = "$made_wanted" ] && [ "$torch" = "$made_torch" ] && [ -x "$python" ] \
    && { [ -z "${PYTHON:-}" ] || [ "$PYTHON" = "$made_python" ]; }; then
    exit 0
fi

base=$(sh tools/prerequisites.sh)
rm -f "$stamp"

# An environment that another interpreter made, or that was moved here, is made again from nothing.
home=$(pwd -P)
if [ -x "$python" ] && [ "$("$python" -c 'import os, sys; print(os.path.realpath(sys.prefix))' 2>/dev/null)" = "$home/$venv" ] \
    && [ "$("$python" -c 'import sys; print(sys.version_info[:2])')" = "$("$base" -c 'import sys; print(sys.version_info[:2])')" ] \
    && grep -qsF "$home/$venv" "$venv/bin/activate" && [ "${torch}" = "${made_torch:-$torch}" ]; then
    printf 'Renewing the environment in %s\n' "$venv"
else
    printf 'Making the environment in %s with %s (a few minutes)\n' "$venv" "$("$base" --version)"
    rm -rf "$venv"
    "$base" -m venv "$venv"
fi

# Someone who watches sees the downloads go on; a log stays short.
quiet=--quiet
[ ! -t 1 ] || quiet=
pip() {
    "$python" -m pip --disable-pip-version-check $quiet "$@"
}

if [ "$torch" = cpu ]; then
    pin=$(sed -n 's/^torch==//p' constraints.txt)
    if "$python" -c "import torch, sys; sys.exit(torch.version.cuda is not None)" 2>/dev/null; then
        :   # There already.
    elif pip install -c constraints.txt "torch==$pin+cpu" 2>/dev/null; then
        :   # pip's own configuration offers it.
    else
        # uv knows where the CPU builds are published.
        pip install -c constraints.txt uv
        if ! "$python" -m uv pip install $quiet --python "$python" --torch-backend cpu -c constraints.txt "torch==$pin"; then
            printf 'The CPU-only torch %s could not be installed (see above); run make without TORCH=cpu for the usual one.\n' "$pin" >&2
            exit 1
        fi
    fi
fi

pip install -c constraints.txt -e '.[dev]'
# JupyterLab asks every new user whether to fetch its news. A lesson is no place for that.
"$python" -m jupyter labextension disable --level sys_prefix "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1

printf '%s\n%s\n%s\n' "$wanted" "$torch" "${PYTHON:-$base}" > "$stamp"
printf 'The environment is ready. What this machine can do: %s/bin/course doctor\n' "$venv"
