#!/usr/bin/env bash
# What Datastream Corp.'s machine runs, as a user without privileges. The ticket is put in its place before.
set -ex
umask 077

cat >inlet.yaml <<'YAML'
ticket: $ENROLLMENT_TICKET

tcp-inlet:
  from: 0.0.0.0:8086
  via: influxdb
  allow: '(= subject.influxdb-outlet "true")'
YAML
portolan node create inlet.yaml
rm inlet.yaml
