# shellcheck shell=bash disable=SC2034  # the parts share variables with setup.sh
# The packages of labs with a real container runtime (`kubelet: containerd`). Sourced by setup.sh, after packages.sh.
# A machine keeps what it has: Docker's containerd is taken as it is, and no package is removed for ours.

PACKAGES_RUNTIME=(containerd runc busybox-static containernetworking-plugins)
TOOLS_RUNTIME=(containerd runc ctr busybox)

# wants_runtime FILE: whether a topology asks for one.
wants_runtime() { grep -qsE "^kubelet:[[:space:]]*[\"']?containerd" "$1"; }

# runtime_missing: the packages that are not there, one a line.
runtime_missing() {
    local name
    # Docker's package containerd.io brings both programs, and apt would remove it, and Docker with it, for Debian's.
    if [ -z "$(missing_packages containerd.io)" ]; then
        missing_packages "${PACKAGES_RUNTIME[@]}" | while read -r name; do
            case $name in containerd | runc) ;; *) echo "$name" ;; esac
        done
    else
        missing_packages "${PACKAGES_RUNTIME[@]}"
    fi
}

# install_runtime LOG NAME...
install_runtime() {
    local log=$1 removed
    shift
    apt_update "$log"
    # busybox-static takes the place of busybox: the same program, without the need for libraries.
    removed=$(env DEBIAN_FRONTEND=noninteractive apt-get --simulate install --no-install-recommends "$@" 2>/dev/null |
        sed -n 's/^Remv \([^ ]*\).*/\1/p' | grep -vx busybox | paste -s -d ' ' || true)
    if [ -n "$removed" ]; then
        echo "E: apt-get would remove $removed for $*; remove them yourself if you do not need them" >"$log"
        return 1
    fi
    case " $* " in
        *" containerd "*) without_service containerd.service apt_install "$log" "$@" ;;
        *) apt_install "$log" "$@" ;;
    esac
}

# without_service UNIT CMD...: the service that comes with a package is neither started nor enabled. A lab starts its own
# containerd on each node; one that runs for the machine would serve nobody.
without_service() (
    unit=$1
    shift
    if have systemctl; then
        as_root systemctl --quiet mask "$unit" >/dev/null 2>&1 || true
        # Also when the installation is interrupted: a unit that stays masked would puzzle whoever wants it later.
        trap 'as_root systemctl --quiet unmask "$unit" >/dev/null 2>&1 || true
              as_root systemctl --quiet disable "$unit" >/dev/null 2>&1 || true' EXIT
    fi
    "$@"
)

# ensure_runtime: what a topology needs.
ensure_runtime() {
    local missing log
    uses_apt || {
        ensure_tools "${TOOLS_RUNTIME[@]}"
        return 0
    }
    mapfile -t missing < <(runtime_missing)
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "install the packages: ${missing[*]}"
    say "installing system packages for labs with containerd: ${missing[*]}"
    log=$SETUP_TMP/apt
    install_runtime "$log" "${missing[@]}" || apt_failed "$log" "${missing[@]}"
    DID_SOMETHING=yes
}

# try_runtime MARK: as try_packages, for tests.
try_runtime() {
    local missing
    uses_apt || return 0
    mapfile -t missing < <(runtime_missing)
    [ ${#missing[@]} -gt 0 ] && [ "$(cat "$1" 2>/dev/null)" != "${missing[*]}" ] || return 0
    is_root || sudo -n true 2>/dev/null || return 0
    say "installing system packages for tests: ${missing[*]}"
    install_runtime "$SETUP_TMP/apt" "${missing[@]}" ||
        say "note: could not install ${missing[*]}; tests with containerd are skipped"
    runtime_missing | paste -s -d ' ' >"$1"
    DID_SOMETHING=yes
}
