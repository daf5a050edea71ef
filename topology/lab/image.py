"""The images of the roles, built from Debian's packages and cached by their content."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from harness.records import LabError
from topology.model import ClockKind

IMAGES = Path(__file__).parents[1] / "images"
ROLES = ("director", "web", "db", "resolver", "client", "switch")
SUITE = "bookworm"
REGISTRY_IMAGE = f"debian:{SUITE}-slim"
BASE = f"monkeywrench-base:{SUITE}"
PYTHON = "3.11"
"""The Python version of the suite, for which wheels are fetched."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LOG_LINES = 15
LABEL = "monkeywrench.image"
NO_KERNEL = "no own kernel: "
"""How the last line of ``images/kernel/build`` begins when it fails."""
LOCK = Path(tempfile.gettempdir()) / f"monkeywrench-kernel-{os.getuid()}.lock"
KERNEL_PROGRESS = ("compiling ", "user and system time ")
"""How lines of ``images/kernel/build`` begin that tell a user how far it is."""

Say = Callable[[str], None]


def ensure(client: Any, say: Say, clock: ClockKind = "real") -> dict[str, str]:
    """Build the missing images for labs with that clock. Returns the image of each role.

    Raises LabError when one cannot be built; for virtual time also when the kernel cannot.
    """
    kernel = kernel_for(clock)
    if not exists(client, kernel):
        base(client, say)
        with _alone(say):
            if not exists(client, kernel):  # another process may have built it meanwhile
                _build_kernel(client, kernel, say)
    node, images = tag("node", BASE, kernel), names(clock)
    missing = [role for role in ROLES if not exists(client, images[role])]
    if not missing:
        return images
    if not exists(client, node):
        base(client, say)
        build(client, Recipe("node"), node, {"BASE": BASE, "KERNEL": kernel}, say)
    with ThreadPoolExecutor(max_workers=len(missing)) as pool:
        jobs = [pool.submit(build, client, Recipe(role), images[role], {"NODE": node}, say) for role in missing]
        for job in jobs:
            job.result()
    return images


def names(clock: ClockKind = "real") -> dict[str, str]:
    """The name of each role's image for labs with that clock, built or not."""
    node = tag("node", BASE, kernel_for(clock))
    return {role: tag(role, node) for role in ROLES}


def kernel_for(clock: ClockKind) -> str:
    """The image of the kernel: our own for virtual time, which Debian's binary does not have; Debian's for real time.

    Ours has no BPF yet, which some faults of real servers need.
    """
    return own_kernel() if clock == "virtual" else debian_kernel()


def own_kernel() -> str:
    """The image of the kernel that is built from source with the project's patches."""
    return tag("kernel", BASE)


def debian_kernel() -> str:
    """The image of Debian's binary kernel."""
    return own_kernel().replace("-kernel:", "-kernel-debian:")


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    """Two processes must not build the same kernel. The build is bounded in time, and a lock ends with its process."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds the kernel; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_kernel(client: Any, kernel: str, say: Say) -> None:
    if kernel == debian_kernel():
        build(client, Recipe("kernel", "Dockerfile.debian"), kernel, {"BASE": BASE}, say)
        return
    say("building the kernel from Debian's source: about 8 minutes of one processor, once")
    try:
        build(client, Recipe("kernel", progress=KERNEL_PROGRESS), kernel, {"BASE": BASE}, say)
    except LabError as error:
        raise LabError(
            f"virtual time needs a kernel built from source, and that failed: {why_not(str(error))}",
            "Use --clock real, which needs no such kernel, or try again.",
        ) from None


def why_not(error: str) -> str:
    """The reason why the kernel could not be built, as the second half of a sentence. Pure."""
    found = [line.removeprefix(NO_KERNEL) for line in error.splitlines() if line.startswith(NO_KERNEL)]
    return found[-1] if found else (error.splitlines() or ["its build failed"])[0]


def exists(client: Any, image: str) -> bool:
    """Whether the engine has the image."""
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


def missing(client: Any, images: Mapping[str, str]) -> dict[str, str]:
    """Those of the images that the engine does not have: role -> digest or name."""
    return {role: image for role, image in images.items() if not exists(client, image)}


def tag(role: str, *parents: str) -> str:
    """An image's name: its role, and a digest of everything it is built from."""
    digest = hashlib.sha256("\0".join(parents).encode())
    for path, content in sorted(_content(role).items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return f"monkeywrench-{role}:{digest.hexdigest()[:16]}"


def _content(role: str) -> dict[str, bytes]:
    folder = IMAGES / role
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass(frozen=True)
class Recipe:
    """How an image is built: the folder of its files, and one of the Dockerfiles there."""

    role: str
    dockerfile: str = "Dockerfile"
    progress: tuple[str, ...] = ()
    """How lines of the build's log begin that a user sees."""


def build(client: Any, recipe: Recipe, name: str, arguments: dict[str, str], say: Say) -> None:
    """Build one image. Raises LabError with the end of the log."""
    role = recipe.role
    say(f"building the {role} image from Debian packages")
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
            dockerfile=recipe.dockerfile,
            labels={LABEL: role},
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            new = str(event.get("stream", "")).splitlines()
            lines += new
            for line in new:
                if recipe.progress and line.startswith(recipe.progress):
                    say(line)
            if "error" in event:
                raise LabError(
                    f"building the {role} image failed: {event['error']}\n" + "\n".join(lines[-LOG_LINES:]),
                    "The build needs access to Debian's package mirror, like apt-get on this machine.",
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
    # a checkout under a strict umask must not lead to files that services cannot read
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {name: os.environ[name] for name in names if name in os.environ}


def fetch_wheels(lock: Path, target: Path) -> None:
    """Fetch the wheels of a lock file with this machine's pip.

    It is configured to reach a package index (proxies, certificates); an image that is being built is not.
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
            f"fetching the Python wheels for the {lock.parent.name} image failed:\n{done.stderr.strip()}",
            "Make `pip download` work on this machine (proxy, certificates), then try again.",
        )


def base(client: Any, say: Say) -> None:
    """Make the base image: pulled from a registry if one answers, otherwise bootstrapped on this machine."""
    if exists(client, BASE):
        return
    say(f"fetching {REGISTRY_IMAGE}")
    try:
        client.images.pull(*REGISTRY_IMAGE.split(":"))
        client.images.get(REGISTRY_IMAGE).tag(*BASE.split(":"))
    except (docker.errors.APIError, requests.exceptions.RequestException):
        say(f"no registry answers; bootstrapping Debian {SUITE} on this machine with mmdebstrap")
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
                f"bootstrapping Debian {SUITE} failed:\n{done.stderr.strip()[-2000:]}",
                f"It needs root and access to Debian's package mirror. Or run `docker pull {REGISTRY_IMAGE}` first.",
            )
        import_base(client, archive)


def import_base(client: Any, archive: Path) -> None:
    """Make the base image from the archive of a file system. Raises LabError.

    Podman ignores the tag of an import (its Docker API took only ``fromSrc``, ``changes`` and ``message`` up to 4.3 at
    least) and calls the image ``latest``, so it is tagged afterwards by the ID that the import reports.
    """
    events = client.api.import_image_from_file(str(archive), repository=BASE.partition(":")[0], tag=SUITE)
    report = [json.loads(line) for line in str(events).splitlines() if line.strip()]
    if failed := next((event["error"] for event in report if "error" in event), ""):
        raise LabError(f"importing the base image failed: {failed}", "Free some space, and look at the engine's log.")
    if exists(client, BASE):
        return
    name, _, suite = BASE.partition(":")
    image = report[-1]["status"] if report and "status" in report[-1] else f"{name}:latest"
    client.images.get(image).tag(name, suite)


def install(packages: list[str], say: Say) -> None:
    """Install Debian packages on this machine, and announce it."""
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
                f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}",
                f"Install {' '.join(packages)} by hand, then try again.",
            )
