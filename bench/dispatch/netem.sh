#!/bin/sh
# Delays what leaves this network for one TCP port by a round trip; what comes back is not held up again.
# Usage: netem.sh PORT MILLISECONDS COMMAND [ARGUMENT ...]      the command runs once that is so
set -eu
port=$1 delay=$2
shift 2
device=$(ip -o route show default | sed 's/.* dev \([^ ]*\).*/\1/;q')
# Nothing goes to band 4 by itself: the neighbours' packets pass through here as well.
tc qdisc replace dev "$device" root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
tc qdisc add dev "$device" parent 1:4 handle 40: netem delay "${delay}ms" limit 100000
tc filter add dev "$device" parent 1: protocol ip prio 1 u32 match ip dport "$port" 0xffff flowid 1:4
exec "$@"
