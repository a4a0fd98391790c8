#!/bin/sh
# A member's sidecar: joins the project with the ticket that is mounted as a secret, then becomes the node that the mounted
# configuration describes. Bank Corp. and Analysis Corp. run the same image; their tickets and configurations differ.
#
# It can be run again and again. The identity is in PORTOLAN_HOME, on a volume: with it, a ticket that is used up does no
# harm, and the secret may be gone. Without it, a fresh ticket is needed.
set -eu

ticket=${TICKET_FILE:-/etc/portolan/enrollment/ticket}
configuration=${CONFIGURATION_FILE:-/etc/portolan/configuration/node.yaml}

# A restart is not to hang on a project that is away: what the home holds is enough to start with.
code=0
portolan project enroll --quiet --timeout 30s "$ticket" >/dev/null || code=$?
case $code in
    0) ;;
    # 3: no ticket; 6, 7: the project cannot be reached. Harmless for a member, which is known to its home.
    3 | 6 | 7)
        if ! portolan project show --quiet >/dev/null 2>&1; then
            echo "this machine is no member of a project: nothing is in its home ($PORTOLAN_HOME), and no ticket could be used;" >&2
            echo "mount the volume of the home, or a fresh ticket at $ticket" >&2
            exit "$code"
        fi
        echo "going on as the member that this machine is already" >&2
        ;;
    # The project said no: the ticket was used by another identity or has expired, or this member was removed.
    *)
        echo "the project does not take this machine with the ticket in $ticket; if the volume of its home" >&2
        echo "($PORTOLAN_HOME) was lost, mount it again, or a fresh ticket" >&2
        exit "$code"
        ;;
esac

# The node takes the place of this shell: signals reach it, and its end is the container's end.
exec portolan node create --foreground --configuration "$configuration"
