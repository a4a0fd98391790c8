#!/usr/bin/env bash
# Bank: has a PostgreSQL on its loopback and lets in whoever holds the attribute postgres-inlet. Opens no port.
set -e
# Not with -x: the ticket is a secret.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan relay create postgres
portolan policy create --resource-type tcp-outlet --expression '(= subject.postgres-inlet "true")'
portolan tcp-outlet create --to 127.0.0.1:5432
