#!/usr/bin/env bash
# A Node.js application in one company's network uses a managed PostgreSQL, with TLS, in another's, over an end-to-end
# encrypted portal. Each node is made from a configuration file.
#
#   ./run.sh            plays all parts on this machine and checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time
#
#   bank_corp           10.93.2.2   a node; nothing may connect in
#     database          10.93.20.2  PostgreSQL on a host of its own, in a subnet that only bank_corp is in
#   analysis_corp       10.93.3.2   an application that uses it on localhost:15432; nothing may connect in
#   hub                 10.93.1.2   runs the project; the only one that listens for others
#   outsider            10.93.4.2   a member without the attribute
#
# README.md walks through it, and through the same on two cloud machines.
example=postgres-tls
network=10.93
companies=(bank_corp analysis_corp)
# shellcheck source-path=SCRIPTDIR source=../lib/walkthrough.sh
source "$(dirname "$0")/../lib/walkthrough.sh"
begin "$@"
needs postgresql runuser openssl node npm
postgres_bin=$(dirname "$(postgres_program initdb)")
install_portolan

step "installing the client library from npm"
install_node_app analysis_corp "$here/analysis_corp/app.js"

make_networks
postgres_address=ledger.bank.internal
add_private_host bank_corp database "$postgres_address"
allow_in database "ip saddr $network.20.1 tcp dport 5432 accept"

# --- the database: a host of its own, which takes no connection without TLS and no password in the clear --------------------
step "bank_corp: PostgreSQL with TLS at $postgres_address, a host of its own"
install -d -o postgres -m 700 "$work/postgres"
as_postgres() { ip netns exec "$(namespace database)" runuser -u postgres -- "$@"; }
password=$(canary password)
as_postgres "$postgres_bin/initdb" -D "$work/postgres/data" -A trust --locale=C -E UTF8 >"$work/initdb.log"
self_signed "$postgres_address" "$work/postgres/server"
chown postgres: "$work/postgres/server.key" "$work/postgres/server.crt"
printf 'local all all trust\nhostssl all all %s/32 scram-sha-256\n' "$network.20.1" >"$work/postgres/data/pg_hba.conf"
cat >>"$work/postgres/data/postgresql.conf" <<CONF
listen_addresses = '*'
port = 5432
unix_socket_directories = '$work/postgres'
fsync = off
ssl = on
ssl_cert_file = '$work/postgres/server.crt'
ssl_key_file = '$work/postgres/server.key'
CONF
as_postgres "$postgres_bin/pg_ctl" -D "$work/postgres/data" -l "$work/postgres/log" -w -t 30 start >"$work/pg_ctl.log" ||
    fail "PostgreSQL does not start: $(tail -n 3 "$work/postgres/log")"
as_postgres "$postgres_bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$work/postgres" -d postgres \
    -c "create role analyst login password '$password'" -c 'create database ledger owner analyst'
note "$("$postgres_bin/postgres" --version)"

start_project
start_captures subnet0 5432

# --- administrator: two tickets, each for one use within ten minutes -------------------------------------------------------
outlet_ticket=$(ticket --expires-in 10m --attribute "postgres-outlet=true" --relay postgres)
inlet_ticket=$(ticket --expires-in 10m --attribute "postgres-inlet=true")

# --- bank_corp -------------------------------------------------------------------------------------------------------------
step "bank_corp: a node from outlet.yaml"
run_script bank_corp "$outlet_ticket" "$here/bank_corp/run_portolan.sh" POSTGRES_ADDRESS "$postgres_address"

# --- analysis_corp ---------------------------------------------------------------------------------------------------------
app() { # app COMPANY TRIES
    in_company "$1" env TRIES="$2" ANALYST="$secret" PGPASSWORD="$password" node "$work/analysis_corp-app/app.js" </dev/null
}
probe() { app "$1" 1; }

step "analysis_corp: a node from inlet.yaml, and the application"
secret=$(canary analyst)
run_script analysis_corp "$inlet_ticket" "$here/analysis_corp/run_portolan.sh"
app analysis_corp 100 >"$work/app.log" 2>&1 || fail "the application: $(tail -n 3 "$work/app.log")"
expect_success "$work/app.log"
for file in "$work/bank_corp/outlet.yaml" "$work/analysis_corp/inlet.yaml"; do
    [ ! -e "$file" ] || fail "$file was not deleted"
done

# --- what is claimed -------------------------------------------------------------------------------------------------------
claim_same_certificate analysis_corp 15432 "$work/postgres/server.crt" -starttls postgres

# TLS hides what the application says, also from the portal. So one thing is said without: a connection is asked for in plain
# text, by a user who bears a name that nobody else has. The database refuses it, and says so through the portal.
step "analysis_corp: without TLS the database refuses"
plain=$(canary plain)
if in_company analysis_corp env PGSSLMODE=disable PGCONNECT_TIMEOUT=5 "$postgres_bin/psql" -X -h localhost -p 15432 -U "$plain" -d ledger -c 'select 1' \
    >"$work/plain.log" 2>&1 </dev/null; then
    fail "the database took a connection without TLS"
fi
grep -q "$plain" "$work/plain.log" || fail "the database did not answer: $(cat "$work/plain.log")"
note "$(grep -m 1 "$plain" "$work/plain.log")"

claim_private_host database 5432
claim_only_loopback bank_corp
claim_only_loopback analysis_corp 0.0.0.0:15432
claim_outsider_refused "$here/analysis_corp/run_portolan.sh" "$inlet_ticket"
claim_only_the_service postgres 5432
claim_restarts
claim_revoked --attribute "postgres-inlet=true"
claim_hub_reads_nothing "$plain" "$secret" accounts ledger
claim_nothing_came_in 5432 15432
finish
