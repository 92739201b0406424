# Runs one job, and keeps what it writes.
# $1: its directory; $2: its name; $3: blocks of output; $4: seconds; $5: sweep.sh; $6: its umask;
# then its command
job=$1 name=$2 limit=$3 seconds=$4 sweep=$5 mask=$6
shift 6
umask 077

# Keeps standard input in file $1, as it comes. Not `head`: that may keep back what it has read.
keep() {
    (
        ulimit -c 0
        ulimit -f "$limit"
        exec cat >"$1"
    ) 2>/dev/null || {
        : >"$1.cut"
        cat >/dev/null
    }
    : >"$1.end"
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

keep "$job/out" <"$job/out.pipe" &
keep "$job/err" <"$job/err.pipe" &
watch=
if [ "$seconds" != 0 ]; then
    (
        # TERM may come when it sleeps already and its number is not known yet. And KILL, because
        # until it is a sleep it is a shell, in which TERM can be lost.
        over=
        trap 'over=1' TERM
        sleep "$seconds" &
        sleep=$!
        trap 'kill -KILL $sleep 2>/dev/null; exit' TERM
        [ -z "$over" ] || {
            kill -KILL $sleep
            exit
        }
        wait $sleep && : >"$job/late" && sh -c "$sweep" vmconnect "job.$name." end TERM
    ) &
    watch=$!
fi
echo $$ >"$job/pid"
leader=
command -v setsid >/dev/null && leader=setsid
umask "$mask"
VMCONNECT_RUN=job.$name. $leader "$@" <"$job/in" >"$job/out.pipe" 2>"$job/err.pipe"
code=$?
umask 077
if [ -e "$job/late" ]; then
    wait "$watch"
elif [ -n "$watch" ]; then
    kill "$watch" 2>/dev/null
fi
# What it wrote last may be on its way still. What it has left behind may write for ever.
count=0
while [ ! -e "$job/out.end" ] || [ ! -e "$job/err.end" ]; do
    [ $count -lt 20 ] || break
    count=$((count + 1))
    pause
done
echo "$code $(date +%s)" >"$job/status.new"
mv "$job/status.new" "$job/status"
rm -f "$job/in" "$job/out.pipe" "$job/err.pipe" "$job/out.end" "$job/err.end"
