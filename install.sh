#!/bin/sh
# Installs a portolan binary for this user, without root: into $PORTOLAN_HOME/bin (default ~/.portolan/bin), and writes
# $PORTOLAN_HOME/env, which puts that folder into PATH. `portolan reset` keeps both.
#
#   ./install.sh                                  in a checkout: builds it with cargo
#   ./install.sh BINARY                           a binary that is here
#   curl -fsSL URL-OF-THIS | sh -s -- URL-OF-BINARY [SHA256]
#
# The same without arguments: PORTOLAN_BINARY, PORTOLAN_SHA256. PORTOLAN_LINK=NAME also links it under that name, so that
# scripts that call another command run. A binary over plain http needs its checksum.
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "install.sh: $*"
    exit 1
}

source_of=${1:-${PORTOLAN_BINARY:-}}
sha256=${2:-${PORTOLAN_SHA256:-}}
link=${PORTOLAN_LINK:-}
home=${PORTOLAN_HOME:-}
[ -n "$home" ] || home=${HOME:?neither PORTOLAN_HOME nor HOME is set}/.portolan
case $home in
    /*) ;;
    *) home=$PWD/$home ;;
esac
case $link in
    */* | -* | .*) fail "PORTOLAN_LINK has to be a plain name, not '$link'" ;;
esac

umask 077
bin=$home/bin
mkdir -p "$bin"
chmod 700 "$home"
new=$(mktemp "$bin/.portolan.XXXXXX")
trap 'rm -f "$new"' EXIT
trap 'exit 130' INT TERM

case $source_of in
    '')
        # In a checkout; piped into a shell, this file has no folder.
        here=$(dirname "$0")
        [ "${0##*/}" = install.sh ] && [ -f "$here/Cargo.toml" ] ||
            fail "which binary? give a file or a URL as the argument, or in PORTOLAN_BINARY"
        command -v cargo >/dev/null || fail "cargo is not here to build it (https://rustup.rs); or give a binary"
        say "building"
        # What cargo reads belongs to others, too: not with our mask.
        (umask 022 && cd "$here" && cargo build --release --locked -p portolan --bin portolan)
        cp "${CARGO_TARGET_DIR:-$here/target}/release/portolan" "$new"
        ;;
    http://* | https://*)
        case $source_of in
            http://*) [ -n "$sha256" ] || fail "over plain http anybody on the way can change the binary: use https, or give its SHA-256" ;;
        esac
        if command -v curl >/dev/null; then
            curl -fsSL --max-time 300 -o "$new" "$source_of" || fail "$source_of cannot be fetched"
        elif command -v wget >/dev/null; then
            wget -q -T 60 -O "$new" "$source_of" || fail "$source_of cannot be fetched"
        else
            fail "neither curl nor wget is here to fetch it"
        fi
        ;;
    *)
        [ -f "$source_of" ] || fail "there is no file $source_of"
        cp "$source_of" "$new"
        ;;
esac

if [ -n "$sha256" ]; then
    found=$(sha256sum "$new" | cut -d ' ' -f 1)
    [ "$found" = "$sha256" ] || fail "the checksum is wrong: expected $sha256, found $found; nothing was installed"
fi
chmod 755 "$new"
version=$("$new" --version 2>/dev/null </dev/null) || fail "what was given does not run on this machine; nothing was installed"
case $version in
    portolan*) ;;
    *) fail "what was given is not portolan; nothing was installed" ;;
esac
# In one step, so that whoever starts it meanwhile finds the old one or the new one. Running nodes keep the old one.
mv -f "$new" "$bin/portolan"
[ -z "$link" ] || [ "$link" = portolan ] || ln -sf portolan "$bin/$link"

quoted=$(printf '%s' "$bin" | sed "s/'/'\\\\''/g")
cat >"$home/env.new" <<ENV
# Written by install.sh. In a shell: . '$(printf '%s' "$home" | sed "s/'/'\\\\''/g")/env'
case ":\${PATH}:" in
    *:'$quoted':*) ;;
    *) export PATH='$quoted'":\${PATH}" ;;
esac
ENV
mv -f "$home/env.new" "$home/env"

say "$version is in $bin"
say "In this shell, and in your profile:  . \"$home/env\""
