# What the engines beside this file share: sourced by them, not run.
#
# Some items need others and are listed once those are there. A round lists what is missing, lets the engine do it, and
# lists again: what is done is known by its file alone, so that an engine which was killed, or has lost its own record, costs
# nothing but what was under way.

# rounds ENGINE FORMAT COMMAND..: calls `ENGINE FILE` with what is missing until nothing is, then merges.
rounds() {
    local engine=$1 format=$2 work missing before=
    shift 2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    while :; do
        "$@" --quiet --items --missing --format lines >"$work/items.jsonl"
        missing=$(wc -l <"$work/items.jsonl")
        [ "$missing" -gt 0 ] || break
        if [ "$before" = "$(cksum <"$work/items.jsonl")" ]; then
            echo "$missing items are missing, and a round has done none of them:" >&2
            sed 's/.*"key":"\([^"]*\)".*/  \1/' "$work/items.jsonl" >&2
            exit 1
        fi
        before=$(cksum <"$work/items.jsonl")
        echo "$missing items" >&2
        "$@" --quiet --items --missing --format "$format" >"$work/items"
        "$engine" "$work/items" || true
    done
    "$@" --quiet --merge
}
