#!/usr/bin/env bash
# Hub: runs the project, the only part that listens for others. The administrator makes tickets here.
set -ex

portolan project create default --tcp-listener-address "$HUB_ADDRESS"
