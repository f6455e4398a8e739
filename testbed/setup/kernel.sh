# shellcheck shell=bash disable=SC2034  # the parts share variables with setup.sh
# Decides whether this kernel can carry a lab. Sourced by setup.sh.
# Features are tried, not looked up (they may be built in, or load by themselves), in a namespace that is thrown away:
# the machine's own network is not touched.

MODULES=(veth bridge vxlan overlay nf_tables nf_nat nft_masq sch_netem openvswitch)

# probe_kernel: prints one word for each thing that does not work.
probe_kernel() {
    local scratch status=0
    scratch=$(mktemp -d)
    # shellcheck disable=SC2016  # the inner shell expands these
    as_root unshare --net --mount sh -c '
        try() { word=$1; shift; "$@" >/dev/null 2>&1 || echo "$word"; }
        try veth ip link add w-veth type veth peer name w-peer
        try bridge ip link add w-bridge type bridge
        try vxlan ip link add w-vxlan type vxlan id 1 dstport 6784 local 127.0.0.1 dev lo
        mount -t tmpfs weavelab "$1" && mkdir "$1/upper" "$1/work" "$1/lower" "$1/merged" || echo tmpfs
        try overlay mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged"
        try masquerade nft "add table ip w; add chain ip w c { type nat hook postrouting priority 100; }; add rule ip w c masquerade"
        try netem tc qdisc add dev lo root netem delay 1ms
        echo done' probe "$scratch" 2>"$SETUP_TMP/probe" || status=$?
    rmdir "$scratch"
    return $status
}

load_modules() {
    have modprobe || return 0
    as_root modprobe --quiet --all "$@" 2>/dev/null || true
}

# check_kernel: loads what is there and does not load by itself, fails when a lab could not run.
check_kernel() {
    local missing absent
    need_root "look at what this kernel can do"
    missing=$(probe_kernel) || fail "wanted a network and a mount namespace, found: $(head -n 1 "$SETUP_TMP/probe")" \
        "weavelab needs a whole machine or a VM; in a container, a privileged one (docker run --privileged)"
    if [ "$missing" != "done" ]; then
        load_modules "${MODULES[@]}"
        missing=$(probe_kernel)
    fi
    absent=$(grep -xE 'veth|bridge|vxlan|overlay|tmpfs' <<<"$missing" | paste -sd ' ') || true
    [ -z "$absent" ] || fail "wanted a kernel with veth, bridge, vxlan and overlay, found Linux $(uname -r) without: $absent" \
        "install this kernel's full set of modules (Ubuntu: linux-modules-extra-$(uname -r)) or boot the distribution's own kernel"
    ! grep -qx masquerade <<<"$missing" ||
        say "note: this kernel has no nft masquerade (module nft_masq): pods will not reach the outside"
    KERNEL_HAS_NETEM=yes
    ! grep -qx netem <<<"$missing" || KERNEL_HAS_NETEM=no
}

# keep_modules: a machine of ours (a VM) loads at boot what exists there.
keep_modules() {
    local file=/etc/modules-load.d/weavelab.conf name text
    have modprobe || return 0
    text=$(echo "# weavelab's testbed/setup/setup.sh --provision wrote this: what a lab needs and this kernel has"
        for name in "${MODULES[@]}"; do
            ! as_root modprobe --quiet --dry-run "$name" 2>/dev/null || echo "$name"
        done)
    load_modules "${MODULES[@]}"
    [ "$(cat "$file" 2>/dev/null)" = "$text" ] && return
    as_root install -d /etc/modules-load.d
    as_root tee "$file" <<<"$text" >/dev/null
    say "kernel modules are loaded at every boot: $file"
    DID_SOMETHING=yes
}
