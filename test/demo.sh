#!/usr/bin/env bash
# The whole story on real servers (ArangoDB's is simulated), in a directory of its own: start, fill, back up, wreck, restore, compare.
# Ends with EQUAL and status 0 only if an oracle that shares no code with the product finds the estate as it was.
#   KEEP=1        leave everything running, and say how to go on
#   ONLY=a,b      only these components (default: all that the lab has)
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/bin:$PATH"
begin=$(date +%s)
dir=$(mktemp -d "${TMPDIR:-/tmp}/cso-demo-XXXXXX") # short: a socket's path may have 107 bytes
tools=$(mktemp -d "${TMPDIR:-/tmp}/cso-demo-tools-XXXXXX")
export PATH="$tools:$PATH"

bold= dim= good= bad= off=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' good=$'\e[1;32m' bad=$'\e[1;31m' off=$'\e[0m'
fi
step=0
say() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$off"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; }
run() { # a run that ends with warnings (status 3) is told by its own output
	local status=0
	show "$@"
	"$@" || status=$?
	[ "$status" = 0 ] || [ "$status" = 3 ]
}
fingerprint() { show lab fingerprint --dir "$dir" --summary; lab fingerprint --dir "$dir" --summary | tee "$dir/$1"; }

finish() {
	local status=$?
	if [ "${KEEP:-}" = 1 ] && [ -e "$dir/lab.json" ]; then
		printf '\nStill running in %s. To go on with it:\n  export PATH=%q:"$PATH"\n  eval "$(%s/bin/lab env --dir %s)"\n' "$dir" "$PWD/bin" "$dir" "$dir"
		printf 'To end it:\n  %s/bin/lab down --dir %s && rm -rf %s\n' "$dir" "$dir" "$dir"
	elif [ -e "$dir/lab.json" ]; then
		lab down --dir "$dir" && rm -rf "$dir"
	else
		rm -rf "$dir"
	fi
	rm -rf "$tools"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

go build -o "$tools/lab" ./test/lab/cmd/lab

say "Start real servers, cso-temporald and a worker"
echo "Cassandra and Elasticsearch are fetched with Maven the first time (about 100 MB, a minute) and kept in ${CSO_LAB_CACHE:-~/.cache/cso-lab}."
run lab up --dir "$dir" ${ONLY:+--only "$ONLY"}
eval "$(lab env --dir "$dir")"
[ -z "${LAB_ARANGODB_1_URL:-}" ] || printf '%sArangoDB is SIMULATED: no server can be had from a package registry%s\n' "$dim" "$off"

say "Fill them with what a CSO installation holds, and with every value that careless tools lose"
run lab fill --dir "$dir" --seed 9 --size small

say "Back up everything, in maintenance mode until all data is pinned"
run cso_backupnrestore -b backup -s MAR09 -m yes

say "Look at it"
run cso_backupnrestore -b listbackups

say "Fingerprint the estate through the servers' own clients"
fingerprint before

say "Wreck the estate: change, delete and add at every level"
run lab wreck --dir "$dir" --seed 9
fingerprint wrecked
while read -r _ component sum; do
	if grep -q "^fingerprint $component $sum\$" "$dir/before"; then
		printf '%s%s was not wrecked: the comparison would prove nothing%s\n' "$bad" "$component" "$off"
		exit 1
	fi
	printf '%s: %sdiffers%s\n' "$component" "$bad" "$off"
done <"$dir/wrecked"

say "Restore: the plan, a safety backup of what is overwritten, the data, the proof"
run cso_backupnrestore -b restore -s MAR09

say "Fingerprint again, and compare"
fingerprint after
if ! run diff "$dir/before" "$dir/after"; then
	printf '%sNOT EQUAL%s\n' "$bad" "$off"
	exit 1
fi
printf '%sEQUAL%s\n' "$good" "$off"

say "What the backup holds"
run cso_backupnrestore -b backupdetails -s MAR09

printf '\nEvery step of both runs is in the Temporal Web UI%s: %s/namespaces/cso/workflows\n' \
	"$([ "${KEEP:-}" = 1 ] || echo ' (until this ends; KEEP=1 make demo leaves it running)')" "$LAB_UI_URL"
printf '%sEQUAL%s after %d s\n' "$good" "$off" "$(($(date +%s) - begin))"
