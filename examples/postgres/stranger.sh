#!/usr/bin/env bash
# Stranger: a member of the project, by its own ticket, that lacks the attribute which bank asks for. It can create an inlet;
# it cannot get through.
set -e
# Not with -x: the ticket is a secret.
portolan project enroll "$ENROLLMENT_TICKET"

set -x
portolan node create
portolan tcp-inlet create --from 127.0.0.1:15432 --via postgres
