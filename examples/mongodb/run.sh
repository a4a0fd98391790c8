#!/usr/bin/env bash
# A Node.js application in one company's network uses the MongoDB of another's, over an end-to-end encrypted portal.
#
#   ./run.sh            plays all parts on this machine and checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time
#   MONGODB_ADDRESS=127.0.0.1:27017 ./run.sh
#                       uses a MongoDB that runs already, where this machine reaches it
#
#   bank_corp           10.92.2.2   the database on 127.0.0.1:27017; nothing may connect in
#   analysis_corp       10.92.3.2   an application that uses it on localhost:17017; nothing may connect in
#   hub                 10.92.1.2   runs the project; the only one that listens for others
#   outsider            10.92.4.2   a member without the attribute
#
# Without MONGODB_ADDRESS the database is SecantusDB, which speaks MongoDB's protocol and is on PyPI, where MongoDB's own
# server is not. README.md says more, and walks through all this, and through the same on two cloud machines.
example=mongodb
network=10.92
companies=(bank_corp analysis_corp)
# shellcheck source-path=SCRIPTDIR source=../lib/walkthrough.sh
source "$(dirname "$0")/../lib/walkthrough.sh"
begin "$@"
needs node npm
install_portolan

if [ -n "${MONGODB_ADDRESS:-}" ]; then
    step "installing the driver from npm"
    needs socat
else
    step "installing the driver from npm, SecantusDB from PyPI"
    needs python3-venv
    install_python_app bank_corp
fi
install_node_app analysis_corp "$here/analysis_corp/app.js"

make_networks
start_project
start_captures lo 27017

# --- administrator: two tickets, each for one use within ten minutes -------------------------------------------------------
outlet_ticket=$(ticket --expires-in 10m --attribute "mongodb-outlet=true" --relay mongodb)
inlet_ticket=$(ticket --expires-in 10m --attribute "mongodb-inlet=true")

# --- bank_corp -------------------------------------------------------------------------------------------------------------
if [ -n "${MONGODB_ADDRESS:-}" ]; then
    step "bank_corp: the MongoDB at $MONGODB_ADDRESS, brought to 127.0.0.1:27017 of its network; and a node with an outlet to it"
    # A socket in the file system is the way between the network of this machine and the company's.
    socat UNIX-LISTEN:"$work/mongodb",fork,mode=666 TCP:"$MONGODB_ADDRESS" >"$work/outside.log" 2>&1 </dev/null &
    echo $! >"$work/outside"
    start_in bank_corp "$work/mongodb.log" socat TCP-LISTEN:27017,bind=127.0.0.1,fork,reuseaddr UNIX-CONNECT:"$work/mongodb"
else
    step "bank_corp: SecantusDB 0.7.0b3 in MongoDB's place on 127.0.0.1:27017, and a node with an outlet to it"
    start_in bank_corp "$work/mongodb.log" "$work/bank_corp-app/venv/bin/secantusd-py" --host 127.0.0.1 --port 27017 \
        --storage-path "$work/bank_corp/database" --cache-size 64M --standalone
fi
run_script bank_corp "$outlet_ticket" "$here/bank_corp/run_portolan.sh"
wait_for_port bank_corp 27017 "$work/mongodb.log"

# --- analysis_corp ---------------------------------------------------------------------------------------------------------
app() { # app COMPANY TRIES SECONDS
    in_company "$1" env TRIES="$2" TRY_SECONDS="$3" ANALYST="$secret" node "$work/analysis_corp-app/app.js" </dev/null
}
probe() { app "$1" 1 1; }

step "analysis_corp: a node with an inlet on port 17017, and the application"
secret=$(canary analyst)
run_script analysis_corp "$inlet_ticket" "$here/analysis_corp/run_portolan.sh"
app analysis_corp 5 10 >"$work/app.log" 2>&1 || fail "the application: $(tail -n 3 "$work/app.log")"
expect_success "$work/app.log"

# --- what is claimed -------------------------------------------------------------------------------------------------------
claim_only_loopback bank_corp
claim_only_loopback analysis_corp 0.0.0.0:17017
claim_outsider_refused "$here/analysis_corp/run_portolan.sh" "$inlet_ticket"
claim_only_the_service mongodb 27017
claim_restarts
claim_revoked --attribute "mongodb-inlet=true"
claim_hub_reads_nothing "$secret" asked_by insert balance
claim_nothing_came_in 27017 17017
finish
