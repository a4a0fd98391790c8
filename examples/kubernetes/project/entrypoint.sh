#!/bin/sh
# The project's node: authority and relay. Made once; afterwards started with the members and identities of its volume.
set -eu

if portolan project show --quiet default >/dev/null 2>&1; then
    exec portolan node start --foreground project-default
fi
exec portolan project create default --foreground --tcp-listener-address 0.0.0.0:4000 --address "$PROJECT_ADDRESS"
