#!/usr/bin/env bash
# in-vm.sh TARGET [VARIABLE=VALUE...]: runs a make target of this checkout in its Vagrant VM and returns its exit code.
# in-vm.sh --fetch: copies the VM's reports into build/reports.
#
# The Makefile comes here when `vagrant up` has made a VM of this checkout (a file .vagrant/machines/NAME/PROVIDER/id) and
# NATIVE is not set. Of several VMs the first by name is used; WEAVELAB_VM names another.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$HERE/../.."

# 3 = the environment lacks something
fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 3
}

# The VM's name: of .vagrant/machines/NAME/PROVIDER/id the first that exists.
machine() {
    local id
    if [ -n "${WEAVELAB_VM:-}" ]; then
        echo "$WEAVELAB_VM"
        return
    fi
    for id in .vagrant/machines/*/*/id; do
        [ -s "$id" ] || continue
        id=${id%/*/id}
        echo "${id##*/}"
        return
    done
}

# vagrant status is asked first: from `vagrant ssh` a VM that is off and a check that failed would look the same (1).
need_running() {
    local state
    state=$(vagrant status "$vm" --machine-readable </dev/null | awk -F, '$3 == "state" {print $4; exit}') || true
    [ "$state" = running ] || fail "wanted the running VM '$vm' of this checkout, found it ${state:-unknown to vagrant}" \
        "vagrant up; or run on this machine itself: NATIVE=1 make $target"
}

# The default folder is a one-way copy made by rsync: bring the VM up to date. Other kinds of folder need nothing, and
# `vagrant rsync` then does nothing.
sync_folder() {
    local output
    output=$(vagrant rsync "$vm" 2>&1 </dev/null) || {
        echo "$output" >&2
        fail "wanted this folder copied into the VM '$vm', but vagrant rsync failed (see above)" "vagrant rsync $vm"
    }
}

# A terminal only where there is one on both sides: without it Ctrl-C and the keys of `make demo` would not get through;
# with it a pipe would receive carriage returns.
run_in_vm() {
    local terminal=--no-tty
    [ -t 0 ] && [ -t 1 ] && terminal=--tty
    vagrant ssh "$vm" "$terminal" --command "$1"
}

fetch_reports() {
    local arriving=build/.reports-arriving
    rm -rf "$arriving"
    mkdir -p "$arriving"
    vagrant ssh "$vm" --no-tty --command 'cd /vagrant/build/reports 2>/dev/null && tar -cf - . || tar -cf - -T /dev/null' </dev/null 2>/dev/null |
        tar -xf - -C "$arriving" || return 1
    if [ -z "$(ls -A "$arriving")" ]; then
        rmdir "$arriving"
        return 1
    fi
    rm -rf build/reports
    mv "$arriving" build/reports
}

# remote_command TARGET [VARIABLE=VALUE...]: what the VM's shell is given.
# make would lose the difference between the exit codes 2 and 3, so the scenario script is called without it.
remote_command() {
    local name=$1 variable topology=topologies/two-nodes.yaml arguments='' quoted=''
    shift
    for variable in "$@"; do
        case $variable in
            TOPOLOGY=*) topology=${variable#*=} ;;
            ARGS=*) arguments=${variable#*=} ;;
        esac
        [ -z "${variable#*=}" ] || quoted+=" $(printf '%q' "$variable")"
    done
    if [ "$name" = scenario ]; then
        # ARGS is a list of words, for the remote shell to split as make's would
        echo "cd /vagrant && bash testbed/setup/scenario.sh $(printf '%q' "$topology") $arguments"
    else
        echo "cd /vagrant && NATIVE=1 make --no-print-directory $name$quoted"
    fi
}

target=${1:?usage: in-vm.sh TARGET [VARIABLE=VALUE...] | --fetch}
shift
vm=$(machine)
[ -n "$vm" ] || fail "wanted a VM of this checkout, found none in .vagrant/machines" "vagrant up"

if [ "$target" = --fetch ]; then
    target=fetch
    need_running
    fetch_reports || fail "wanted the reports of the VM '$vm', found none there" "make scenario"
    echo "reports: build/reports (from the VM '$vm')"
    exit 0
fi

echo "running 'make $target' in the VM '$vm' (NATIVE=1 make $target runs it here)"
need_running
sync_folder
status=0
run_in_vm "$(remote_command "$target" "$@")" || status=$?
case $target in
    scenario | test)
        fetch_reports || echo "note: the VM '$vm' has no reports to bring back" >&2
        ;;
esac
exit "$status"
