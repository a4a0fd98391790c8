#!/usr/bin/env bash
# What Bank Corp.'s machine runs, as a user without privileges. The ticket and the database's address are put in their places
# before. The database is another host; only Bank Corp.'s own network reaches it.
set -ex
umask 077

cat >outlet.yaml <<'YAML'
ticket: $ENROLLMENT_TICKET

tcp-outlet:
  to: $POSTGRES_ADDRESS:5432
  allow: '(= subject.postgres-inlet "true")'
  relay: postgres
YAML
portolan node create outlet.yaml
rm outlet.yaml
