#!/usr/bin/env bash
# leave-make.sh CODE MAKE_PID: ends the make that runs a recipe with CODE, as far as make lets us.
# The last command of a recipe line: `command || bash testbed/setup/leave-make.sh $$? $$PPID`.
#
# GNU make exits 2 whenever a recipe fails, whatever the recipe's own code was. There is one way to its exit code 1: on
# SIGQUIT it waits for its children and exits 1, silently (fatal_error_signal in make's commands.c). So "a check failed"
# leaves `make scenario` as 1; 0 and 2 are themselves; 3 comes out as 2, after make's own line "Error 3". Whoever must
# tell 3 from 2 runs testbed/setup/scenario.sh instead, or reads the line `weavelab: exit code 3`.
set -euo pipefail

code=$1 make_pid=$2

# make_status FIELD: the hexadecimal signal mask FIELD of the make process; 0 when that is gone.
make_status() { awk -v field="$1:" '$1 == field {print "0x" $2}' "/proc/$make_pid/status" 2>/dev/null || echo 0; }

sigquit=$((1 << 2))
# Where the signal is ignored (a background job of a script) make would go on as if nothing had happened.
if [ "$code" = 1 ] && (($(make_status SigCgt) & sigquit)); then
    kill -QUIT "$make_pid"
    # Stay until make has begun to handle it: a child that ends in the same instant confuses its count of children.
    for ((tries = 0; tries < 500; tries++)); do
        (($(make_status ShdPnd) & sigquit)) || exit 0
        sleep 0.01
    done
fi
exit "$code"
