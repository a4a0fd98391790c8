#!/usr/bin/env bash
# What Analysis Corp.'s machine runs, as a user without privileges. The ticket is put in its place before.
set -e
# Not with -x: the ticket is a secret until it is used.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan policy create --resource-type tcp-inlet --expression '(= subject.mongodb-outlet "true")'
portolan tcp-inlet create --from 0.0.0.0:17017 --via mongodb
