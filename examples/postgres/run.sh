#!/usr/bin/env bash
# A private PostgreSQL, reached from another company's network through an end-to-end encrypted portal: with psql, pgbench and
# COPY, to see that it carries what a database is used for.
#
#   ./run.sh            builds the binary, lays out the networks, plays every part, checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time, also after a failed run
#
#   bank        10.90.2.2   PostgreSQL on its own loopback; nothing may connect in
#   analysis    10.90.3.2   psql on localhost:15432; nothing may connect in
#   hub         10.90.1.2   runs the project; the only one that listens for others
#   outsider    10.90.4.2   a member without the attribute that the bank asks for
#
# What the companies run is in bank.sh and analysis.sh: plain `portolan` commands. See README.md beside this file.
example=postgres
network=10.90
companies=(bank analysis)
# How much COPY moves each way, in rows of 100 bytes.
copy_rows=${COPY_ROWS:-2000000}
pgbench_seconds=${PGBENCH_SECONDS:-10}
# shellcheck source-path=SCRIPTDIR source=../lib/walkthrough.sh
source "$(dirname "$0")/../lib/walkthrough.sh"
begin "$@"
needs postgresql runuser
postgres_bin=$(dirname "$(postgres_program initdb)")
install_portolan
make_networks

psql_at() { # psql_at NAME PORT ARGUMENTS...: psql in that company's network, towards that company's own localhost
    local name=$1 port=$2
    shift 2
    in_company "$name" env PGCONNECT_TIMEOUT=5 "$postgres_bin/psql" -X -q -v ON_ERROR_STOP=1 -h localhost -p "$port" -U analyst -d ledger "$@"
}
probe() { psql_at "$1" 15432 -c 'select 1' </dev/null; }

# --- the database --------------------------------------------------------------------------------------------------------
step "bank: PostgreSQL on 127.0.0.1:5432, and nowhere else"
install -d -o postgres -m 700 "$work/database"
as_postgres() { ip netns exec "$(namespace bank)" runuser -u postgres -- "$@"; }
as_postgres "$postgres_bin/initdb" -D "$work/database/data" -A trust --locale=C -E UTF8 >"$work/initdb.log"
as_postgres "$postgres_bin/pg_ctl" -D "$work/database/data" -l "$work/database/log" -w -t 30 start >"$work/pg_ctl.log" -o \
    "-c listen_addresses=127.0.0.1 -c port=5432 -c unix_socket_directories=$work/database -c fsync=off -c max_wal_size=4GB" ||
    fail "PostgreSQL does not start: $(tail -n 3 "$work/database/log")"
as_postgres "$postgres_bin/createuser" -h 127.0.0.1 analyst
as_postgres "$postgres_bin/createdb" -h 127.0.0.1 -O analyst ledger
note "$("$postgres_bin/postgres" --version)"

# --- the project, and two tickets ----------------------------------------------------------------------------------------
start_project
bank_ticket=$(ticket --expires-in 10m --attribute postgres-outlet --relay postgres)
analysis_ticket=$(ticket --expires-in 10m --attribute postgres-inlet)
start_captures lo 5432

# --- the portal ----------------------------------------------------------------------------------------------------------
step "bank: enroll, node, relay, policy, outlet"
run_script bank "$bank_ticket" "$here/bank.sh"
step "analysis: enroll, node, policy, inlet"
run_script analysis "$analysis_ticket" "$here/analysis.sh"

step "analysis: SQL on localhost:15432"
await_probe analysis 15
owner=$(canary owner)
psql_at analysis 15432 <<SQL
create table accounts (id int primary key, owner text, balance numeric);
insert into accounts values (1, '$owner', 100.50), (2, 'B', 200.25), (3, 'C', 300.75);
SQL
rows=$(psql_at analysis 15432 -At -c 'select count(*), sum(balance) from accounts')
[ "$rows" = "3|601.50" ] || fail "expected 3|601.50, got $rows"
found=$(psql_at analysis 15432 -At -c 'select owner from accounts where id = 1')
[ "$found" = "$owner" ] || fail "expected $owner, got $found"
note "a table created, 3 rows inserted, selected: $rows"

# Before what would fill the disk with its capture.
claim_hub_reads_nothing "$owner" accounts "insert into"

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

# --- what is claimed -------------------------------------------------------------------------------------------------------
claim_only_loopback bank
claim_only_loopback analysis
claim_outsider_refused "$here/analysis.sh" "$analysis_ticket"
claim_only_the_service postgres 5432
claim_restarts
claim_revoked --attribute postgres-inlet
claim_nothing_came_in 5432 15432
finish
