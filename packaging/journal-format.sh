# A journal that a newer version has written is not for this one: say so before anything is changed. Its files begin
# with eight letters and the version of their format, settled-journal(5).
refuse_newer_journal() {
    reads=@FORMAT@
    state=$(sed -n 's/^[[:space:]]*state[[:space:]]*=[[:space:]]*["'\'']\([^"'\'']*\)["'\''].*/\1/p' \
        /etc/settled/settled.toml 2>/dev/null | head -n 1)
    state=${state:-/var/lib/settled}
    for file in "$state"/*.log "$state"/*.base; do
        [ -f "$file" ] || continue
        # shellcheck disable=SC2046 # ten numbers
        set -- $(od -An -v -tu1 -N10 "$file" 2>/dev/null)
        [ "$#" -eq 10 ] && [ "$1 $2 $3 $4 $5 $6 $7 $8" = "83 69 84 84 76 69 68 74" ] || continue
        shift 8
        format=$(($1 + 256 * $2))
        [ "$format" -gt "$reads" ] || continue
        echo "settled @VERSION@ reads journals up to format $reads; $file is of a newer version, in format $format." >&2
        echo "Nothing was changed. Either keep the newer version, or have this one begin without its memory:" >&2
        echo "stop settled, and then: mv $state $state.newer" >&2
        echo "Files that are still in watched directories count as new then." >&2
        return 1
    done
}
