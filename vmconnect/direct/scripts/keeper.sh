# Runs one named session, and tells who waits for it when it has ended. Comes after room.sh.
# $1: its directory; $2: its name; $3: its kind; $4: what it runs; $5: its umask
session=$1 name=$2 kind=$3 text=$4
umask "$5"
# The user's own shell, where it is one that can be told what to do.
shell=sh
case ${SHELL:-} in
*/bash | */dash | */ash | */ksh | */mksh) shell=$SHELL ;;
esac
case $kind in
python) set -- python3 -c "$text" "$session" ;;
*) set -- "$shell" -c "$text" vmconnect "$session" ;;
esac
leader=
command -v setsid >/dev/null && leader=setsid
VMCONNECT_RUN=session.$name. $leader "$@"
code=$?
umask 077
[ -d "$session" ] || exit
echo $code >"$session/ended"
for each in "$session"/calls/*/pid; do
    vmc_send USR1 "$each"
done
