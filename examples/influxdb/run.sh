#!/usr/bin/env bash
# A Node.js application in one company's network uses a managed InfluxDB, with HTTPS, in another's, over an end-to-end
# encrypted portal. Each node is made from a configuration file. InfluxDB is 1.x, as Debian has it.
#
#   ./run.sh            plays all parts on this machine and checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time
#
#   metrics_corp        10.94.2.2   a node; nothing may connect in
#     database          10.94.20.2  InfluxDB on a host of its own, in a subnet that only metrics_corp is in
#   datastream_corp     10.94.3.2   an application that uses it on localhost:8086; nothing may connect in
#   hub                 10.94.1.2   runs the project; the only one that listens for others
#   outsider            10.94.4.2   a member without the attribute
#
# README.md walks through it, and through the same on two cloud machines.
example=influxdb
network=10.94
companies=(metrics_corp datastream_corp)
# shellcheck source-path=SCRIPTDIR source=../lib/walkthrough.sh
source "$(dirname "$0")/../lib/walkthrough.sh"
begin "$@"
needs influxd runuser openssl curl node npm
install_portolan

step "installing the client library from npm"
install_node_app datastream_corp

make_networks
influxdb_address=influx.metrics.internal
add_private_host metrics_corp database "$influxdb_address"
allow_in database "ip saddr $network.20.1 tcp dport 8086 accept"

# --- the database: a host of its own, which asks for a password and speaks only HTTPS ----------------------------------------
step "metrics_corp: InfluxDB 1.x with HTTPS at $influxdb_address, a host of its own"
install -d -o influxdb -m 700 "$work/influxdb"
self_signed "$influxdb_address" "$work/influxdb/server"
chown influxdb: "$work/influxdb/server.key" "$work/influxdb/server.crt"
cat >"$work/influxdb/influxdb.conf" <<CONF
reporting-disabled = true
bind-address = "127.0.0.1:8088"
[meta]
  dir = "$work/influxdb/meta"
[data]
  dir = "$work/influxdb/data"
  wal-dir = "$work/influxdb/wal"
[http]
  bind-address = ":8086"
  auth-enabled = true
  https-enabled = true
  https-certificate = "$work/influxdb/server.crt"
  https-private-key = "$work/influxdb/server.key"
CONF
ip netns exec "$(namespace database)" runuser -u influxdb -- env -i PATH=/usr/bin:/bin HOME="$work/influxdb" \
    influxd -config "$work/influxdb/influxdb.conf" >"$work/influxd.log" 2>&1 </dev/null &
wait_for_port database 8086 "$work/influxd.log"
username=datastream
password=$(canary password)
# The first user may be made by anyone; from then on nothing goes without a password.
ip netns exec "$(namespace database)" curl -fsS --cacert "$work/influxdb/server.crt" --resolve "$influxdb_address:8086:127.0.0.1" \
    "https://$influxdb_address:8086/query" --data-urlencode "q=CREATE USER $username WITH PASSWORD '$password' WITH ALL PRIVILEGES" \
    >"$work/user.log" 2>&1 || fail "InfluxDB makes no user: $(cat "$work/user.log")"
note "$(influxd version)"

start_project
start_captures subnet0 8086

# --- administrator: two tickets, each for one use within ten minutes -------------------------------------------------------
outlet_ticket=$(ticket --expires-in 10m --attribute "influxdb-outlet=true" --relay influxdb)
inlet_ticket=$(ticket --expires-in 10m --attribute "influxdb-inlet=true")

# --- metrics_corp ----------------------------------------------------------------------------------------------------------
step "metrics_corp: a node from outlet.yaml"
run_script metrics_corp "$outlet_ticket" "$here/metrics_corp/run_portolan.sh" INFLUXDB_ADDRESS "$influxdb_address"

# --- datastream_corp -------------------------------------------------------------------------------------------------------
# The application with the database's user in its place.
sed -e "s/\$USERNAME/$username/g" -e "s/\$PASSWORD/$password/g" "$here/datastream_corp/app.mjs" >"$work/datastream_corp-app/run_app.mjs"
app() { # app COMPANY TRIES
    in_company "$1" env TRIES="$2" MACHINE="$secret" node "$work/datastream_corp-app/run_app.mjs" </dev/null
}
probe() { app "$1" 1; }

step "datastream_corp: a node from inlet.yaml, and the application"
secret=$(canary machine)
run_script datastream_corp "$inlet_ticket" "$here/datastream_corp/run_portolan.sh"
app datastream_corp 10 >"$work/app.log" 2>&1 || fail "the application: $(tail -n 3 "$work/app.log")"
expect_success "$work/app.log"
for file in "$work/metrics_corp/outlet.yaml" "$work/datastream_corp/inlet.yaml"; do
    [ ! -e "$file" ] || fail "$file was not deleted"
done

# --- what is claimed -------------------------------------------------------------------------------------------------------
claim_same_certificate datastream_corp 8086 "$work/influxdb/server.crt"

# TLS hides what the application says, also from the portal. So one thing is said without: a request in plain text for a page
# that nobody else asks for. The database refuses it, and says so through the portal.
step "datastream_corp: without TLS the database refuses"
plain=$(canary plain)
in_company datastream_corp curl -sS --max-time 5 "http://localhost:8086/$plain" >"$work/plain.log" 2>&1 </dev/null || true
grep -qi 'https' "$work/plain.log" || grep -aq $'\x15\x03' "$work/plain.log" || fail "the database did not answer: $(cat "$work/plain.log")"
note "$(tr -d '\0' <"$work/plain.log" | grep -a -m 1 . | cat -v)"

claim_private_host database 8086
claim_only_loopback metrics_corp
claim_only_loopback datastream_corp 0.0.0.0:8086
claim_outsider_refused "$here/datastream_corp/run_portolan.sh" "$inlet_ticket"
claim_only_the_service influxdb 8086
claim_restarts
claim_revoked --attribute "influxdb-inlet=true"
claim_hub_reads_nothing "$plain" "$secret" 'GET /' '/query'
claim_nothing_came_in 8086 8086
finish
