# Where this user's things of ours are kept in the guest: sets $room to a private directory.  $1: a name
vmc_room() {
    vmc_mask=$(umask)
    umask 077
    room=${XDG_STATE_HOME:-${HOME:-/nonexistent}/.local/state}/vmconnect
    if ! { mkdir -p "$room/$1" 2>/dev/null && [ -w "$room/$1" ]; }; then
        # A home that cannot be written. In a directory that all may write only one that is ours will do.
        room=/tmp/vmconnect-$(id -u)
        mkdir -m 700 "$room" 2>/dev/null
        [ -d "$room" ] && [ ! -L "$room" ] && [ -O "$room" ] && mkdir -p "$room/$1" || {
            echo "there is no place for a private directory" >&2
            exit 90
        }
    fi
    room=$room/$1
}

# Whether process $1 is ours and has $2 for its mark: its number alone may be another's by now.
vmc_is() {
    [ -O "/proc/$1" ] && tr '\0' '\n' 2>/dev/null <"/proc/$1/environ" | grep -qxF "VMCONNECT_RUN=$2"
}

# Sends signal $1 to the process whose number and mark file $2 has, if it is still that one.
vmc_send() {
    [ -r "$2" ] && IFS=' ' read -r vmc_pid vmc_whose <"$2" && vmc_is "$vmc_pid" "$vmc_whose" &&
        kill "-$1" "$vmc_pid" 2>/dev/null
}

# Runs "$@" with no parent that waits for it. Not by `&`: a shell has what it starts so ignore SIGINT
# and SIGQUIT. setsid turns into its command, unless it leads a process group: then it forks and leaves.
vmc_detach() {
    if command -v setsid >/dev/null; then
        setsid sh -c 'exec setsid "$@"' vmconnect "$@" </dev/null >/dev/null 2>&1
    else
        (trap '' HUP; "$@" </dev/null >/dev/null 2>&1 &)
    fi
}

vmc_read() {
    vmc_value=
    [ -r "$1" ] && IFS= read -r vmc_value <"$1"
}
