#!/usr/bin/env bash
# A Python program in one company's network uses the Python API of another's, over an end-to-end encrypted portal.
#
#   ./run.sh            plays all parts on this machine and checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time
#
#   monitoring_corp     10.91.2.2   a Flask API on its own loopback; nothing may connect in
#   travel_app_corp     10.91.3.2   a client that uses it on localhost:5000; nothing may connect in
#   hub                 10.91.1.2   runs the project; the only one that listens for others
#   outsider            10.91.4.2   a member without the attribute
#
# README.md walks through it, and through the same on two cloud machines.
example=python-api
network=10.91
companies=(monitoring_corp travel_app_corp)
# shellcheck source-path=SCRIPTDIR source=../lib/walkthrough.sh
source "$(dirname "$0")/../lib/walkthrough.sh"
begin "$@"
needs python3-venv
install_portolan

step "installing Flask and requests from PyPI"
install_python_app monitoring_corp "$here/monitoring_corp/app.py"
install_python_app travel_app_corp "$here/travel_app_corp/client.py"

make_networks
start_project
start_captures lo 5000

# --- administrator: two tickets, each for one use within an hour -----------------------------------------------------------
outlet_ticket=$(ticket --expires-in 60m --attribute "monitoring-api-outlet=true" --relay monitoring-api)
inlet_ticket=$(ticket --expires-in 60m --attribute "monitoring-api-inlet=true")

# --- monitoring_corp -------------------------------------------------------------------------------------------------------
step "monitoring_corp: the API on 127.0.0.1:5000, and a node with an outlet to it"
start_in monitoring_corp "$work/api.log" "$work/monitoring_corp-app/venv/bin/python" "$work/monitoring_corp-app/app.py"
run_script monitoring_corp "$outlet_ticket" "$here/monitoring_corp/run_portolan.sh"
wait_for_port monitoring_corp 5000 "$work/api.log"

# --- travel_app_corp -------------------------------------------------------------------------------------------------------
client() { # client COMPANY TRIES WHO
    in_company "$1" env TRIES="$2" ASKED_BY="$3" "$work/travel_app_corp-app/venv/bin/python" "$work/travel_app_corp-app/client.py" </dev/null
}
probe() { client "$1" 1 "$secret"; }

step "travel_app_corp: a node with an inlet on port 5000, and the client"
secret=$(canary travel)
run_script travel_app_corp "$inlet_ticket" "$here/travel_app_corp/run_portolan.sh"
client travel_app_corp 20 "$secret" >"$work/client.log" 2>&1 || fail "the client: $(tail -n 3 "$work/client.log")"
expect_success "$work/client.log"

# --- what is claimed -------------------------------------------------------------------------------------------------------
claim_only_loopback monitoring_corp
claim_only_loopback travel_app_corp 0.0.0.0:5000
claim_outsider_refused "$here/travel_app_corp/run_portolan.sh" "$inlet_ticket"
claim_only_the_service monitoring-api 5000

# An inlet whose other end is not there closes a connection at once, which the client tries again. To be left without an
# answer for a second would end it.
step "claim: the client may be started first, and the portal comes back when its nodes were down"
for name in monitoring_corp travel_app_corp; do
    portolan_at "$name" node stop >"$work/restart.log" 2>&1 || fail "$name: node stop: $(cat "$work/restart.log")"
done
portolan_at travel_app_corp node start >"$work/restart.log" 2>&1 || fail "node start: $(cat "$work/restart.log")"
client travel_app_corp 20 "$secret" >"$work/client.log" 2>&1 &
waiting=$!
for _ in $(seq 100); do
    ! grep -q '^try 2 ' "$work/client.log" || break
    sleep 0.1
done
portolan_at monitoring_corp node start >"$work/restart.log" 2>&1 || fail "node start: $(cat "$work/restart.log")"
wait "$waiting" || fail "the client, started while the node of monitoring_corp was down: $(tail -n 3 "$work/client.log")"
grep -q '^try 2 ' "$work/client.log" || fail "the client met no node that was down: $(cat "$work/client.log")"
expect_success "$work/client.log"

claim_revoked --attribute "monitoring-api-inlet=true"
claim_hub_reads_nothing "$secret" "asked_by" "GET /status" "up_seconds"
claim_nothing_came_in 5000 5000
finish
