"""A day of three sidecars and an emulated AWS, in 24 minutes, and what a scraper gets to see of it.

libfaketime makes the clocks of the sidecars and of the emulator run RATE times as fast, so that tokens live their 12
hours. The API server's clock is the real one.
"""

import contextlib
import datetime
import http.client
import json
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

RATE = 60
HOURS = 24
SCRAPE_INTERVAL = 30
# What Debian's package libfaketime installs; the variant for programs with threads.
FAKETIME = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

# The emulator's own user; both are the examples of AWS's documentation.
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}
USER, ROLE = "arn:aws:iam::123456789012:user/emulated", "arn:aws:iam::999999999999:role/ecr-pull"
IDENTITIES = {"billing": {"assumeRoles": [{"roleArn": ROLE}]}}
PROBE = {"repository": "app", "every": "15m"}
OURS = {"host": "123456789012.dkr.ecr.eu-west-1.amazonaws.com"}
THEIRS = {"host": "999999999999.dkr.ecr.us-east-1.amazonaws.com", "identity": "billing"}
FILE = {"type": "docker-config", "path": "/var/run/ecr-sidecar/config.json"}
EVERYWHERE = {"type": "docker-config-secret", "name": "ecr-credentials", "namespaces": {"selector": "ecr=enabled"}}

FLUX = ("flux-system", "image-reflector-controller-6d8f9c7b5-x2k4q")
ARGO = ("argocd", "argocd-repo-server-7c5b6d9f88-m9tvw")
OWN = ("ecr-sidecar", "ecr-sidecar-5f7d4c8b96-zl8hp")
CONFIGURATIONS = {
    FLUX: {
        "identities": IDENTITIES,
        "registries": [OURS | {"probe": PROBE}, THEIRS | {"probe": PROBE}],
        "outputs": [FILE],
    },
    ARGO: {"registries": [OURS], "outputs": [FILE, {"type": "argocd-repo-creds", "namespace": "argocd"}]},
    OWN: {"identities": IDENTITIES, "registries": [OURS, THEIRS], "outputs": [EVERYWHERE]},
}


class Day:
    """Runs in a `with`, which ends every process that it started."""

    def __init__(self, programs):
        self.programs = programs
        self.exits = contextlib.ExitStack()
        self.folder = pathlib.Path(self.exits.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-")))
        # The next midnight, so that hours are round, and certificates of today are valid.
        today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.begin = today + datetime.timedelta(days=1)
        self.end = self.begin + datetime.timedelta(hours=HOURS)
        self.file = self.folder / FLUX[1] / "out/config.json"
        self.ports = {pod: free_port() for pod in CONFIGURATIONS}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.exits.close()

    def run(self, scrapes, wanted):
        """Lets the day pass. The metrics whose names `wanted` accepts go to the file `scrapes`, as OpenMetrics."""
        self.start_kubernetes()
        self.started = time.monotonic()
        self.start_emulator()
        for pod in CONFIGURATIONS:
            self.start_sidecar(pod)
            wait_for(pod[1], lambda pod=pod: self.get(pod, "/readyz")[0] == 200)
        events = self.events()
        with open(scrapes, "w") as file:
            at = self.now()
            while at < self.end:
                at += datetime.timedelta(seconds=SCRAPE_INTERVAL)
                time.sleep(max(0, (at - self.now()).total_seconds() / RATE))
                for pod in CONFIGURATIONS:
                    file.writelines(self.scrape(pod, wanted))
                while events and self.now() >= self.begin + datetime.timedelta(hours=events[0][0]):
                    _, text, happen, *arguments = events.pop(0)
                    print(f"{self.now():%H:%M} {text}", flush=True)
                    happen(*arguments)
            file.write("# EOF\n")

    def events(self):
        """What happens at which hour."""
        jitter = CONFIGURATIONS[FLUX] | {"refresh": {"jitter": "5%"}}
        return [
            (2, "a namespace is created", self.create_namespace, "team-c"),
            (4.5, "ECR throttles", self.ecr_fails, "throttled"),
            (8, "ECR responds again", self.control, "DELETE", "faults"),
            (9, "an invalid configuration", self.configure, FLUX, {"registrys": []}),
            (9.5, "a valid one", self.configure, FLUX, jitter),
            (10, "a namespace is created", self.create_namespace, "team-d"),
            (11, "ECR is down", self.ecr_fails, {"status": 503}),
            (14.5, "ECR responds again", self.control, "DELETE", "faults"),
            (16, "the file cannot be written", self.block_file),
            (17.5, "the file can be written again", self.unblock_file),
            (20, "a repository policy denies pulls", self.deny_pulls),
            (22, "a namespace is created, with a Secret of another type", self.create_namespace, "team-e", "Opaque"),
        ]

    def now(self):
        return self.begin + datetime.timedelta(seconds=(time.monotonic() - self.started) * RATE)

    def spawn(self, name, *command, stdout=None, **environment):
        """A process with nothing in its environment but these variables. Its log is in the folder."""
        environment = {"PATH": self.programs, "HOME": str(self.folder), "TZ": "UTC"} | environment
        log = self.exits.enter_context((self.folder / f"{name}.log").open("w"))
        process = subprocess.Popen(
            command, env=environment, stdout=stdout or log, stderr=log, cwd=self.folder, text=True
        )
        self.exits.callback(stop, process)
        return process

    def fast(self, name, *command, **options):
        clock = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME": f"@{self.now():%Y-%m-%d %H:%M:%S} x{RATE}",
            "NO_FAKE_STAT": "1",
        }
        return self.spawn(name, *command, **clock, **options)

    def start_emulator(self):
        emulator = self.fast("emulator", "ecr-emulator", stdout=subprocess.PIPE)
        self.emulator = {}
        while "ca-file" not in self.emulator:
            line = emulator.stdout.readline()
            if not line:
                raise SystemExit("the emulator did not start:\n" + (self.folder / "emulator.log").read_text())
            name, value = line.split()
            self.emulator[name] = value

    def start_sidecar(self, pod):
        (self.folder / pod[1] / "out").mkdir(parents=True)
        self.configure(pod, CONFIGURATIONS[pod])
        # Each has a /run of its own, since the file's path is in a label.
        mounts = (
            'mount -t tmpfs none /run; mkdir /run/ecr-sidecar; mount --bind "$1" /run/ecr-sidecar; shift; exec "$@"'
        )
        self.fast(
            pod[1], "unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", mounts, "sh",
            self.folder / pod[1] / "out", "ecr-sidecar", "run", "--config", self.folder / pod[1] / "config.yaml",
            "--health-listen", f"127.0.0.1:{self.ports[pod]}", **KEYS, AWS_REGION="eu-west-1",
            HTTPS_PROXY=self.emulator["proxy"], AWS_CA_BUNDLE=self.emulator["ca-file"], KUBECONFIG=str(self.kubeconfig),
        )  # fmt: skip

    def configure(self, pod, configuration):
        file = self.folder / pod[1] / "config.yaml"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(configuration))
        new.rename(file)

    def control(self, method, path, body=None):
        body = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.emulator['endpoint']}/_emulator/{path}", body, method=method)
        urllib.request.urlopen(request, timeout=10).close()

    def ecr_fails(self, fault):
        self.control("PUT", "faults", {"service": "ecr", "fault": fault})

    def block_file(self):
        """Puts a directory with something in it in the file's place, before the sidecar writes the file again."""
        while not self.file.is_dir():
            with contextlib.suppress(OSError):
                self.file.unlink()
                self.file.mkdir()
                (self.file / "not-empty").touch()

    def unblock_file(self):
        shutil.rmtree(self.file)

    def deny_pulls(self):
        def attach(to, effect, action, **more):
            statement = {"Effect": effect, "Action": action} | more
            self.control(
                "PUT", "policies", {"attachTo": to, "documents": [{"Version": "2012-10-17", "Statement": [statement]}]}
            )

        repository = f"arn:aws:ecr:us-east-1:999999999999:repository/{PROBE['repository']}"
        attach({"trust": ROLE}, "Allow", "sts:AssumeRole", Principal={"AWS": USER})
        for identity in (USER, ROLE):
            attach({"identity": identity}, "Allow", "*", Resource="*")
        attach({"repository": repository}, "Deny", "ecr:BatchGetImage", Principal="*")

    def start_kubernetes(self):
        etcd, api = f"http://127.0.0.1:{free_port()}", free_port()
        self.spawn(
            "etcd", "etcd", f"--data-dir={self.folder}/etcd", "--listen-peer-urls=http://127.0.0.1:0",
            f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", "--log-level=warn",
        )  # fmt: skip
        token, certs = secrets.token_hex(), self.folder / "certs"
        (self.folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        self.spawn(
            "kube-apiserver", "kube-apiserver", f"--etcd-servers={etcd}", f"--cert-dir={certs}",
            "--bind-address=127.0.0.1", f"--secure-port={api}", f"--token-auth-file={self.folder}/tokens.csv",
            f"--service-account-signing-key-file={certs}/apiserver.key",
            f"--service-account-key-file={certs}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        )  # fmt: skip
        self.kubeconfig = self.folder / "kubeconfig"
        cluster = {"server": f"https://127.0.0.1:{api}", "certificate-authority": f"{certs}/apiserver.crt"}
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "here", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here", "namespace": "default"}}],
        }))  # fmt: skip
        wait_for("the API server", lambda: self.kubectl("get", "--raw=/readyz", check=False).returncode == 0)
        self.kubectl("create", "namespace", "argocd")
        for name in ("team-a", "team-b"):
            self.create_namespace(name)

    def create_namespace(self, name, secret_type=None):
        """One of those that get a Secret; with a type, there is another one of that name already."""
        self.kubectl("create", "namespace", name)
        if secret_type:
            secret = ("create", "secret", "generic", EVERYWHERE["name"], "--from-literal=key=value")
            self.kubectl(*secret, f"--type={secret_type}", f"--namespace={name}")
        self.kubectl("label", "namespace", name, "ecr=enabled")

    def kubectl(self, *arguments, check=True):
        environment = {"PATH": self.programs, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        return subprocess.run(["kubectl", *arguments], env=environment, check=check, capture_output=True, timeout=60)

    def get(self, pod, path):
        """The status and the text of an answer, or neither."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[pod], timeout=1)
        try:
            connection.request("GET", path, headers={"Accept": "application/openmetrics-text"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()

    def scrape(self, pod, wanted):
        """The lines of one scrape, with its time and the labels that the PodMonitor gives them; none if it fails."""
        labels = f'namespace="{pod[0]}",pod="{pod[1]}",job="ecr-sidecar"'
        at = self.now().timestamp()
        _, text = self.get(pod, "/metrics")
        for name, own, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
            if wanted(name):
                yield f"{name}{{{labels}{',' + own if own else ''}}} {value} {at:.3f}\n"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, is_so, seconds=120):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} is not ready within {seconds} s")
        time.sleep(0.2)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
