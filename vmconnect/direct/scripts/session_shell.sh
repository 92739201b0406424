# The shell of a named session: it reads the names of calls, and does what they say, in itself.
vmc_session=$1
vmc_busy=
shift
# Open both ways it neither waits for the first caller nor ends with the last.
exec 8<>"$vmc_session/request"
# A trap, unlike a signal that is ignored, is not for those that it starts.
trap : PIPE
trap '[ -z "$vmc_busy" ] || return 130' INT
echo $$ >"$vmc_session/pid"
while :; do
    IFS= read -r vmc_call <&8 || continue
    vmc_call=$vmc_session/calls/$vmc_call
    [ -p "$vmc_call/out" ] || continue
    vmc_in=/dev/null
    [ -p "$vmc_call/in" ] && vmc_in=$vmc_call/in
    : >"$vmc_call/started"
    export VMCONNECT_RUN="call.${vmc_call##*/}."
    {
        # Bare, `.` would end a shell at the first error in what it reads.
        vmc_busy=1
        command . "$vmc_call/text"
        vmc_code=$? vmc_busy=
        echo "$vmc_code" >"$vmc_call/status"
    } <"$vmc_in" >"$vmc_call/out" 2>"$vmc_call/err" 8<&-
done
