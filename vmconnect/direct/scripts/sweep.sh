# Signals, or ends, what one command has started.  $1: its mark; $2: what to do; $3: a signal
#
#   main  to the process groups that the command runs in, as a terminal's Ctrl-C would be
#   each  to each of its processes alone
#   tree  as end, but to none of those that share their session and have another mark
#   end   the signal to all of its processes, and SIGKILL to those that are left about a second later
#
# A process is known by the mark in its first environment, or by being in a session with one that
# is: some overwrite their environment. Exit code 1: there is none; 2: some are left.
#
# The mark is no secret, and root sees the environments of all: so another user can give it to
# processes of theirs. Those may get the signal, which is theirs to bear; but they vouch for no other
# process of their session or group, which may be anybody's.
vmc_mark=VMCONNECT_RUN=$1 vmc_what=$2 vmc_signal=$3

# Reads /proc/PID/stat. A name with a newline in it cuts the line short: it has too few fields then.
look() {
    IFS= read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    set -f
    set -- ${line##*) }
    set +f
    [ $# -gt 20 ] && [ "$1" != Z ] || return 1
    parent=$2 group=$3 session=$4
}

# Sets $marked. One program reads all environments, and what one says may look like another's name:
# so each that is found is looked at again.
marked() {
    marked=
    for each in $(
        head -n 10000 /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' |
            sed -n -e '/^==> .proc.[0-9]*.environ <==$/h' -e "/^$vmc_mark\$/{x;p;x;}"
    ); do
        each=${each#/proc/}
        each=${each%/environ}
        case $each in *[!0-9]* | "") continue ;; esac
        tr '\0' '\n' 2>/dev/null <"/proc/$each/environ" | grep -qxF "$vmc_mark" &&
            marked="$marked $each"
    done
}

# Whether session $1 was begun over this connection: it is led by a child of the same server.
is_here() {
    [ -n "$server" ] && look "$1" && [ "$parent" = "$server" ]
}

# Whether who started process $1 is who we are: a setuid program's real user is who started it.
is_ours() {
    real=$(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null)
    [ "$real" = "$us" ]
}

# Notes in $sessions whose they are, once each.
note_sessions() {
    [ "$vmc_what" = end ] || return
    for each in $marked; do
        look "$each" || continue
        case " $sessions $mine " in *" $session "*) continue ;; esac
        theirs=$session
        [ "$theirs" -gt 1 ] && { is_here "$theirs" || is_ours "$each"; } &&
            sessions="$sessions $theirs"
    done
}

# Sets $pids. Names can have lines in them, so here too each is looked at again.
everybody() {
    pids=$marked
    for theirs in $sessions; do
        for each in $(cat /proc/[0-9]*/stat 2>/dev/null |
            sed -n "s/^\([0-9]*\) (.*) [^Z] [0-9]* [0-9]* $theirs .*/\1/p"); do
            case " $pids " in *" $each "*) continue ;; esac
            look "$each" && [ "$session" = "$theirs" ] && pids="$pids $each"
        done
    done
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

sessions= mine= server= us=$(id -u)
look $$ && mine=$session
[ -n "$mine" ] && look "$mine" && [ "$parent" -gt 1 ] && server=$parent
marked
case $vmc_what in
each)
    [ -n "$marked" ] || exit 1
    kill "-$vmc_signal" $marked 2>/dev/null
    exit 0
    ;;
main)
    # What was not started over this connection are daemons that the command has left behind.
    main= other=
    for pid in $marked; do
        look "$pid" || continue
        theirs=-$group
        [ "$group" -gt 1 ] || continue
        if is_here "$session"; then
            case " $main " in *" $theirs "*) ;; *) main="$main $theirs" ;; esac
        else
            is_ours "$pid" || theirs=$pid
            case " $other " in *" $theirs "*) ;; *) other="$other $theirs" ;; esac
        fi
    done
    [ -n "${main:-$other}" ] || exit 1
    for each in ${main:-$other}; do
        kill "-$vmc_signal" "$each" 2>/dev/null
    done
    exit 0
    ;;
esac

round=0
while note_sessions; everybody; [ -n "$pids" ]; do
    case $round in
    0) kill "-$vmc_signal" $pids 2>/dev/null ;;
    [1-9]) ;;
    40) exit 2 ;;
    *) kill -KILL $pids 2>/dev/null ;;
    esac
    # A process that is stopped takes no signal but one.
    [ $round = 0 ] && [ "$vmc_signal" != KILL ] && kill -CONT $pids 2>/dev/null
    pause
    round=$((round + 1))
    marked
done
[ $round -gt 0 ]
