"""Runs one container of a manifest on this machine, as a kubelet would, without a cluster or an engine.

    container.py run  MANIFEST CONTAINER --image FOLDER --state FOLDER     its command, as process 1
    container.py exec MANIFEST CONTAINER --state FOLDER COMMAND...         a command in it, as `kubectl exec` does
    container.py probe MANIFEST CONTAINER PROBE --state FOLDER             the command of its startup, readiness, liveness probe
    container.py data MANIFEST CONFIGMAP KEY                               a text of a ConfigMap of the manifest

It takes from the manifest what decides whether the entrypoint works in a cluster: command, environment, volumes with their
modes, user, group, fsGroup, read-only root, dropped capabilities, no new privileges. What it does not know is an error, so that
nothing in a manifest is silently left out. Not done here: seccomp, resource limits, image pulls.

The caller starts it as root in the pod's network namespace, `run` in new mount, process, IPC and host name namespaces, `exec` and
`probe` in those of the container. The state folder stands for the cluster:

    secrets/NAME/KEY, configmaps/NAME/KEY    what was created there with kubectl
    volumes/NAME                             persistent volumes, by claim
    roots/CONTAINER                          made here: what the container sees as /
"""

import argparse
import ctypes
import os
import shutil
import subprocess
import sys

import yaml

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
DEVICES = ("null", "zero", "full", "random", "urandom")


def fail(message):
    sys.exit(f"container.py: {message}")


def pod_of(documents):
    """The pod template among the documents, with the names of the volumes that it claims."""
    for document in documents:
        if document["kind"] in ("StatefulSet", "Job"):
            spec = document["spec"]
            pod = spec["template"]["spec"]
            for claim in spec.get("volumeClaimTemplates", ()):
                name = claim["metadata"]["name"]
                pod.setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": {"claimName": name}})
            return pod
    fail("there is no pod in the manifest")


def container_of(pod, name):
    for container in pod.get("initContainers", []) + pod["containers"]:
        if container["name"] == name:
            return container
    fail(f"there is no container {name} in the manifest")


def security_of(pod, container):
    """What is set for the container counts more than what is set for its pod."""
    security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    if not security.get("runAsNonRoot") or not security.get("runAsUser") or not security.get("runAsGroup"):
        fail("the container would run as root")
    if security.get("capabilities") != {"drop": ["ALL"]} or security.get("allowPrivilegeEscalation") is not False:
        fail("the container would keep capabilities, or could gain some")
    return security


class Cluster:
    def __init__(self, documents, state):
        self.state = state
        self.configmaps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}

    def items(self, kind, name, optional):
        """Keys and contents of a ConfigMap (of the manifest, or made by hand) or of a Secret."""
        if kind == "configmaps" and name in self.configmaps:
            return {key: text.encode() for key, text in self.configmaps[name].items()}
        folder = os.path.join(self.state, kind, name)
        if not os.path.isdir(folder):
            if optional:
                return {}
            fail(f"there is no {name} among the {kind}")
        found = {}
        for key in os.listdir(folder):
            with open(os.path.join(folder, key), "rb") as file:
                found[key] = file.read()
        return found

    def environment(self, container):
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": "pod"}
        for variable in container.get("env", []):
            value = variable.get("value")
            if value is None:
                (source, of), = variable["valueFrom"].items()
                kind = {"configMapKeyRef": "configmaps", "secretKeyRef": "secrets"}[source]
                value = self.items(kind, of["name"], False)[of["key"]].decode()
            environment[variable["name"]] = value
        return environment


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def mount_volume(cluster, pod, request, root, security):
    """Mounts one volume of the container below its root."""
    unknown = set(request) - {"name", "mountPath", "readOnly"}
    if unknown:
        fail(f"a volume mount with {unknown} is not known here")
    volume = next(v for v in pod["volumes"] if v["name"] == request["name"])
    (kind, source), = ((key, value) for key, value in volume.items() if key != "name")
    target = root + request["mountPath"]
    os.makedirs(target, exist_ok=True)
    group = security.get("fsGroup", 0)
    if kind == "persistentVolumeClaim":
        folder = os.path.join(cluster.state, "volumes", source["claimName"])
        if not os.path.isdir(folder):
            # As the kubelet prepares a new volume for fsGroup.
            os.makedirs(folder)
            os.chown(folder, 0, group)
            os.chmod(folder, 0o2775)
        mount("--bind", folder, target)
        return
    if kind not in ("secret", "configMap"):
        fail(f"a volume of kind {kind} is not known here")
    mount("-t", "tmpfs", "-o", "mode=0755,size=1m", "volume", target)
    what, name = ("secrets", source["secretName"]) if kind == "secret" else ("configmaps", source["name"])
    found = cluster.items(what, name, source.get("optional", False))
    paths = {item["key"]: item["path"] for item in source["items"]} if "items" in source else {key: key for key in found}
    for key, path in paths.items():
        file = os.path.join(target, path)
        with open(file, "wb") as output:
            output.write(found[key])
        os.chown(file, 0, group)
        os.chmod(file, source.get("defaultMode", 0o644))
    # Kubernetes mounts these read-only whatever the manifest says.
    mount("-o", "remount,ro", target)


def build_root(cluster, pod, container, image, security):
    """The container's root: the image with every mount point made, then read-only."""
    root = os.path.join(cluster.state, "roots", container["name"])
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(os.path.dirname(root), exist_ok=True)
    shutil.copytree(image, root, symlinks=True)
    mount("--make-rprivate", "/")
    mount("--bind", root, root)
    for name in ("proc", "dev", "etc"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    mount("-t", "proc", "proc", root + "/proc")
    for name in DEVICES:
        device = f"{root}/dev/{name}"
        open(device, "w").close()
        mount("--bind", f"/dev/{name}", device)
    # What the kubelet and the runtime put there.
    for name in ("hosts", "resolv.conf"):
        source = os.path.join(cluster.state, name)
        if os.path.exists(source):
            shutil.copy(source, f"{root}/etc/{name}")
    for request in container.get("volumeMounts", []):
        mount_volume(cluster, pod, request, root, security)
    if not security.get("readOnlyRootFilesystem"):
        fail("the root file system would be writable")
    mount("-o", "remount,bind,ro", root)


def become(cluster, container, security, command):
    """Gives up everything that the manifest does not grant, and runs the command."""
    root = os.path.join(cluster.state, "roots", container["name"])
    environment = cluster.environment(container)
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    calls = [(PR_CAPBSET_DROP, capability) for capability in range(last + 1)] + [(PR_SET_NO_NEW_PRIVS, 1)]
    for option, value in calls:
        if libc.prctl(option, value, 0, 0, 0) != 0:
            fail(f"prctl {option} {value}: {os.strerror(ctypes.get_errno())}")
    # From here on Python's own modules are out of reach.
    os.chroot(root)
    os.chdir("/")
    os.setgroups([security["fsGroup"]] if "fsGroup" in security else [])
    os.setgid(security["runAsGroup"])
    # Without this user's id in the sets, the capabilities are gone with the change from root.
    os.setuid(security["runAsUser"])
    os.umask(0o022)
    os.execvpe(command[0], command, environment)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("action", choices=("run", "exec", "probe", "data"))
    parser.add_argument("manifest")
    parser.add_argument("name")
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--image")
    parser.add_argument("--state")
    line = sys.argv[1:]
    # What follows -- is a command with flags of its own.
    command = line[line.index("--") + 1:] if "--" in line else []
    given = parser.parse_args(line[: line.index("--")] if "--" in line else line)
    with open(given.manifest, encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    cluster = Cluster(documents, given.state)
    if given.action == "data":
        print(cluster.configmaps[given.name][given.rest[0]], end="")
        return
    pod = pod_of(documents)
    container = container_of(pod, given.name)
    security = security_of(pod, container)
    if given.action == "run":
        # The image's own entrypoint, unless the manifest has another.
        command = container.get("command", ["/entrypoint.sh"]) + container.get("args", [])
        build_root(cluster, pod, container, given.image, security)
    elif given.action == "probe":
        command = container[given.rest[0] + "Probe"]["exec"]["command"]
    become(cluster, container, security, command)


main()
