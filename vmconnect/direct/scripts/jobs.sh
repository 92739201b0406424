# The background jobs of this user.  $1: what to do; $2: a job's name
#
# A job is a directory: its command as `shown`, `begun`, `pid`, `out` and `err`, at its end `status`.
# Exit codes: 90 no place for it, 91 no such job, 92 it runs, 93 too many.
vmc_room jobs
vmc_what=$1 job=$room/$2

# Sets $state: running, ended, or lost: neither, as after a reboot.
look() {
    code= ended=
    if [ -e "$job/status" ]; then
        state=ended
        read -r code ended <"$job/status"
    elif vmc_read "$job/pid"; vmc_is "${vmc_value:-none}" "jobs.$1."; then
        state=running
    elif [ -e "$job/status" ]; then
        look "$1"
    else
        state=lost
    fi
}

size() {
    vmc_size=0
    [ -r "$1" ] && vmc_size=$(($(wc -c <"$1")))
}

show() {
    look "$1"
    vmc_read "$job/begun"
    begun=$vmc_value
    size "$job/out"
    out=$vmc_size
    size "$job/err"
    err=$vmc_size
    cut=0
    [ -e "$job/out.cut" ] || [ -e "$job/err.cut" ] && cut=1
    late=0
    [ -e "$job/late" ] && late=1
    vmc_read "$job/shown"
    printf '%s %s %s %s %s %s %s %s %s %s\n' "$1" "$state" "${code:--}" "${begun:--}" \
        "${ended:--}" "$out" "$err" "$cut" "$late" "$vmc_value"
}

case $vmc_what in
start)
    # $3: how much of each output is kept, in blocks of 512 bytes; $4: seconds, 0 for ever;
    # $5: whether there is input; $6, $7: scripts; $8: the command to show; then the command.
    limit=$3 seconds=$4 input=$5 supervisor=$6 sweep=$7 shown=$8 name=$2
    shift 8
    set -- "$job" "$name" "$limit" "$seconds" "$sweep" "$vmc_mask" "$@"
    count=0
    for each in "$room"/*/; do
        count=$((count + 1))
    done
    [ "$count" -lt 256 ] || exit 93
    mkdir "$job" || exit 90
    {
        printf '%s\n' "$shown" >"$job/shown" && date +%s >"$job/begun" &&
            mkfifo "$job/out.pipe" "$job/err.pipe" &&
            if [ "$input" = 1 ]; then cat >"$job/in"; else : >"$job/in"; fi
    } || {
        rm -rf "$job"
        exit 90
    }
    export VMCONNECT_RUN="jobs.$name."
    vmc_detach sh -c "$supervisor" vmconnect "$@"
    # It is known to run from when it has said so.
    count=0
    while [ ! -e "$job/pid" ] && [ $count -lt 100 ]; do
        sleep 0.05 2>/dev/null || sleep 1
        count=$((count + 1))
    done
    [ -e "$job/pid" ] || exit 90
    exit 0
    ;;
list)
    for job in "$room"/*/; do
        job=${job%/}
        [ -d "$job" ] && show "${job##*/}"
    done
    exit 0
    ;;
esac

[ -d "$job" ] || exit 91
case $vmc_what in
show)
    show "$2"
    ;;
output)
    # From bytes $3 and $4 on; the exit code tells whether there may be more: 0 not, 92 yes.
    look "$2"
    tail -c "+$(($3 + 1))" "$job/out" 2>/dev/null
    { tail -c "+$(($4 + 1))" "$job/err" >&3; } 3>&2 2>/dev/null
    [ "$state" = running ] && exit 92
    exit 0
    ;;
forget)
    look "$2"
    [ "$state" = running ] && exit 92
    rm -rf "$job"
    ;;
esac
