#!/bin/sh
# Prints the folder of the virtual environment. One decision, asked by the Makefile and by the set-up alike.
#
# Usually `.venv` at the project's root. In a virtual machine the project is a folder shared with the host: some shares
# hold no symbolic links (VirtualBox; `python3 -m venv` dies of it), all of them show the host an environment made for
# another machine. So there it lies outside the share.
# WEAVELAB_VENV, when set, is the answer.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd -P)
in_vm=/opt/weavelab/venv

if [ -n "${WEAVELAB_VENV:-}" ]; then
    echo "$WEAVELAB_VENV"
    exit
fi

case $root in
    /vagrant | /vagrant/*) # the Vagrantfile puts the project there, whatever the kind of share
        echo "$in_vm"
        exit
        ;;
esac

case $(stat --file-system --format=%T "$root" 2>/dev/null || echo unknown) in
    vboxsf | vmhgfs | fuse* | prl_fs | cifs | smb* | v9fs | exfat | msdos | ntfs*) echo "$in_vm" ;;
    *) echo "$root/.venv" ;;
esac
