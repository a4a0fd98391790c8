#!/usr/bin/env bash
# What Travel App Corp.'s machine runs, as a user without privileges. The ticket is put in its place before.
set -e
# Not with -x: the ticket is a secret until it is used.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan policy create --resource-type tcp-inlet --expression '(= subject.monitoring-api-outlet "true")'
portolan tcp-inlet create --from 0.0.0.0:5000 --via monitoring-api
