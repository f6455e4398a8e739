#!/usr/bin/env bash
# as-root.sh CMD...: runs the command as root, through sudo where needed; its exit code is the command's, 3 when there is
# no way to become root. Labs are made of namespaces, mounts and packet sockets: they need root.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source-path=SCRIPTDIR
source "$HERE/lib.sh"

need_root "run ${1##*/}"
is_root && exec "$@"

# sudo forgets the environment: keep what people set on purpose. Root's bytecode files must not lie in a user's folder,
# so the user's own are made first and root writes none.
ROOT=$(cd "$HERE/../.." && pwd -P)
"$(sh "$HERE/venv-path.sh")/bin/python" -m compileall -q "$ROOT/plugin" "$ROOT/testbed" >/dev/null 2>&1 || true
keep=(PYTHONDONTWRITEBYTECODE=1)
for name in CI TERM COLUMNS NO_COLOR FORCE_COLOR WEAVELAB_PLAIN HYPOTHESIS_PROFILE UPKEEP_ROUNDS UPKEEP_SEED \
    GITHUB_ACTIONS GITHUB_WORKSPACE GITHUB_STEP_SUMMARY GITLAB_CI; do
    [ -z "${!name:-}" ] || keep+=("$name=${!name}")
done
exec sudo env "${keep[@]}" "$@"
