#!/usr/bin/env bash
# Analysis: gets bank's PostgreSQL on its own localhost:15432, and trusts only whoever holds the attribute postgres-outlet.
set -e
# Not with -x: the ticket is a secret.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan policy create --resource-type tcp-inlet --expression '(= subject.postgres-outlet "true")'
portolan tcp-inlet create --from 127.0.0.1:15432 --via postgres
