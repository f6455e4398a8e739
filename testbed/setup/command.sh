# shellcheck shell=bash disable=SC2034  # the parts share variables with setup.sh
# Decides what lies outside of the project so that `weavelab` is found by its name, by sudo too, and completed by the
# shell; and takes it away again. Sourced by setup.sh. A file that is not ours is never touched: a note names it.
# DESTDIR, as usual, stands before every path.

COMMAND_LINK=${DESTDIR:-}/usr/local/bin/weavelab

# completion_file SHELL: where that shell looks for what belongs to the machine and to no package.
completion_file() {
    case $1 in
        bash) echo "${DESTDIR:-}/usr/local/share/bash-completion/completions/weavelab" ;;
        zsh) echo "${DESTDIR:-}/usr/local/share/zsh/site-functions/_weavelab" ;;
        fish) echo "${DESTDIR:-}/usr/share/fish/vendor_completions.d/weavelab.fish" ;;
    esac
}

# can_be_root: without a word and without a password, where need_root would end the set-up.
can_be_root() { is_root || { have sudo && sudo -n true 2>/dev/null; }; }

# link_is_ours: there is none, or it leads to this environment, or to one that is no more.
link_is_ours() {
    [ -L "$COMMAND_LINK" ] || { [ ! -e "$COMMAND_LINK" ] && return; }
    case $(readlink "$COMMAND_LINK") in
        "$VENV/bin/weavelab") return 0 ;;
        */bin/weavelab) [ ! -e "$COMMAND_LINK" ] ;;
        *) return 1 ;;
    esac
}

# completion_is_ours FILE: there is none, or it says that we made it.
completion_is_ours() { [ ! -e "$1" ] || grep -qs 'made by `weavelab completion' "$1"; }

# note TEXT: to who asked, or who has just watched something being installed; not before every `make scenario`.
note() {
    if [ "$QUIET" = no ] || [ "$DID_SOMETHING" = yes ]; then say "note: $1"; fi
}

# ensure_command: nothing here is needed for a lab, so nothing here ends the set-up.
ensure_command() {
    local shell
    [ -x "$VENV/bin/weavelab" ] || return 0
    if ! link_is_ours; then
        note "$COMMAND_LINK is another's and stays; this project's command is $VENV/bin/weavelab"
        return 0
    fi
    if [ "$(readlink "$COMMAND_LINK")" != "$VENV/bin/weavelab" ]; then
        if ! can_be_root || ! as_root install -d "${COMMAND_LINK%/*}" 2>/dev/null ||
            ! as_root ln -sfn "$VENV/bin/weavelab" "$COMMAND_LINK" 2>/dev/null; then
            note "could not make $COMMAND_LINK; the command is $VENV/bin/weavelab all the same"
            return 0
        fi
        say "weavelab is on the PATH: $COMMAND_LINK (make uninstall takes it away)"
        DID_SOMETHING=yes
    fi
    for shell in bash zsh fish; do ensure_completion "$shell"; done
}

# ensure_completion SHELL: for a shell that is here; made anew when the Python packages were.
ensure_completion() {
    local shell=$1 file
    file=$(completion_file "$shell")
    have "$shell" && can_be_root || return 0
    if ! completion_is_ours "$file"; then
        note "$file is another's and stays"
        return 0
    fi
    [ ! -e "$file" ] || [ "$DID_SOMETHING" = yes ] || return 0
    "$VENV/bin/weavelab" completion "$shell" >"$SETUP_TMP/completion" 2>/dev/null || return 0
    [ "$(cat "$file" 2>/dev/null)" != "$(cat "$SETUP_TMP/completion")" ] || return 0
    if as_root install -d "${file%/*}" 2>/dev/null && as_root install -m 644 "$SETUP_TMP/completion" "$file" 2>/dev/null; then
        say "$shell completes weavelab: $file"
        DID_SOMETHING=yes
    else
        note "could not write $file; weavelab completion $shell prints it"
    fi
}

# remove_command: what the two above have made.
remove_command() {
    local shell file
    if [ -L "$COMMAND_LINK" ] && link_is_ours; then remove_file "$COMMAND_LINK"; fi
    for shell in bash zsh fish; do
        file=$(completion_file "$shell")
        if [ -e "$file" ] && completion_is_ours "$file"; then remove_file "$file"; fi
    done
}

remove_file() {
    need_root "remove $1"
    as_root rm -f "$1"
    say "removed: $1"
    DID_SOMETHING=yes
}
