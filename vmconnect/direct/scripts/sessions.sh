# The named sessions of this user.  $1: what to do; $2: a session's name
#
# A session is a directory: `kind`, `begun`, `pid`, `request` (a FIFO that takes the names of calls),
# at its end `ended`, and `calls`. A call is a directory: `text`, `out`, `err` and perhaps `in` (FIFOs),
# `pid` of who waits for it with its mark, `started`, and at its end `status`.
# Exit codes: 90 no place for it, 91 no such session, 93 too many, 94 it has ended, 95 another kind.
vmc_room sessions
vmc_what=$1 name=$2 session=$room/$2

pause() {
    sleep 0.05 2>/dev/null || sleep 1
}

alive() {
    [ ! -e "$session/ended" ] && vmc_read "$session/pid" && vmc_is "${vmc_value:-none}" "session.$name."
}

# Makes the session, unless it is there.  $1: kind; $2: keeper.sh; $3: what it runs
open_session() {
    count=0
    if mkdir "$session" 2>/dev/null; then
        for each in "$room"/*/; do
            count=$((count + 1))
        done
        if [ $count -gt 64 ]; then
            rm -rf "$session"
            exit 93
        fi
        echo "$1" >"$session/kind"
        date +%s >"$session/begun"
        mkdir "$session/calls" && mkfifo "$session/request" || exit 90
        (
            export VMCONNECT_RUN="sessions.$name."
            vmc_detach sh -c "$2" vmconnect "$session" "$name" "$1" "$3" "$vmc_mask"
        )
        count=0
    fi
    [ -d "$session" ] || exit 90
    while [ ! -e "$session/pid" ] && [ ! -e "$session/ended" ] && [ $count -lt 1000 ]; do
        pause
        count=$((count + 1))
    done
    # It takes its time where the machine is busy.
    [ -e "$session/pid" ] || [ -e "$session/ended" ] || exit 90
    alive || exit 94
    vmc_read "$session/kind"
    [ "$vmc_value" = "$1" ] || exit 95
}

case $vmc_what in
list)
    for session in "$room"/*/; do
        session=${session%/}
        [ -d "$session" ] || continue
        name=${session##*/}
        state=ended code=-
        vmc_read "$session/ended" && code=${vmc_value:--}
        alive && state=ready
        for each in "$session"/calls/*/started; do
            [ $state = ready ] && [ -e "$each" ] && [ ! -e "${each%started}status" ] && state=busy
        done
        vmc_read "$session/kind"
        kind=$vmc_value
        # Without one it is being made at this moment, or was cut short as it was.
        [ -n "$kind" ] || continue
        vmc_read "$session/begun"
        printf '%s %s %s %s %s\n' "$name" "$kind" "$state" "$code" "${vmc_value:--}"
    done
    exit 0
    ;;
call)
    # $3: the call's name; $4: whether there is input; $5: the line that ends the text, which
    # comes first on the input; $6: kind; $7: keeper.sh; $8: what it runs
    call=$session/calls/$3 id=$3 input=$4 end=$5
    open_session "$6" "$7" "$8"
    mkdir "$call" || exit 90
    # In other locales some shells take a newline for a part of a cut character.
    while LC_ALL=C IFS= read -r line && [ "$line" != "$end" ]; do
        printf '%s\n' "$line"
    done >"$call/text"
    mkfifo "$call/out" "$call/err" || exit 90
    [ "$input" = 1 ] && mkfifo "$call/in"
    exec 3<&0 </dev/null
    cat "$call/out" &
    out=$!
    cat "$call/err" >&2 &
    err=$!
    in=
    if [ "$input" = 1 ]; then
        cat <&3 >"$call/in" &
        in=$!
    fi
    exec 3<&-
    # Each may have ended long ago, and its number be another's by now.
    leave() {
        for copier in $out $err $in; do
            vmc_is "$copier" "$VMCONNECT_RUN" && kill "$copier" 2>/dev/null
        done
    }
    # The keeper says so when the session has ended. What it wrote may be on its way still.
    told=
    trap 'told=1; [ -e "$call/started" ] && sleep 1; leave' USR1
    trap 'leave; rm -rf "$call"; exit 143' TERM HUP INT
    echo "$$ $VMCONNECT_RUN" >"$call/pid"
    if alive; then
        echo "$id" 1<>"$session/request"
    else
        leave
    fi
    for each in $out $err; do
        wait "$each" 2>/dev/null
        # A wait ends with a trap.
        [ -z "$told" ] || wait "$each" 2>/dev/null
    done
    out= err=
    leave
    if vmc_read "$call/status"; then
        rm -rf "$call"
        exit "$vmc_value"
    fi
    rm -rf "$call"
    # An exit code would be taken for that of what was run.
    kill -USR2 $$
    ;;
esac

[ -d "$session" ] || exit 91
case $vmc_what in
ended)
    # Prints how it has ended, or exits with 92: it has not.
    alive && exit 92
    vmc_read "$session/ended"
    echo "${vmc_value:--}"
    ;;
signal | stop)
    # $3: the call's name; $4: a signal; $5: sweep.sh
    call=$session/calls/$3
    [ -d "$call" ] || exit 1
    if [ ! -e "$call/started" ]; then
        # It waits for its turn, and is taken back.
        vmc_send TERM "$call/pid"
        exit 0
    fi
    alive && shell=$vmc_value || exit 1
    if [ "$vmc_what" = signal ]; then
        [ "$4" = INT ] && kill -INT "$shell"
        sh -c "$5" vmconnect "call.$3." each "$4"
        [ "$4" = INT ] && exit 0
        exit
    fi
    kill -INT "$shell"
    sh -c "$5" vmconnect "call.$3." tree "$4"
    count=0
    while [ -d "$call" ] && [ ! -e "$call/status" ] && [ $count -lt 20 ]; do
        pause
        count=$((count + 1))
    done
    # A shell that goes on by itself can only be ended.
    [ ! -d "$call" ] || [ -e "$call/status" ] || sh -c "$5" vmconnect "session.$name." end TERM
    exit 0
    ;;
close)
    # $3: sweep.sh
    sh -c "$3" vmconnect "session.$name." end HUP
    sh -c "$3" vmconnect "sessions.$name." end TERM
    for each in "$session"/calls/*/pid; do
        vmc_send USR1 "$each"
    done
    rm -rf "$session"
    ;;
esac
