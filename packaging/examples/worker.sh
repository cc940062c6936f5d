#!/bin/sh
# A worker for settled, see settled-worker(7): it counts the lines of each file. For plain names: a file with a quote,
# a backslash, a control character or bytes that are not UTF-8 in its path is dead. worker-jq.sh takes every name.

work() {
    lines=$(wc -l <"$1") && echo "$job: $lines lines" >&2
}

while IFS= read -r line; do
    job=${line#*\"job\":\"} job=${job%%\"*}
    path=${line#*\"path\":\"} path=${path%%\"*}
    case $path in
    *\\*) result='dead","message":"not a plain name' ;;
    *) if work "$path" </dev/null >&2; then result=done; else result=retry; fi ;;
    esac
    printf '{"job":"%s","result":"%s"}\n' "$job" "$result"
done
