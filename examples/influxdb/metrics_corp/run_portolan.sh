#!/usr/bin/env bash
# What Metrics Corp.'s machine runs, as a user without privileges. The ticket and the database's address are put in their
# places before. The database is another host; only Metrics Corp.'s own network reaches it.
set -ex
umask 077

cat >outlet.yaml <<'YAML'
ticket: $ENROLLMENT_TICKET

relay: influxdb

tcp-outlet:
  to: $INFLUXDB_ADDRESS:8086
  allow: '(= subject.influxdb-inlet "true")'
YAML
portolan node create outlet.yaml
rm outlet.yaml
