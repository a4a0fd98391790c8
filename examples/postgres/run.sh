#!/usr/bin/env bash
# A private PostgreSQL, reached from another company's network through an end-to-end encrypted portal.
#
#   ./run.sh            builds the binary, lays out the networks, plays every part, checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time, also after a failed run
#
# Every company is a network namespace of this machine behind one router:
#
#   portolan-hub        10.90.1.2   runs the project; the only one that listens for others
#   portolan-bank       10.90.2.2   PostgreSQL on its own loopback; nothing may connect in
#   portolan-analysis   10.90.3.2   psql; nothing may connect in
#   portolan-stranger   10.90.4.2   a member without the attribute that the bank asks for
#
# What each company runs is in hub.sh, bank.sh, analysis.sh and stranger.sh: plain `portolan` commands. All of them run as
# the user `nobody`. See README.md beside this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=/var/lib/portolan-example-postgres
companies=(hub bank analysis stranger)
user=nobody
hub_address=10.90.1.2:4000
# How much COPY moves each way, in rows of 100 bytes.
copy_rows=${COPY_ROWS:-2000000}
pgbench_seconds=${PGBENCH_SECONDS:-10}

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    printf 'Logs and data are in %s; %s/run.sh cleanup removes everything.\n' "$work" "$here" >&2
    exit 1
}

if [ "$(id -u)" != 0 ]; then
    echo "$0 needs root: it makes network namespaces and packet filters. Try: sudo $0 $*" >&2
    exit 1
fi
export PATH=$PATH:/usr/sbin:/sbin

cleanup() {
    local name pids
    for name in "${companies[@]}" router; do
        [ -e "/run/netns/portolan-$name" ] || continue
        # Everything that this script starts lives in one of the namespaces, and nothing else does. First asked to stop
        # (PostgreSQL gives its shared memory back then), then made to.
        for signal in INT KILL; do
            pids=$(ip netns pids "portolan-$name" || true)
            [ -n "$pids" ] || break
            # shellcheck disable=SC2086
            kill -"$signal" $pids 2>/dev/null || true
            for _ in $(seq 60); do
                [ -n "$(ip netns pids "portolan-$name" || true)" ] || break
                sleep 0.05
            done
        done
        ip netns delete "portolan-$name"
    done
    rm -rf "$work"
}

case ${1:-} in
    '') ;;
    cleanup)
        cleanup
        echo "removed: namespaces portolan-*, their processes, $work"
        exit 0
        ;;
    *)
        echo "usage: $0 [cleanup]" >&2
        exit 2
        ;;
esac

"$here/../../tests/needs" ip ss nft tcpdump runuser postgresql || fail "something is missing"
postgres_bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
cleanup
mkdir -p "$work/bin"
chmod 755 "$work"
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# --- the binary ----------------------------------------------------------------------------------------------------------
if [ -z "${PORTOLAN_BIN:-}" ]; then
    step "building"
    (cd "$here/../.." && cargo build --release --locked)
    PORTOLAN_BIN=$here/../../target/release/portolan
fi
# Where every company's user can read it.
install -m 755 "$PORTOLAN_BIN" "$work/bin/portolan"

# --- the networks --------------------------------------------------------------------------------------------------------
step "networks: four companies behind a router"
ip netns add portolan-router
ip -n portolan-router link set lo up
index=0
for name in "${companies[@]}"; do
    index=$((index + 1))
    ip netns add "portolan-$name"
    # No IPv6, whose housekeeping would be counted by the packet filters.
    ip netns exec "portolan-$name" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "portolan-$name" link add eth0 type veth peer name "to-$name" netns portolan-router
    ip -n "portolan-$name" address add "10.90.$index.2/24" dev eth0
    ip -n portolan-router address add "10.90.$index.1/24" dev "to-$name"
    ip -n "portolan-$name" link set lo up
    ip -n "portolan-$name" link set eth0 up
    ip -n portolan-router link set "to-$name" up
    ip -n "portolan-$name" route add default via "10.90.$index.1"
    install -d -o "$user" -m 700 "$work/$name"
done
ip netns exec portolan-router sysctl -qw net.ipv4.ip_forward=1
# Bank and analysis: nothing comes in that does not answer something that went out. The counter `knocks` says how often
# somebody tried.
for name in bank analysis; do
    ip netns exec "portolan-$name" nft -f - <<'RULES'
table inet closed {
    counter knocks { }
    counter answers { }
    chain input {
        type filter hook input priority 0; policy drop;
        iifname "lo" accept
        ct state established,related counter name answers accept
        counter name knocks drop
    }
}
RULES
done

in_company() { # in_company NAME COMMAND...: as the company's user, in its network, with its home
    local name=$1
    shift
    ip netns exec "portolan-$name" runuser -u "$user" -- env -i PATH="$work/bin:/usr/bin:/bin" HOME="$work/$name" \
        PORTOLAN_HOME="$work/$name/home" HUB_ADDRESS="$hub_address" "$@"
}
counter() { # counter NAME COUNTER: packets counted so far
    ip netns exec "portolan-$1" nft list counter inet closed "$2" | sed -nE 's/.*packets ([0-9]+).*/\1/p'
}
psql_at() { # psql_at NAME PORT ARGUMENTS...: psql in that company's network, towards that company's own localhost
    local name=$1 port=$2
    shift 2
    in_company "$name" env PGCONNECT_TIMEOUT=5 "$postgres_bin/psql" -X -q -v ON_ERROR_STOP=1 -h localhost -p "$port" -U analyst -d ledger "$@"
}

# --- the database --------------------------------------------------------------------------------------------------------
step "bank: PostgreSQL on 127.0.0.1:5432, and nowhere else"
install -d -o postgres -m 700 "$work/database"
as_postgres() { ip netns exec portolan-bank runuser -u postgres -- "$@"; }
(
    cd "$work/database"
    as_postgres "$postgres_bin/initdb" -D "$work/database/data" -A trust --locale=C -E UTF8 >"$work/initdb.log"
    as_postgres "$postgres_bin/pg_ctl" -D "$work/database/data" -l "$work/database/log" -w -t 30 start >"$work/pg_ctl.log" -o \
        "-c listen_addresses=127.0.0.1 -c port=5432 -c unix_socket_directories=$work/database -c fsync=off -c max_wal_size=4GB"
    as_postgres "$postgres_bin/createuser" -h 127.0.0.1 analyst
    as_postgres "$postgres_bin/createdb" -h 127.0.0.1 -O analyst ledger
)
note "$("$postgres_bin/postgres" --version)"

# --- the project, and two tickets ----------------------------------------------------------------------------------------
step "hub: a project, and one-time tickets for bank, analysis and a stranger"
in_company hub "$here/hub.sh" >"$work/hub.out"
ticket() { in_company hub portolan project ticket --usage-count 1 --expires-in 10m "$@"; }
bank_ticket=$(ticket --attribute postgres-outlet --relay postgres)
analysis_ticket=$(ticket --attribute postgres-inlet)
stranger_ticket=$(ticket --attribute something-else)

# --- captures: what the hub sees, and as a control what bank's loopback sees ------------------------------------------------
canary="canary-$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')"
capture() { # capture NAME INTERFACE FILTER...: starts a capture in the background and waits until it listens
    local name=$1 interface=$2
    shift 2
    ip netns exec "portolan-$name" tcpdump -i "$interface" --immediate-mode -U -s 0 -B 8192 -Z root -w "$work/$name.pcap" "$@" 2>"$work/$name.tcpdump" &
    for _ in $(seq 100); do
        grep -q 'listening on' "$work/$name.tcpdump" && return
        sleep 0.05
    done
    fail "tcpdump in $name does not start: $(cat "$work/$name.tcpdump")"
}
capture hub eth0
hub_capture=$!
capture bank lo tcp port 5432
bank_capture=$!

# --- the portal ----------------------------------------------------------------------------------------------------------
step "bank: enroll, node, relay, policy, outlet"
in_company bank env ENROLLMENT_TICKET="$bank_ticket" "$here/bank.sh" >"$work/bank.out"
step "analysis: enroll, node, policy, inlet"
in_company analysis env ENROLLMENT_TICKET="$analysis_ticket" "$here/analysis.sh" >"$work/analysis.out"

step "analysis: SQL on localhost:15432"
for try in $(seq 30); do
    psql_at analysis 15432 -c 'select 1' >"$work/first.log" 2>&1 && break
    [ "$try" -lt 30 ] || fail "no connection through the portal: $(cat "$work/first.log")"
    sleep 0.5
done
psql_at analysis 15432 <<SQL
create table accounts (id int primary key, owner text, balance numeric);
insert into accounts values (1, '$canary', 100.50), (2, 'B', 200.25), (3, 'C', 300.75);
SQL
rows=$(psql_at analysis 15432 -At -c 'select count(*), sum(balance) from accounts')
[ "$rows" = "3|601.50" ] || fail "expected 3|601.50, got $rows"
owner=$(psql_at analysis 15432 -At -c 'select owner from accounts where id = 1')
[ "$owner" = "$canary" ] || fail "expected $canary, got $owner"
note "a table created, 3 rows inserted, selected: $rows"

step "hub: what the capture shows"
kill "$hub_capture" "$bank_capture"
wait "$hub_capture" "$bank_capture" || true
captured=$(stat -c %s "$work/hub.pcap")
grep -qa "$canary" "$work/bank.pcap" || fail "the control failed: the capture on bank's loopback does not show the row"
[ "$captured" -gt 4000 ] || fail "the hub's capture has only $captured bytes"
! grep -qaE "$canary|accounts|insert into" "$work/hub.pcap" || fail "the hub saw plaintext"
note "$captured bytes captured: neither the row '$canary' nor any SQL; on bank's loopback both are there"

step "analysis: pgbench, 8 clients, $pgbench_seconds s"
pgbench() { in_company analysis "$postgres_bin/pgbench" -h localhost -p 15432 -U analyst "$@" ledger; }
pgbench -i -q -s 10 >"$work/pgbench.log" 2>&1 || fail "pgbench -i: $(tail -n 3 "$work/pgbench.log")"
pgbench -c 8 -j 2 -T "$pgbench_seconds" >"$work/pgbench.log" 2>&1 || fail "pgbench: $(tail -n 3 "$work/pgbench.log")"
grep -q 'number of failed transactions: 0 ' "$work/pgbench.log" || fail "pgbench: $(grep failed "$work/pgbench.log")"
note "$(grep 'transactions actually processed' "$work/pgbench.log"), $(grep '^tps' "$work/pgbench.log"), none failed"

step "analysis: COPY out and in"
psql_at bank 5432 -c "create unlogged table big as select lpad(n::text, 10, '0') as id, md5(n::text) || md5((n + 1)::text) || lpad(n::text, 24, 'x') as value from generate_series(1, $copy_rows) as n"
expected=$(psql_at bank 5432 -c 'copy big to stdout' | sha256sum)
from=$(date +%s%N)
psql_at analysis 15432 -c 'copy big to stdout' >"$work/big"
out=$(date +%s%N)
size=$(stat -c %s "$work/big")
[ "$(sha256sum <"$work/big")" = "$expected" ] || fail "COPY out: $size bytes that are not the table's"
psql_at analysis 15432 -c 'create unlogged table big_again (like big)'
in=$(date +%s%N)
psql_at analysis 15432 -c 'copy big_again from stdin' <"$work/big"
done_in=$(date +%s%N)
[ "$(psql_at bank 5432 -c 'copy big_again to stdout' | sha256sum)" = "$expected" ] || fail "COPY in: the tables differ"
rm "$work/big"
rate() { echo "$((size * 1000 / ($2 - $1))) MB/s"; }
note "$((size / 1000000)) MB out at $(rate "$from" "$out"), in at $(rate "$in" "$done_in"), checksums equal"

step "stranger: a member without the attribute is refused, and so is a used ticket"
in_company stranger env ENROLLMENT_TICKET="$stranger_ticket" "$here/stranger.sh" >"$work/stranger.out"
if psql_at stranger 15432 -c 'select 1' >"$work/stranger.log" 2>&1; then
    fail "the stranger reached the database"
fi
note "psql: $(grep -m 1 -v '^$' "$work/stranger.log")"
if in_company stranger env PORTOLAN_HOME="$work/stranger/second-home" portolan project enroll "$analysis_ticket" >"$work/stranger.log" 2>&1; then
    fail "a used ticket was accepted"
fi
note "portolan: $(grep -m 1 -v '^$' "$work/stranger.log")"
psql_at analysis 15432 -c 'select 1' >"$work/first.log" || fail "analysis lost its portal"

# --- the packet filters --------------------------------------------------------------------------------------------------
step "packet filters: nothing connected into bank or analysis, and nothing can"
for name in bank analysis; do
    [ "$(counter "$name" knocks)" = 0 ] || fail "$name: $(counter "$name" knocks) packets tried to come in"
    [ "$(counter "$name" answers)" -gt 0 ] || fail "$name: the filter counted no packet at all"
    note "$name: 0 packets from outside that were not asked for, $(counter "$name" answers) answers"
done
for name in bank analysis; do
    exposed=$(ip netns exec "portolan-$name" ss -Htln | awk '$4 !~ /^(127\.|\[::1\])/ { print $4 }')
    [ -z "$exposed" ] || fail "$name listens beyond its loopback: $exposed"
done
note "neither listens beyond its own loopback"
knock() { # knock ADDRESS PORT: from the hub; succeeds when it gets in
    ip netns exec portolan-hub timeout 1 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
}
! knock 10.90.2.2 5432 || fail "the hub reached bank's database"
! knock 10.90.3.2 15432 || fail "the hub reached analysis's inlet"
for name in bank analysis; do
    [ "$(counter "$name" knocks)" -gt 0 ] || fail "$name: the filter does not count"
done
note "a knock from the hub at both: dropped and counted"

trap - ERR
printf '\nThe example run was successful: analysis used the database of bank through the portal.\n'
printf 'Everything is still running; %s/run.sh cleanup removes it.\n' "$here"
