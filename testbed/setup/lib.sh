# shellcheck shell=bash
# What the set-up scripts share: how they speak, how they fail (exit codes as in docs/adr/0012: 3 = the environment lacks something),
# how they become root. Sourced; starts nothing.

# System tools of an ordinary user's machine often lie where only root's PATH looks.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'setup: %s\n' "$*"; }

# fail MESSAGE HINT: the environment lacks something.
fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 3
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

# need_root PURPOSE: returns only where as_root will work.
need_root() {
    is_root && return
    have sudo || fail "wanted root to $1, found user $(id -un) and no sudo" \
        "run the same command as root, or install sudo and allow this user to use it"
    sudo true || fail "wanted root to $1, but sudo refused" \
        "run the same command as root, or in a terminal where sudo can ask for the password"
}

# as_root CMD...: after need_root.
as_root() {
    if is_root; then "$@"; else sudo "$@"; fi
}

# quietly LOG CMD...: the command's output goes to LOG; its exit code is the function's.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null
}
