# shellcheck shell=bash
# What the walkthroughs share: each company's private network on this machine, and the claims that are checked at the end.
#
# A run.sh beside it says what it plays, sources this file, and calls the functions below from top to bottom:
#
#   example=mongodb                     names the namespaces (portolan-mongodb-…) and the folder (/var/lib/portolan-example-mongodb)
#   network=10.92                       the first two numbers of its addresses; each walkthrough has its own
#   companies=(bank_corp analysis_corp) behind a packet filter that lets nothing in; a hub and an outsider come by themselves
#   source ../lib/walkthrough.sh
#   begin "$@"
#
# Every company is a network namespace with an address of its own, behind one router: the hub has $network.1.2, the companies
# follow in their order, then the outsider. Each has its own user, whose files no other company's user can read.
#
# Settings: PORTOLAN_BIN names a binary instead of building one; LINK_AS=NAME makes it available as NAME only, and the
# companies' scripts call it so.
set -Eeuo pipefail

# shellcheck disable=SC2154  # set by run.sh
readonly example network companies
everyone=(hub "${companies[@]}" outsider)
library=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$library/../.." && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=/var/lib/portolan-example-$example
hub_address=$network.1.2:4000
# The name under which the companies call the binary.
command=${LINK_AS:-portolan}
# The packages of node and python are fetched with the caller's own settings; nothing else of the environment is used.
export PATH=$PATH:/usr/sbin:/sbin
umask 022

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() {
    trap - ERR
    printf '\nFAILED: %s\n' "$*" >&2
    printf 'Logs and data are in %s; %s/run.sh cleanup removes everything.\n' "$work" "$here" >&2
    exit 1
}

# --- beginning and end ---------------------------------------------------------------------------------------------------
namespace() { printf 'portolan-%s-%s' "$example" "$1"; }

# Everything that a walkthrough starts lives in one of its namespaces, and nothing else does (but for what `outside` says).
cleanup() {
    local each pids signal
    if [ -s "$work/outside" ]; then
        # shellcheck disable=SC2046
        kill $(cat "$work/outside") 2>/dev/null || true
    fi
    for each in /run/netns/portolan-"$example"-*; do
        [ -e "$each" ] || continue
        each=${each##*/}
        # Other walkthroughs may have names that begin like this one's: postgres, postgres-tls.
        [[ " ${everyone[*]} router ${extra_networks[*]:-} " == *" ${each#"portolan-$example-"} "* ]] || continue
        # First asked to stop (PostgreSQL gives its shared memory back then), then made to.
        for signal in INT TERM KILL; do
            pids=$(ip netns pids "$each" || true)
            [ -n "$pids" ] || break
            # shellcheck disable=SC2086
            kill -"$signal" $pids 2>/dev/null || true
            for _ in $(seq 40); do
                [ -n "$(ip netns pids "$each" || true)" ] || break
                sleep 0.05
            done
        done
        ip netns delete "$each"
        rm -rf "/etc/netns/$each"
    done
    rm -rf "$work"
}

# begin [cleanup]: cleans up what an earlier run left, and ends here if that was all that was asked for. A run that is
# interrupted cleans up after itself; one that fails leaves everything to be looked at.
begin() {
    if [ "$(id -u)" != 0 ]; then
        echo "$0 needs root: it makes network namespaces and packet filters. Try: sudo $0 $*" >&2
        exit 1
    fi
    case ${1:-} in
        '') ;;
        cleanup)
            cleanup
            echo "removed: namespaces portolan-$example-*, their processes, $work"
            exit 0
            ;;
        *)
            echo "usage: $0 [cleanup]" >&2
            exit 2
            ;;
    esac
    trap 'fail "${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND"' ERR
    trap 'trap - ERR; printf "\ninterrupted; cleaning up\n" >&2; cleanup; exit 130' INT TERM HUP
    [ -z "${PORTOLAN_BIN:-}" ] || PORTOLAN_BIN=$(realpath "$PORTOLAN_BIN")
    # Where every company's user may be.
    cd /
    needs ip ss nft tcpdump setpriv
    cleanup
    mkdir -p "$work/bin"
    chmod 755 "$work"
}

# finish: the sentence of success, when every claim was checked.
finish() {
    trap - ERR
    printf '\nEverything is still running; %s/run.sh cleanup removes it.\n\n' "$here"
    printf 'The example run was successful 🥳\n'
}

# postgres_program NAME: where Debian has it, of the newest version that is installed.
postgres_program() { find /usr/lib/postgresql/*/bin -name "$1" | sort -V | tail -n 1; }
needs() { "$root/tests/needs" "$@" || fail "something is missing that this walkthrough needs"; }

# --- installing ----------------------------------------------------------------------------------------------------------
# The binary, where every company's user can read it.
install_portolan() {
    local binary=${PORTOLAN_BIN:-}
    if [ -z "$binary" ]; then
        step "building"
        (cd "$root" && cargo build --release --locked -p portolan)
        binary=${CARGO_TARGET_DIR:-$root/target}/release/portolan
    fi
    [ -x "$binary" ] || fail "PORTOLAN_BIN: no program at $binary"
    if [ "$command" = portolan ]; then
        install -m 755 "$binary" "$work/bin/portolan"
    else
        mkdir -p "$work/lib"
        install -m 755 "$binary" "$work/lib/portolan"
        ln -s ../lib/portolan "$work/bin/$command"
    fi
}

fetch() { # fetch REGISTRY LOG COMMAND...: a download by a package manager; a failure says whether the registry was reached
    local registry=$1 log=$2
    shift 2
    "$@" >"$log" 2>&1 && return
    if grep -qE 'ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ERR_SOCKET|network|NewConnectionError|ReadTimeout|ProxyError|SSLError' "$log"; then
        fail "$registry cannot be reached from this machine: $(grep -m 1 -E 'ENOTFOUND|ECONN|ETIMEDOUT|EAI_AGAIN|ERR_SOCKET|NewConnectionError|Timeout|ProxyError|SSLError|network' "$log")"
    fi
    # pip says so of an index that it could not ask, too.
    ! grep -q 'from versions: none' "$log" || fail "$registry cannot be reached from this machine, or has no such package: $(grep -m 1 'from versions: none' "$log")"
    fail "$registry: ${1##*/} ended with an error: $(tail -n 5 "$log")"
}
# install_node_app COMPANY FILE...: the company's application in Node.js, with the packages of its lock file.
install_node_app() {
    local company=$1
    shift
    mkdir -p "$work/$company-app"
    cp "$here/$company/package.json" "$here/$company/package-lock.json" "$@" "$work/$company-app/"
    fetch "the npm registry" "$work/$company-npm.log" \
        npm ci --prefix "$work/$company-app" --omit=dev --ignore-scripts --no-audit --no-fund --no-progress
}
# install_python_app COMPANY FILE...: the company's program in Python, in a virtual environment with the pinned packages.
install_python_app() {
    local company=$1
    shift
    mkdir -p "$work/$company-app"
    [ $# -eq 0 ] || cp "$@" "$work/$company-app/"
    # Debian's own Python: another one may lie in a home that the companies' users cannot read.
    /usr/bin/python3 -m venv "$work/$company-app/venv" >"$work/$company-venv.log" 2>&1 || fail "python3 -m venv: $(tail -n 3 "$work/$company-venv.log")"
    fetch "PyPI" "$work/$company-pip.log" \
        "$work/$company-app/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r "$here/$company/requirements.txt"
}

# --- the networks --------------------------------------------------------------------------------------------------------
add_namespace() { # add_namespace NAME
    ip netns add "$(namespace "$1")"
    # No IPv6, whose housekeeping would be counted by the packet filters.
    ip netns exec "$(namespace "$1")" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "$(namespace "$1")" link set lo up
}
# The place of a company among $everyone, from 1: the third number of its address, and what its user's number ends with.
place() {
    local index
    for index in "${!everyone[@]}"; do
        [ "${everyone[$index]}" != "$1" ] || { echo $((index + 1)) && return; }
    done
    fail "no company is called $1"
}
address() { echo "$network.$(place "$1").2"; }
# Numbers that Debian gives to nobody.
user() { echo $((62000 + 10 * ${network#*.} + $(place "$1"))); }

# A company's filter: nothing comes in that does not answer something that went out. The counter `knocks` says how often
# somebody tried. The chain `allowed` is for what a walkthrough lets in on purpose.
close_network() { # close_network NAME
    ip netns exec "$(namespace "$1")" nft -f - <<'RULES'
table inet closed {
    counter knocks { }
    counter answers { }
    chain allowed { }
    chain input {
        type filter hook input priority 0; policy drop;
        iifname "lo" accept
        ct state established,related counter name answers accept
        jump allowed
        counter name knocks drop
    }
}
RULES
}
allow_in() { # allow_in NAME RULE: one exception to that
    ip netns exec "$(namespace "$1")" nft add rule inet closed allowed "$2"
}
make_networks() {
    local name index=0
    step "networks: $((${#everyone[@]})) of them behind a router, and only the hub's lets connections in, to one port"
    add_namespace router
    ip netns exec "$(namespace router)" sysctl -qw net.ipv4.ip_forward=1
    for name in "${everyone[@]}"; do
        index=$((index + 1))
        add_namespace "$name"
        ip -n "$(namespace "$name")" link add eth0 type veth peer name "to-$index" netns "$(namespace router)"
        ip -n "$(namespace "$name")" address add "$network.$index.2/24" dev eth0
        ip -n "$(namespace router)" address add "$network.$index.1/24" dev "to-$index"
        ip -n "$(namespace "$name")" link set eth0 up
        ip -n "$(namespace router)" link set "to-$index" up
        ip -n "$(namespace "$name")" route add default via "$network.$index.1"
        install -d -o "$(user "$name")" -g "$(user "$name")" -m 700 "$work/$name"
        close_network "$name"
    done
    allow_in hub "tcp dport ${hub_address#*:} accept"
}

# add_private_host COMPANY HOST NAME: one more host, HOST, in a subnet of the company: it can be reached from there, under
# NAME and at $network.20.2, and from nowhere else; it has no route to anywhere.
extra_networks=(database)
add_private_host() {
    local company=$1 host=$2 name=$3 etc
    add_namespace "$host"
    ip -n "$(namespace "$host")" link add eth0 type veth peer name subnet0 netns "$(namespace "$company")"
    ip -n "$(namespace "$host")" address add "$network.20.2/24" dev eth0
    ip -n "$(namespace "$company")" address add "$network.20.1/24" dev subnet0
    ip -n "$(namespace "$host")" link set eth0 up
    ip -n "$(namespace "$company")" link set subnet0 up
    close_network "$host"
    # What `ip netns exec` puts over /etc for whoever runs there: the company's own name service.
    etc=/etc/netns/$(namespace "$company")
    mkdir -p "$etc"
    printf '127.0.0.1 localhost\n%s %s\n' "$network.20.2" "$name" >"$etc/hosts"
}

# --- what the companies do -------------------------------------------------------------------------------------------------
# in_company NAME COMMAND...: as the company's user, in its network, with its home, with nothing of root's environment or
# privileges, and without a terminal.
in_company() {
    local name=$1 id
    shift
    id=$(user "$name")
    (
        cd "$work/$name"
        exec ip netns exec "$(namespace "$name")" setpriv --reuid="$id" --regid="$id" --clear-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all env -i PATH="$work/bin:/usr/bin:/bin" HOME="$work/$name" LANG=C.UTF-8 "$@"
    )
}
# portolan_at NAME ARGUMENTS...: one command of the company's.
portolan_at() {
    local name=$1
    shift
    in_company "$name" "$command" "$@" </dev/null
}
# The administrator's machine is the hub: `enroll` makes the project there. A second time it changes nothing.
start_project() {
    step "administrator: enroll makes a project, at $hub_address"
    portolan_at hub enroll --tcp-listener-address "$hub_address" >"$work/hub.out" 2>&1 || fail "enroll: $(cat "$work/hub.out")"
    portolan_at hub enroll --tcp-listener-address "$hub_address" >>"$work/hub.out" 2>&1 || fail "a second enroll: $(cat "$work/hub.out")"
}
# ticket ARGUMENTS...: the administrator makes a one-time ticket; only it goes to stdout.
ticket() { portolan_at hub project ticket --usage-count 1 "$@" 2>>"$work/hub.out"; }

# run_script COMPANY TICKET SCRIPT [NAME VALUE]...: the company runs its script, in which the ticket (and each other $NAME)
# was put in its place; nothing is written to a file. On a cloud machine that is done when the machine is made.
run_script() {
    local company=$1 ticket=$2 script=$3 text
    shift 3
    text=$(sed -e "s/\$ENROLLMENT_TICKET/${ticket}/g" -e "s/^portolan /$command /" "$script")
    while [ $# -gt 0 ]; do
        text=${text//\$$1/$2}
        shift 2
    done
    in_company "$company" bash <<<"$text" >"$work/$company.out" 2>&1 || fail "$company: ${script##*/}: $(tail -n 5 "$work/$company.out")"
}

# start_in COMPANY LOG COMMAND...: a program of the company's, in the background.
start_in() {
    local company=$1 log=$2
    shift 2
    in_company "$company" "$@" >"$log" 2>&1 </dev/null &
}
# wait_for_port NAME PORT LOG: until something listens on that port there.
wait_for_port() {
    for _ in $(seq 300); do
        [ -z "$(ip netns exec "$(namespace "$1")" ss -Htln "sport = :$2")" ] || return 0
        sleep 0.1
    done
    fail "nothing listens on port $2 of $1: $(tail -n 5 "$3")"
}
# expect_success LOG: the program's last words, as the page has them.
expect_success() {
    grep -qF 'The example run was successful' "$1" || fail "the application did not say that it was successful: $(tail -n 5 "$1")"
    sed 's/^/   | /' "$1"
}

# --- the claims ------------------------------------------------------------------------------------------------------------
# Something that nobody else says.
canary() { echo "$1-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')"; }

declare -A captures=()
capture() { # capture NAME INTERFACE FILTER...: what passes there is written down from now on
    local name=$1 interface=$2
    shift 2
    : >"$work/$name.tcpdump"
    ip netns exec "$(namespace "$name")" tcpdump -i "$interface" --immediate-mode -U -s 0 -B 8192 -Z root -w "$work/$name.pcap" "$@" >"$work/$name.tcpdump" 2>&1 </dev/null &
    captures[$name]=$!
    for _ in $(seq 100); do
        ! grep -q 'listening on' "$work/$name.tcpdump" || return 0
        sleep 0.05
    done
    fail "tcpdump in $name does not start: $(cat "$work/$name.tcpdump")"
}
# start_captures INTERFACE PORT: of all that comes to the hub or leaves it; and, as a control, of what the service's company
# sees of its service.
start_captures() {
    capture hub eth0
    capture "${companies[0]}" "$1" tcp port "$2"
}
# claim_hub_reads_nothing PATTERN...: none of these is in the hub's capture. Two controls: the first one is in the capture
# beside the service, and what the client's company says to the hub in plain text is in the hub's.
claim_hub_reads_nothing() {
    local service=${companies[0]} client=${companies[1]} control pattern bytes name
    step "claim: the hub relays everything and reads nothing"
    control=$(canary control)
    in_company "$client" bash -c "exec 3<>/dev/tcp/${hub_address%:*}/${hub_address#*:} && echo $control >&3"
    for _ in $(seq 100); do
        ! grep -qa "$control" "$work/hub.pcap" || break
        sleep 0.05
    done
    for name in "${!captures[@]}"; do
        kill "${captures[$name]}"
        wait "${captures[$name]}" || true
    done
    grep -qa "$control" "$work/hub.pcap" || fail "the control failed: what was said to the hub in plain text is not in its capture"
    grep -qaF "$1" "$work/$service.pcap" || fail "the control failed: '$1' is not in the capture beside the service"
    bytes=$(stat -c %s "$work/hub.pcap")
    [ "$bytes" -gt 10000 ] || fail "the hub's capture has only $bytes bytes"
    for pattern in "$@"; do
        ! grep -qaF "$pattern" "$work/hub.pcap" || fail "the hub saw '$pattern' in plain text"
    done
    note "$bytes bytes captured at the hub, with none of: $*"
    note "controls: '$control', sent to the hub in plain text, is there; '$1' is in a capture beside the service"
}

counter() { # counter NAME COUNTER: packets counted so far
    ip netns exec "$(namespace "$1")" nft list counter inet closed "$2" | sed -nE 's/.*packets ([0-9]+).*/\1/p'
}
# connects FROM ADDRESS PORT: whether FROM gets a connection to there.
connects() { ip netns exec "$(namespace "$1")" timeout 1 bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null; }

# claim_nothing_came_in SERVICE_PORT INLET_PORT: no company was ever connected to. The last thing to be claimed, as then each
# knocks at the other's ports, and the hub at both: every knock is dropped and counted.
claim_nothing_came_in() {
    local service_port=$1 inlet_port=$2 name before
    local service=${companies[0]} client=${companies[1]}
    step "claim: nothing connected into $service or $client, and nothing can"
    for name in "$service" "$client"; do
        [ "$(counter "$name" knocks)" = 0 ] || fail "$name: $(counter "$name" knocks) packets tried to come in"
        [ "$(counter "$name" answers)" -gt 0 ] || fail "$name: the filter counted no packet at all"
        note "$name: 0 packets from outside that were not asked for, $(counter "$name" answers) answers"
    done
    knock() { # knock FROM TO PORT
        before=$(counter "$2" knocks)
        ! connects "$1" "$(address "$2")" "$3" || fail "$1 connected to port $3 of $2"
        [ "$(counter "$2" knocks)" -gt "$before" ] || fail "$2: the filter does not count"
    }
    knock hub "$service" "$service_port"
    knock hub "$client" "$inlet_port"
    knock "$client" "$service" "$service_port"
    knock "$service" "$client" "$inlet_port"
    note "knocks of the hub and of each other, at ports $service_port and $inlet_port: dropped and counted"
}

# claim_only_loopback COMPANY [ADDRESS:PORT]...: what listens there, listens on loopback, but for these.
claim_only_loopback() {
    local name=$1 listening exposed allowed
    shift
    listening=$(ip netns exec "$(namespace "$name")" ss -Htln)
    [ -n "$listening" ] || fail "$name: ss lists no socket at all"
    exposed=$(awk '$4 !~ /^(127\.|\[::1\])/ { print $4 }' <<<"$listening" | sort)
    for allowed in "$@"; do
        grep -qxF "$allowed" <<<"$exposed" || fail "$name does not listen on $allowed"
        exposed=$(grep -vxF "$allowed" <<<"$exposed" || true)
    done
    [ -z "$exposed" ] || fail "$name listens beyond its loopback: $exposed"
    note "$name listens on its loopback${1:+, and on $* where it was asked to}, and nowhere else"
}

# self_signed NAME PATH: a certificate for that host, PATH.crt and PATH.key.
self_signed() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$1" \
        -addext "subjectAltName=DNS:$1" -keyout "$2.key" -out "$2.crt" 2>"$work/openssl.log" || fail "openssl: $(tail -n 2 "$work/openssl.log")"
    chmod 600 "$2.key"
}
# claim_same_certificate COMPANY PORT FILE [ARGUMENTS]...: TLS goes through the portal as it is; what the client sees on its own
# PORT is the server's certificate.
claim_same_certificate() {
    local name=$1 port=$2 file=$3 seen
    shift 3
    step "claim: TLS goes from $name to the database itself, end to end"
    seen=$(in_company "$name" timeout 10 openssl s_client -connect "localhost:$port" "$@" </dev/null 2>"$work/openssl.log" |
        openssl x509 -noout -fingerprint -sha256) || fail "no certificate on port $port of $name: $(tail -n 3 "$work/openssl.log")"
    [ "$seen" = "$(openssl x509 -noout -fingerprint -sha256 -in "$file")" ] || fail "$name sees another certificate: $seen"
    note "the certificate on localhost:$port is the database's: $seen"
}
# claim_private_host HOST PORT: only the first company's subnet reaches it; it is tried from everywhere else.
claim_private_host() {
    local host=$1 port=$2 name
    step "claim: the $host is reached from the subnet of ${companies[0]} and from nowhere else"
    connects "${companies[0]}" "$network.20.2" "$port" || fail "${companies[0]} does not reach its own $host"
    for name in hub "${companies[1]}" outsider; do
        ! connects "$name" "$network.20.2" "$port" || fail "$name connected to the $host"
    done
    ! connects "$host" "${hub_address%:*}" "${hub_address#*:}" || fail "the $host has a way out"
    [ "$(counter "$host" knocks)" = 0 ] || fail "$host: $(counter "$host" knocks) packets tried to come in"
    note "tried from the hub, ${companies[1]} and the outsider; nor has the $host a way out"
}

# claim_only_the_service RELAY PORT: through the relay, the client's company gets at the service's node, which answers a member's
# echo, but at nothing of its host but what an outlet was made for; and the service's company has no way to the client's.
claim_only_the_service() {
    local relay=$1 port=$2 service=${companies[0]} client=${companies[1]} node worker answer
    step "claim: only the service can be reached, and only from the client's side"
    node=/project/default/service/forward_to_$relay/secure/api
    answer=$(portolan_at "$client" message send hello --to "$node/service/echo" 2>"$work/only.log") || fail "$client does not reach the node of $service: $(cat "$work/only.log")"
    [ "$answer" = hello ] || fail "the echo on the node of $service says '$answer'"
    for worker in "127.0.0.1:$port" other-outlet; do
        if portolan_at "$client" message send hello --to "$node/service/$worker" --timeout 1s >"$work/only.log" 2>&1; then
            fail "$client got an answer from $worker on the node of $service: $(cat "$work/only.log")"
        fi
    done
    # Nobody sends anything: a service behind an outlet of that name would keep the connection open.
    portolan_at "$client" tcp-inlet create other --from 127.0.0.1:7999 --to other-outlet --via "$relay" >"$work/only.log" 2>&1 ||
        fail "$client cannot make a second inlet: $(cat "$work/only.log")"
    # shellcheck disable=SC2016 # the inner shell expands it
    in_company "$client" timeout 15 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7999; [ -z "$(head -c 1 <&3)" ]' 2>"$work/only.log" </dev/null ||
        fail "$client got to another outlet on the node of $service"
    portolan_at "$client" tcp-inlet delete other --yes >"$work/only.log" 2>&1 || fail "$client keeps the second inlet: $(cat "$work/only.log")"
    if portolan_at "$client" relay create "of-$client" --at "$node" >"$work/only.log" 2>&1; then
        fail "$client made a relay on the node of $service"
    fi
    note "$client, at the node of $service: an echo, but no other outlet, no address, and no relay ($(sed -nE 's/^✗ //p' "$work/only.log"))"
    if portolan_at "$service" message send hello --to "/project/default/service/forward_to_$client/secure/api/service/echo" --timeout 1s >"$work/only.log" 2>&1; then
        fail "$service reached the node of $client"
    fi
    note "$service has no way to the node of $client: $(sed -nE 's/^✗ //p' "$work/only.log")"
}

# The two below call the run.sh's own function `probe COMPANY`: one try of the application in that company's network, through
# its inlet; it ends with 0 when the service answered.

# claim_outsider_refused SCRIPT USED_TICKET [EXPIRY]: a member whose credential lacks the attribute runs the very script of the
# client's company and gets nowhere; a ticket that was used is worth nothing.
claim_outsider_refused() {
    local script=$1 used=$2 client=${companies[1]} refusal
    step "claim: only who has the attribute gets in"
    run_script outsider "$(ticket --attribute something-else)" "$script"
    ! probe outsider >"$work/outsider.log" 2>&1 || fail "a member without the attribute reached the service: $(tail -n 3 "$work/outsider.log")"
    refusal=$(refusal_at outsider)
    [[ $refusal == *"policy of the outlet denies"* ]] || fail "the outsider got no answer, but not for its attributes: $refusal"
    note "a member without the attribute, with the same script: $refusal"
    mkdir -p "$work/outsider/second-home"
    chown "$(user outsider):$(user outsider)" "$work/outsider/second-home"
    if in_company outsider env PORTOLAN_HOME="$work/outsider/second-home" "$command" project enroll "$used" >"$work/outsider.log" 2>&1 </dev/null; then
        fail "a used ticket was accepted"
    fi
    note "a used ticket: $(grep -m 1 -v '^$' "$work/outsider.log")"
    probe "$client" >"$work/probe.log" 2>&1 || fail "$client lost its access: $(tail -n 3 "$work/probe.log")"
}

# refusal_at COMPANY: what its inlet says of the last failure.
refusal_at() { portolan_at "$1" tcp-inlet show --output plain 2>&1 | sed -nE 's/^Last failure +//p'; }

# claim_restarts: both nodes are stopped and started again, the client's first; their portal is back without a configuration.
claim_restarts() {
    local service=${companies[0]} client=${companies[1]}
    step "claim: the portal comes back when its nodes were down"
    portolan_at "$service" node stop >"$work/restart.log" 2>&1 || fail "$service: node stop: $(cat "$work/restart.log")"
    portolan_at "$client" node stop >"$work/restart.log" 2>&1 || fail "$client: node stop: $(cat "$work/restart.log")"
    ! probe "$client" >"$work/probe.log" 2>&1 || fail "the service answered through stopped nodes"
    portolan_at "$client" node start >"$work/restart.log" 2>&1 || fail "$client: node start: $(cat "$work/restart.log")"
    ! probe "$client" >"$work/probe.log" 2>&1 || fail "the service answered through a stopped node"
    portolan_at "$service" node start >"$work/restart.log" 2>&1 || fail "$service: node start: $(cat "$work/restart.log")"
    await_probe "$client" 30
    note "both stopped, then started, with nothing but what the nodes had kept"
}
await_probe() { # await_probe COMPANY SECONDS: until the service answers
    local until=$((SECONDS + $2))
    until probe "$1" >"$work/probe.log" 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "$1 gets no answer: $(tail -n 3 "$work/probe.log")"
        sleep 0.2
    done
}

# claim_revoked: the administrator removes the client's company from the project: its access ends within five seconds and stays
# ended, though its credential would be good for an hour. A new ticket lets it in again, with all that its node holds.
claim_revoked() {
    local service=${companies[0]} client=${companies[1]} member from cut
    step "claim: access is revoked by one command"
    probe "$client" >"$work/probe.log" 2>&1 || fail "$client has no access that could be revoked: $(tail -n 3 "$work/probe.log")"
    member=$(portolan_at "$client" identity show)
    portolan_at hub project-member delete "$member" --yes >"$work/revoke.log" 2>&1 || fail "project-member delete: $(cat "$work/revoke.log")"
    from=$(date +%s%N)
    while probe "$client" >"$work/probe.log" 2>&1; do
        [ $(($(date +%s%N) - from)) -lt 5000000000 ] || fail "$client still had access 5 s after it was removed"
        sleep 0.1
    done
    cut=$((($(date +%s%N) - from) / 1000000))
    ! probe "$client" >"$work/probe.log" 2>&1 || fail "$client has access again"
    [ $((cut)) -lt 5000 ] || fail "it took $cut ms"
    note "project-member delete: the next try of $client, that ended $cut ms after, was refused"
    portolan_at "$service" relay list --output json >"$work/revoke.log" 2>&1 || fail "$service: relay list: $(cat "$work/revoke.log")"
    portolan_at "$client" project enroll "$(ticket "$@")" >"$work/revoke.log" 2>&1 || fail "$client cannot come back: $(cat "$work/revoke.log")"
    await_probe "$client" 30
    note "with a new ticket it is let in again"
}
