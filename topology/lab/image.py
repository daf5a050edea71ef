"""Images, built from Debian's packages by the lab itself, one for each role, cached by their content."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from harness.records import LabError

IMAGES = Path(__file__).parents[1] / "images"
ROLES = ("director", "web", "db", "resolver", "client", "switch")
SUITE = "bookworm"
REGISTRY_IMAGE = f"debian:{SUITE}-slim"
BASE = f"monkeywrench-base:{SUITE}"
PYTHON = "3.11"
"""The Python of the suite, for which wheels are brought along."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LOG_LINES = 15
LABEL = "monkeywrench.image"

Say = Callable[[str], None]


def ensure(client: Any, say: Say) -> dict[str, str]:
    """Build what is missing. Returns each role's image."""
    node, images = tag("node", BASE), names()
    missing = [role for role in ROLES if not exists(client, images[role])]
    if not missing:
        return images
    if not exists(client, node):
        base(client, say)
        build(client, "node", node, {"BASE": BASE}, say)
    with ThreadPoolExecutor(max_workers=len(missing)) as pool:
        jobs = [pool.submit(build, client, role, images[role], {"NODE": node}, say) for role in missing]
        for job in jobs:
            job.result()
    return images


def names() -> dict[str, str]:
    """The image of each role, built or not."""
    node = tag("node", BASE)
    return {role: tag(role, node) for role in ROLES}


def exists(client: Any, image: str) -> bool:
    """True when the engine has it."""
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


def tag(role: str, parent: str) -> str:
    """An image's name: its role, and a digest of everything it is made from."""
    digest = hashlib.sha256(parent.encode())
    for path, content in sorted(_content(role).items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return f"monkeywrench-{role}:{digest.hexdigest()[:16]}"


def _content(role: str) -> dict[str, bytes]:
    folder = IMAGES / role
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def build(client: Any, role: str, name: str, arguments: dict[str, str], say: Say) -> None:
    """Build one image. Raises LabError with the end of the log."""
    say(f"building the image for {role} from Debian's packages")
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as wheels:
        if (IMAGES / role / "requirements.lock").exists():
            fetch_wheels(IMAGES / role / "requirements.lock", Path(wheels))
        events = client.api.build(
            fileobj=_context(role, Path(wheels)),
            custom_context=True,
            tag=name,
            network_mode="host",
            buildargs={**arguments, **_proxies()},
            labels={LABEL: role},
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            lines += str(event.get("stream", "")).splitlines()
            if "error" in event:
                raise LabError(
                    f"the image for {role} could not be built: {event['error']}\n" + "\n".join(lines[-LOG_LINES:]),
                    "Building needs Debian's package mirror, as apt-get on this machine does.",
                )


def _context(role: str, wheels: Path) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(
            IMAGES / role, ".", filter=lambda entry: None if "__pycache__" in entry.name else _root_owned(entry)
        )
        for wheel in wheels.iterdir():
            archive.add(wheel, f"wheels/{wheel.name}", filter=_root_owned)
    packed.seek(0)
    return packed


def _root_owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    # a checkout made under a strict umask must not make files that services cannot read
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {name: os.environ[name] for name in names if name in os.environ}


def fetch_wheels(lock: Path, target: Path) -> None:
    """Bring the wheels of a lock file with this machine's own pip.

    It knows how to reach an index from here (proxies, certificates); an image being built does not.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += [
        "--python-version",
        PYTHON,
        "--implementation",
        "cp",
        "--abi",
        f"cp{PYTHON.replace('.', '')}",
        "--abi",
        "abi3",
        "--abi",
        "none",
    ]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, "-d", str(target), "-r", str(lock)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(
            f"the wheels for {lock.parent.name} could not be fetched:\n{done.stderr.strip()}",
            "pip must work on this machine (proxy, certificates); the image is built from what it downloads.",
        )


def base(client: Any, say: Say) -> None:
    """The base image: a registry's when one answers, else bootstrapped here."""
    if exists(client, BASE):
        return
    say(f"fetching {REGISTRY_IMAGE}")
    try:
        client.images.pull(*REGISTRY_IMAGE.split(":"))
        client.images.get(REGISTRY_IMAGE).tag(*BASE.split(":"))
    except (docker.errors.APIError, requests.exceptions.RequestException):
        say(f"no registry answers; bootstrapping Debian {SUITE} here with mmdebstrap")
        bootstrap(client, say)


def bootstrap(client: Any, say: Say) -> None:
    """Make the base image from Debian's mirror."""
    if not shutil.which("mmdebstrap"):
        install(["mmdebstrap", "debian-archive-keyring"], say)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"]
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        if keyring.exists():
            command.append(f"--keyring={keyring}")
        done = subprocess.run([*command, SUITE, str(archive)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(
                f"Debian {SUITE} could not be bootstrapped:\n{done.stderr.strip()[-2000:]}",
                "It needs root and Debian's package mirror; or pull the image yourself: " + REGISTRY_IMAGE,
            )
        client.api.import_image_from_file(str(archive), repository=BASE.partition(":")[0], tag=SUITE)


def install(packages: list[str], say: Say) -> None:
    """Install Debian packages on this machine, saying so first."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(
            f"{' and '.join(packages)} must be installed on this machine",
            f"As root: apt-get install {' '.join(packages)}",
        )
    say(f"installing {' '.join(packages)} on this machine with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise LabError(
                f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}", "Install it by hand, then try again."
            )
