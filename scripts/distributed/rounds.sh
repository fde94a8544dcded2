# What the engines beside this file share: sourced by them, not run.
#
# Some items need others and are listed once those are there. A round lists what is missing, lets the engine do it, and
# lists again: what is done is known by its file alone, so that an engine which was killed, or has lost its own record, costs
# nothing but what was under way.

# rounds ENGINE FORMAT COMMAND..: calls `ENGINE FILE` with what is missing until nothing is, then merges.
rounds() {
    local engine=$1 format=$2 work missing before= quiet=(--quiet)
    shift 2
    case " $* " in *" --quiet "*) quiet=() ;; esac
    work=$(mktemp -d)
    # By its value: the variable is gone when the script ends.
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    while :; do
        "$@" "${quiet[@]}" --items --missing --format "$format" >"$work/items"
        # In every format an item is a line with the command that does it.
        missing=$(grep -c -e --run-item "$work/items" || true)
        [ "$missing" -gt 0 ] || break
        if [ "$before" = "$(cksum <"$work/items")" ]; then
            echo "$missing items are missing, and a round has done none of them:" >&2
            grep -o -e '--run-item.*' "$work/items" >&2
            exit 1
        fi
        before=$(cksum <"$work/items")
        echo "items that can be done now: $missing" >&2
        "$engine" "$work/items" || true
    done
    "$@" "${quiet[@]}" --merge
}
