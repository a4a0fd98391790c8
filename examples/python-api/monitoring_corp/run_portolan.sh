#!/usr/bin/env bash
# What Monitoring Corp.'s machine runs, as a user without privileges. The ticket is put in its place before.
set -e
# Not with -x: the ticket is a secret until it is used.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan relay create monitoring-api
portolan policy create --resource-type tcp-outlet --expression '(= subject.monitoring-api-inlet "true")'
portolan tcp-outlet create --to localhost:5000
