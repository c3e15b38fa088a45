#!/bin/bash
# Starts one rendering resource as a batch job. All that differs between
# resources is data, in the file rrm-launch: words that each end with NUL. No
# value is ever read as shell code.
word() { IFS= read -r -d '' "$1" <&3; }
fail() { printf 'rrm: %s\n' "$1" >&2; exit 98; }

exec 3<rrm-launch || fail 'the file rrm-launch is missing'
word mark && word listen && word first && word ports && word start && word runtime && word dir && word modules || fail 'the file rrm-launch is cut off'

# What comes from modules may be overridden by the resource's own environment, so they come first.
if ((modules > 0)) && ! type module >/dev/null 2>&1; then
	for f in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh; do
		if [ -r "$f" ]; then . "$f"; fi
	done
fi
for ((i = 0; i < modules; i++)); do
	word m || fail 'the file rrm-launch is cut off'
	module load "$m" || fail "the environment module $m cannot be loaded"
done

IFS= read -r node 2>/dev/null </proc/sys/kernel/hostname || node=$(hostname)
case $listen in
'') host=$node reach=$node ;;
0.0.0.0 | ::) host=$listen reach=$node ;;
*) host=$listen reach=$listen ;;
esac

# A port that nobody listens on; another resource begins elsewhere to look for one.
# Whoever takes it in between makes the renderer fail, and another be started.
for ((try = 0; try < 50; try++)); do
	port=$((first + (start + try) % ports))
	(exec 4<>"/dev/tcp/$reach/$port") 2>/dev/null || break
done

command=()
word words || fail 'the file rrm-launch is cut off'
for ((i = 0; i < words; i++)); do
	word w || fail 'the file rrm-launch is cut off'
	w=${w//"$mark-host"/"$host"}
	w=${w//"$mark-port"/"$port"}
	command+=("$w")
done
exec 3<&-

printf '%s %s %s %s %s\n' "$reach" "$port" "$node" "$(date +%s)" "$runtime" >rrm-address.new && mv -f rrm-address.new rrm-address ||
	fail 'the address cannot be written'
if [ -n "$dir" ]; then cd -- "$dir" || fail 'the working directory cannot be entered'; fi
exec env "${command[@]}"
