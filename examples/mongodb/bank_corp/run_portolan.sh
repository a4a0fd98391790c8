#!/usr/bin/env bash
# What Bank Corp.'s machine runs, as a user without privileges. The ticket is put in its place before.
set -e
# Not with -x: the ticket is a secret until it is used.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan relay create mongodb
portolan policy create --resource-type tcp-outlet --expression '(= subject.mongodb-inlet "true")'
portolan tcp-outlet create --to "127.0.0.1:27017"
