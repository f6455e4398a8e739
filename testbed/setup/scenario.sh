#!/usr/bin/env bash
# scenario.sh TOPOLOGY [OPTION...]: sets up what is missing, runs the topology's scenarios, leaves the reports in
# build/reports. The exit code is weavelab's own: 0 everything holds, 1 a check failed, 2 wrong usage or input, 3 the
# environment lacks something. `make scenario` is this script; make itself turns 3 into 2 (leave-make.sh says why).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(cd "$HERE/../.." && pwd -P)
VENV=$(sh "$HERE/venv-path.sh")
REPORTS=build/reports

finish() {
    local meaning
    case $1 in
        0) meaning="everything holds" ;;
        1) meaning="a check failed" ;;
        2) meaning="wrong usage or input" ;;
        3) meaning="the environment lacks something" ;;
        130) meaning="interrupted" ;;
        *) meaning="weavelab itself failed; please report it" ;;
    esac
    echo "weavelab: exit code $1 ($meaning)"
    exit "$1"
}

if [ $# -eq 0 ] || [ -z "$1" ]; then
    echo "error: wanted a topology file, found none" >&2
    echo "hint: make scenario TOPOLOGY=topologies/two-nodes.yaml" >&2
    finish 2
fi
topology=$1
shift

cd "$ROOT"
needs=("--for=$topology")
case " $* " in *" --kubelet containerd "* | *" --kubelet=containerd "*) needs+=(--runtime) ;; esac
bash "$HERE/setup.sh" run --quiet "${needs[@]}" || finish $?

# Reports of an earlier run must not pass for this one's, and a user's folder stays the user's.
mkdir -p "$REPORTS"
rm -f "$REPORTS"/{report.html,report.json,junit.xml}

status=0
bash "$HERE/as-root.sh" "$VENV/bin/weavelab" run --topology "$topology" \
    --html "$REPORTS/report.html" --junit "$REPORTS/junit.xml" "$@" || status=$?
if [ "$(id -u)" != 0 ]; then
    sudo -n chown -R "$(id -u):$(id -g)" "$REPORTS" 2>/dev/null || true
fi
[ ! -e "$REPORTS/report.html" ] || echo "reports: $REPORTS/report.html $REPORTS/junit.xml"
finish "$status"
