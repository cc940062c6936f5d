#!/bin/sh
# A worker for settled, see settled-worker(7): it counts the lines of each file, whatever its name. Takes batches, too.
# One jq(1) reads all jobs, and says of each: its name, and its path as printf(1) takes it after %b.

work() {
    lines=$(wc -l <"$1") && echo "$job: $lines lines" >&2
}

jq -r --unbuffered '
    def octal: "\\0\(. / 64 | floor)\(. / 8 | floor % 8)\(. % 8)";
    def nibble: if . > 57 then . - 87 else . - 48 end;
    (.jobs // [.])[] | .job + " " + ([
        if .path_hex then .path_hex | scan("..") | explode | map(nibble) | .[0] * 16 + .[1] | octal
        else .path | explode[] | if . <= 32 or . == 92 then octal else [.] | implode end
        end
    ] | add)' |
    while read -r job path; do
        path=$(printf '%bx' "$path") path=${path%x}
        if work "$path" </dev/null >&2; then result=done; else result=retry; fi
        printf '{"job":"%s","result":"%s"}\n' "$job" "$result"
    done
