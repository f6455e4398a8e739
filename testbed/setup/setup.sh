#!/usr/bin/env bash
# Makes this machine ready for weavelab: system packages, the virtual environment, a look at the kernel, the command.
# Installs what is missing, nothing else; a second run says so in under a second. Debian 12 and 13, Ubuntu 24.04;
# on other Linux machines it names what is missing. `make` calls it, and so does Vagrant to provision a VM.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: setup.sh [run|test|bench] [--provision] [--quiet] [--force] [--runtime] [--for=TOPOLOGY]
       setup.sh --uninstall

  run          what labs need (the default)
  test         and what the tests and checks need
  bench        what labs need, and stock Mininet's tools and the reference CNI plugins to compare with
  --provision  this machine is a VM of ours: also load kernel modules at boot, install make
  --quiet      say nothing when there is nothing to do
  --force      install the Python packages anew
  --runtime    also what labs with a real container runtime need (containerd, runc, a static busybox, CNI plugins)
  --for=FILE   the same, if that topology asks for one
  --uninstall  nothing of that: take away what makes the command known to the machine, /usr/local/bin/weavelab and the
               shells' completion; packages and the virtual environment stay

variables: WEAVELAB_PYTHON the Python to use, WEAVELAB_VENV the folder of the virtual environment,
           DESTDIR stands before the paths of command and completion
exit codes: 0 ready, 2 wrong usage, 3 the machine lacks something that could not be had
TEXT
}

LEVEL=run PROVISION=no QUIET=no FORCE=no RUNTIME=no UNINSTALL=no WANTED_BY=
for argument in "$@"; do
    case $argument in
        run | test | bench) LEVEL=$argument ;;
        --provision) PROVISION=yes ;;
        --quiet) QUIET=yes ;;
        --force) FORCE=yes ;;
        --runtime) RUNTIME=yes ;;
        --uninstall) UNINSTALL=yes ;;
        --for=*) WANTED_BY=${argument#--for=} ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            printf 'error: wanted run, test, bench or an option, found %s\n' "$argument" >&2
            usage >&2
            exit 2
            ;;
    esac
done

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(cd "$HERE/../.." && pwd -P)
VENV=$(sh "$HERE/venv-path.sh")
DID_SOMETHING=no

# shellcheck source-path=SCRIPTDIR
source "$HERE/lib.sh"
# shellcheck source-path=SCRIPTDIR
source "$HERE/packages.sh"
# shellcheck source-path=SCRIPTDIR
source "$HERE/runtime.sh"
# shellcheck source-path=SCRIPTDIR
source "$HERE/python.sh"
# shellcheck source-path=SCRIPTDIR
source "$HERE/kernel.sh"
# shellcheck source-path=SCRIPTDIR
source "$HERE/command.sh"

SETUP_TMP=$(mktemp -d)
trap 'rm -rf "$SETUP_TMP"' EXIT

[ "$(uname -s)" = Linux ] || fail "wanted Linux, found $(uname -s)" "run weavelab in a VM: vagrant up, then make scenario"

# Two commands at once (make test beside make scenario) must not install into the same folder. The lock is the project's
# folder itself, so that nothing is left behind; a share that cannot lock goes without.
if have flock; then
    exec 9<"$ROOT"
    flock 9 2>/dev/null || true
fi

ensure_system() {
    local packages=("${PACKAGES_RUN[@]}") tools=("${TOOLS_RUN[@]}")
    if [ "$LEVEL" = bench ]; then
        packages+=("${PACKAGES_BENCH[@]}")
        tools+=("${TOOLS_BENCH[@]}")
    fi
    [ "$PROVISION" = no ] || packages+=(make)
    if uses_apt; then ensure_packages "${packages[@]}"; else ensure_tools "${tools[@]}"; fi
    if [ "$RUNTIME" = yes ] || wants_runtime "$WANTED_BY"; then ensure_runtime; fi
}

EXTRAS=run
[ "$LEVEL" != test ] || EXTRAS=dev

# Where the environment lies outside the project, `.venv/bin/weavelab` works all the same, if the folder can hold a link.
link_venv() {
    [ -z "${WEAVELAB_VENV:-}" ] && [ "$VENV" != "$ROOT/.venv" ] || return 0
    [ -e "$ROOT/.venv" ] || ln -sfn "$VENV" "$ROOT/.venv" 2>/dev/null || true
}

if [ "$UNINSTALL" = yes ]; then
    remove_command
    [ "$DID_SOMETHING" = yes ] || say "nothing to remove"
    exit 0
fi

ensure_system
ensure_venv "$EXTRAS"
link_venv
# `make lint` and its like come here with `test --quiet`: they run no lab and must not need root.
if [ "$LEVEL" != test ] || [ "$QUIET" = no ]; then
    check_kernel
    ensure_command
fi
if [ "$PROVISION" = yes ]; then
    keep_modules
    [ "$DID_SOMETHING" = no ] || say "kernel $(uname -r): netem $KERNEL_HAS_NETEM"
fi
if [ "$LEVEL" = test ]; then
    try_packages "$VENV/.weavelab-test-packages" "${PACKAGES_TEST[@]}"
    try_runtime "$VENV/.weavelab-test-runtime"
fi

if [ "$DID_SOMETHING" = yes ]; then
    say "ready"
elif [ "$QUIET" = no ]; then
    say "nothing to do"
fi
