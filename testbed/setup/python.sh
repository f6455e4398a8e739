# shellcheck shell=bash disable=SC2034  # the parts share variables with setup.sh
# Decides which Python the virtual environment is made with, and when it is up to date. Sourced by setup.sh.

PYTHONS_TRIED=()

# find_python: sets PYTHON to the first interpreter that is 3.11 to 3.13 and can make a virtual environment.
# Every match on PATH is asked, by running it: the shims of pyenv stand on PATH for versions that are not active and fail
# only then, and Debian's python3 lacks ensurepip until python3-venv is there.
find_python() {
    local name path answer
    PYTHON=
    PYTHONS_TRIED=()
    for name in ${WEAVELAB_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        while read -r path; do
            answer=$("$path" -c '
import sys
version = sys.version_info[:2]
text = "%d.%d" % version
try:
    import ensurepip, venv
except ImportError:
    text += " without venv"
print("ok" if (3, 11) <= version <= (3, 13) and "without" not in text else text)' 2>/dev/null </dev/null) || answer="does not start"
            if [ "$answer" = ok ]; then
                PYTHON=$path
                return 0
            fi
            PYTHONS_TRIED+=("$path ($answer)")
        done < <(type -aP "$name")
    done
    return 1
}

ensure_python() {
    find_python && return
    if uses_apt && [ -z "${WEAVELAB_PYTHON:-}" ]; then
        ensure_packages python3 python3-venv
        find_python && return
    fi
    local found="none"
    [ ${#PYTHONS_TRIED[@]} -eq 0 ] || found=$(printf '%s, ' "${PYTHONS_TRIED[@]}")
    fail "wanted Python 3.11, 3.12 or 3.13 able to make a virtual environment, found ${found%, }" \
        "install one (Debian 12 and 13 and Ubuntu 24.04 have it as python3 and python3-venv), or name it: WEAVELAB_PYTHON=/path/to/python3.12 make setup"
}

# What an up-to-date environment says of itself. EXTRAS is run or dev; dev includes run.
stamp_text() {
    printf 'extras %s\nproject %s\npython %s\npyproject %s\n' "$1" "$ROOT" \
        "$("$VENV/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || echo none)" \
        "$(sha256sum <"$ROOT/pyproject.toml")"
}

stamp_is() { [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(stamp_text "$1")" ]; }

venv_is_current() {
    [ -z "${WEAVELAB_PYTHON:-}" ] || venv_is_usable || return 1
    stamp_is dev || { [ "$1" = run ] && stamp_is run; }
}

# A kept environment must start, be of a supported version and, when the user names a Python, be of that one.
venv_is_usable() {
    "$VENV/bin/python" -c '
import subprocess, sys
import pip
wanted = sys.argv[1]
assert (3, 11) <= sys.version_info[:2] <= (3, 13)
if wanted:
    asked = subprocess.check_output([wanted, "-c", "import sys; print(sys.version.split()[0])"], text=True)
    assert asked.strip() == sys.version.split()[0]' "${WEAVELAB_PYTHON:-}" >/dev/null 2>&1 </dev/null
}

ensure_venv_folder() {
    local parent=${VENV%/*}
    if [ -e "$VENV" ]; then
        [ -w "$VENV" ] && return
        fail "wanted to write the virtual environment $VENV, found it owned by $(stat --format=%U "$VENV")" \
            "run this command as that user, or remove the folder first: sudo rm -r $VENV"
    fi
    [ -w "$parent" ] && return
    need_root "make the folder $VENV"
    as_root install -d "$parent"
    as_root install -d -o "$(id -u)" -g "$(id -g)" "$VENV"
}

# ensure_venv run|dev
ensure_venv() {
    local extras=$1 log=$SETUP_TMP/pip wanted
    STAMP=$VENV/.weavelab-setup
    [ "$FORCE" = yes ] || ! venv_is_current "$extras" || return 0
    # whoever had the development tools keeps them
    grep -qsx 'extras dev' "$STAMP" && extras=dev
    ensure_venv_folder
    if ! venv_is_usable; then
        ensure_python
        say "making the virtual environment $VENV with $PYTHON"
        quietly "$log" "$PYTHON" -m venv --clear "$VENV" || {
            tail -n 10 "$log" >&2
            fail "wanted a virtual environment in $VENV, but $PYTHON could not make it (its last lines are above)" \
                "on Debian and Ubuntu: sudo apt-get install python3-venv; or choose another folder with WEAVELAB_VENV"
        }
    fi
    wanted=$ROOT
    [ "$extras" = run ] || wanted="${ROOT}[dev]"
    say "installing Python packages into $VENV (a minute or two the first time)"
    # A plain path entry: the finder that setuptools installs otherwise costs every start of an agent 25 ms.
    rm -f "$STAMP"
    if ! quietly "$log" env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1 \
        "$VENV/bin/python" -m pip install --quiet --config-settings editable_mode=compat --editable "$wanted"; then
        tail -n 15 "$log" >&2
        pip_failed "$log"
    fi
    stamp_text "$extras" >"$STAMP"
    DID_SOMETHING=yes
}

# pip says "no matching distribution" as its last word whenever it could not ask: look for the reason first.
pip_failed() {
    if grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Temporary failure in name resolution|Network is unreachable|Max retries exceeded' "$1"; then
        fail "wanted weavelab's Python packages, but pip could not reach its package registry (its last lines are above)" \
            "check the network, the proxy (HTTPS_PROXY) and pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip config list), then run the same command again"
    fi
    fail "wanted weavelab's Python packages, but pip could not install them (its last lines are above)" \
        "check 'pip config list' and the free space in $VENV, then run the same command again"
}
