# shellcheck shell=bash disable=SC2034  # the parts share variables with setup.sh
# Decides which system packages are missing and installs those, through apt and nothing else. Sourced by setup.sh.
# Where there is no apt it looks for the tools themselves, and names the absent ones.

PACKAGES_RUN=(iproute2 iputils-ping iperf3 tcpdump nftables procps util-linux)
TOOLS_RUN=(ip ping iperf3 tcpdump nft sysctl unshare flock)

# For the comparison with stock Mininet: its hosts need `mnexec` (package mininet; without the recommended packages it
# brings eight small ones and no Open vSwitch), its LinuxBridge needs brctl, its links ifconfig and ethtool.
# And what CNI calls are compared with: the reference plugins (in no folder of the PATH; bench/cni.py looks for them).
PACKAGES_BENCH=(mininet bridge-utils ethtool net-tools containernetworking-plugins)
TOOLS_BENCH=(mnexec brctl ethtool ifconfig)

# Some tests need these, and are skipped without: Vagrantfile (ruby, rsync), scripts (shellcheck), firewalls (iptables),
# offloads and benchmarks.
# Vagrant itself is large; it is had where nobody waits, in CI.
PACKAGES_TEST=(ruby rsync shellcheck iptables "${PACKAGES_BENCH[@]}")
[ -z "${CI:-}" ] || PACKAGES_TEST+=(vagrant vagrant-libvirt)

uses_apt() { have apt-get && have dpkg-query; }

# missing_packages NAME...: those that are not installed, one a line.
missing_packages() {
    local installed name
    # dpkg-query fails as soon as one name is unknown to it: that is an answer here, not an error
    installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for name in "$@"; do
        grep -qx "$name installed" <<<"$installed" || echo "$name"
    done
}

missing_tools() {
    local name
    for name in "$@"; do have "$name" || echo "$name"; done
}

APT_LISTS_FRESH=no

# Noninteractive (iperf3 asks about a daemon: the default, none, stands), waits for the lock that a machine's daily
# update may hold, restarts no service of the machine.
APT=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get --quiet --yes -o DPkg::Lock::Timeout=300)

# apt_update LOG: the package lists, once.
apt_update() {
    local log=$1 waited_s
    [ "$APT_LISTS_FRESH" = no ] || return 0
    # The option above does not cover the lock of the package lists. Any other failure must not stop us (one broken
    # foreign source, say): whether the packages can be had is decided by the installation.
    for ((waited_s = 0; waited_s < 300; waited_s += 5)); do
        ! quietly "$log.update" as_root "${APT[@]}" update || break
        grep -q 'Could not get lock' "$log.update" || break
        sleep 5
    done
    APT_LISTS_FRESH=yes
}

# apt_install LOG NAME...
apt_install() {
    local log=$1
    shift
    apt_update "$log"
    quietly "$log" as_root "${APT[@]}" install --no-install-recommends "$@"
}

# apt_failed LOG NAME...: says so, and ends.
apt_failed() {
    local log=$1
    shift
    tail -n 15 "$log" >&2
    grep -hE '^(E|Err|W:)' "$log.update" 2>/dev/null | tail -n 5 >&2 || true
    fail "wanted the packages $*, but apt-get could not install them (its last lines are above)" \
        "check the network and 'sudo apt-get update', then run the same command again"
}

# ensure_packages NAME...
ensure_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "install the packages: ${missing[*]}"
    say "installing system packages: ${missing[*]}"
    log=$SETUP_TMP/apt
    apt_install "$log" "${missing[@]}" || apt_failed "$log" "${missing[@]}"
    DID_SOMETHING=yes
}

# ensure_tools NAME...: a machine without apt; nothing is installed.
ensure_tools() {
    local missing
    mapfile -t missing < <(missing_tools "$@")
    [ ${#missing[@]} -eq 0 ] || fail "wanted the tools $*, found no ${missing[*]}, and no apt to install them with" \
        "install ${missing[*]} with this machine's own package manager, then run the same command again"
}

# try_packages MARK NAME...: nice to have. Nobody is asked for a password for them; an absent one is mentioned and no more,
# and tried once: MARK is a file that says for which ones that was done.
try_packages() {
    local mark=$1 missing
    shift
    uses_apt || return 0
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] && [ "$(cat "$mark" 2>/dev/null)" != "$*" ] || return 0
    is_root || sudo -n true 2>/dev/null || return 0
    say "installing system packages for tests: ${missing[*]}"
    apt_install "$SETUP_TMP/apt" "${missing[@]}" || say "note: could not install ${missing[*]}; tests that want them are skipped"
    echo "$*" >"$mark"
    DID_SOMETHING=yes
}
