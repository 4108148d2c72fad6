#!/usr/bin/env python3
"""Runs kernel tests in a QEMU guest, once for each hook.

The machine that builds sockwatch may refuse the hooks `lsm` and `fentry` (under
lockdown they fail with EPERM), so the tests of connect() run in a guest too: the
kernel is Debian's cloud kernel, unpacked from its package and not installed; the
initramfs holds the statically linked test binary and program, busybox, and the
few modules that the tests need; the processor is emulated, so no /dev/kvm is
asked for.

Packages come through apt, as root. Where they cannot be had, one line says
SKIPPED and why, and that is no failure. It is one that a test fails, that a run
has no test, or that the guest does not come to its end.

    .ci/guest/run.py                     the runs below
    .ci/guest/run.py lsm connect::       one run: a hook and the test binary's arguments
"""

import gzip
import json
import lzma
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
CACHE = TARGET / "guest"

# A hook, and what the test binary is told: the tests that it shall run. There is
# no dnsmasq in the guest, and a burst takes minutes on an emulated processor.
RUNS = [
    ("lsm", "connect:: --skip unhooked --skip connect::names --skip connect::burst"),
    ("fentry", "connect:: --skip unhooked --skip connect::names --skip connect::burst"),
    ("cgroup", "connect:: --skip unhooked --skip connect::names --skip connect::burst"),
    ("sock_diag", "connect::unhooked"),
    # No hook at all: another kernel than that of this machine. Without a cookie
    # needs dumps of bound sockets, which came with 6.8. And the stock net.core.rmem_max.
    ("sockets", "connections:: syn_sent:: shards:: --skip without_a_cookie"),
]
# Seconds after which the guest is taken to hang.
DEADLINE = 600
MODULES = ["inet_diag", "tcp_diag", "udp_diag", "mptcp_diag", "veth"]
PACKAGE = "linux-image-cloud-amd64"
TRIPLE = "x86_64-unknown-linux-gnu"


class Unavailable(Exception):
    """What the guest is made of cannot be had here."""


def output(*command, **options):
    """What a command prints; Unavailable with its last words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, **options)
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word why"]
        raise Unavailable(f"{' '.join(command[:3])}: {words[-1]}")
    return done.stdout


def apt(*arguments, **options):
    return output("apt-get", "-qq", "-o", "APT::Sandbox::User=root", *arguments, **options)


def install_qemu():
    """The emulator; it is installed where it is missing."""
    qemu = "qemu-system-x86_64"
    if not any((pathlib.Path(place) / qemu).exists() for place in os.get_exec_path()):
        apt("install", "-y", "--no-install-recommends", "qemu-system-x86",
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return qemu


def unpack(package):
    """The files of a package, unpacked beside the machine's own."""
    version = re.search(r"Candidate: (\S+)", output("apt-cache", "policy", package))
    if not version or version[1] == "(none)":
        raise Unavailable(f"apt knows no package {package}")
    place = CACHE / f"{package}_{version[1].replace(':', '%3a')}"
    if not place.exists():
        apt("download", package, cwd=CACHE)
        archive, = CACHE.glob(f"{package}_*.deb")
        half = place.with_suffix(".half")
        output("dpkg-deb", "-x", str(archive), str(half))
        half.rename(place)
        archive.unlink()
    return place


def kernel_package():
    """The package with the image that the package without a version needs."""
    needed = re.search(r"Depends: (linux-image-\S+)", output("apt-cache", "depends", PACKAGE))
    if not needed:
        raise Unavailable(f"{PACKAGE} needs no image")
    return needed[1]


def gather():
    """Everything that comes in packages."""
    return install_qemu(), unpack(kernel_package()), unpack("busybox-static")


def modules(kernel):
    """Those of MODULES that are not part of the image, as (name, bytes)."""
    base, = (kernel / "lib/modules").iterdir()
    builtin = (base / "modules.builtin").read_text()
    for number, name in enumerate(MODULES):
        found = [path for path in base.rglob(f"{name}.ko*")]
        if found:
            data = found[0].read_bytes()
            if found[0].suffix == ".xz":
                data = lzma.decompress(data)
            yield f"{number}-{name}.ko", data
        elif f"/{name}.ko\n" not in builtin:
            sys.exit(f"guest: {base.name} has no module {name}")


def build():
    """The test binary and the program, statically linked: (kernel, sockwatch).

    Without debug information, which is most of their size, and optimised a
    little, since the guest is slow. A target triple keeps the flags away from
    build scripts and procedural macros."""
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(CACHE / "build"),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
        "RUSTFLAGS": "-C target-feature=+crt-static",
    }
    command = ["cargo", "test", "--locked", "--test", "kernel", "--no-run", "--target", TRIPLE,
               "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("guest: the tests cannot be built")
    built = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"]:
            built[message["target"]["name"]] = pathlib.Path(message["executable"])
    return built["kernel"], built["sockwatch"]


def cpio(entries):
    """An archive in the format `newc` (the kernel's
    Documentation/driver-api/early-userspace/buffer-format.rst) of
    (name, mode, bytes)."""
    archive = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def initramfs(kernel, busybox, runs):
    """Everything that the guest finds."""
    tests, program = build()
    directory, executable, file = 0o040755, 0o100755, 0o100644
    entries = [(name, directory, b"") for name in
               ["bin", "dev", "proc", "sys", "tmp", "modules", "etc"]]
    entries += [
        ("bin/busybox", executable, (busybox / "bin/busybox").read_bytes()),
        ("init", executable, (HERE / "init").read_bytes()),
        ("kernel", executable, tests.read_bytes()),
        ("sockwatch", executable, program.read_bytes()),
        ("runs", file, "".join(f"{hook} {rest}\n" for hook, rest in runs).encode()),
    ]
    entries += [(f"modules/{name}", file, data) for name, data in modules(kernel)]
    path = CACHE / "initramfs.gz"
    path.write_bytes(gzip.compress(cpio(entries), 1))
    return path


def boot(qemu, kernel, initramfs):
    """Runs the guest; yields its lines, each with the seconds since it began."""
    image, = (kernel / "boot").glob("vmlinuz-*")
    append = "console=ttyS0 quiet loglevel=1 panic=-1 lsm=landlock,lockdown,yama,bpf"
    command = [qemu, "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
               "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", "1G",
               "-kernel", str(image), "-initrd", str(initramfs), "-append", append]
    began = time.monotonic()
    guest = subprocess.Popen(["timeout", str(DEADLINE), *command], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in guest.stdout:
        yield time.monotonic() - began, line.decode(errors="replace").rstrip()
    if guest.wait() != 0:
        yield time.monotonic() - began, f"guest: trouble QEMU ended with {guest.returncode}"


class Run:
    """What the guest said of one hook."""

    def __init__(self, hook, began):
        self.hook = hook
        self.began = began
        self.lines = []
        self.seconds = 0
        self.status = None

    def verdict(self):
        """(whether all is well, a line)."""
        # The last such line: what a test that failed has printed holds others.
        counts = re.findall(r"^test result: .* (\d+) passed; (\d+) failed",
                            "\n".join(self.lines), re.MULTILINE)
        passed, failed = map(int, counts[-1]) if counts else (0, 0)
        skipped = sum(line.startswith("SKIPPED") for line in self.lines)
        well = self.status == 0 and passed > 0 and failed == 0
        return well, (f"{self.hook}: {passed} passed, {failed} failed, {skipped} said SKIPPED, "
                      f"{self.seconds:.0f} s" + ("" if self.status is not None else ", no end"))


    def tell(self):
        """Prints the verdict, and what led to it where that must be seen."""
        well, words = self.verdict()
        for line in self.lines:
            if not well or line.startswith("SKIPPED"):
                print(f"{self.hook}: {line}")
        print(f"guest: {words}", flush=True)


def listen(lines):
    """Sorts what the guest says into runs; the runs and the troubles."""
    runs, troubles, run = [], [], None
    for seconds, line in lines:
        words = line.split()
        if line.startswith("guest: begin"):
            run = Run(words[2], seconds)
            runs.append(run)
        elif line.startswith("guest: end"):
            run.seconds = seconds - run.began
            run.status = int(words[3])
            run.tell()
            run = None
        elif line.startswith("guest: trouble"):
            troubles.append(line)
        elif line.startswith("guest: kernel"):
            print(f"{line}, up after {seconds:.0f} s", flush=True)
        elif run:
            run.lines.append(line)
        else:
            troubles.append(line)
    return runs, troubles


def main():
    wanted = [(sys.argv[1], " ".join(sys.argv[2:]))] if sys.argv[1:] else RUNS
    try:
        if os.geteuid() != 0:
            raise Unavailable("only root can have packages")
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            qemu, kernel, busybox = gather()
        except Unavailable:
            # Lists of packages that are missing or old.
            apt("update")
            qemu, kernel, busybox = gather()
    except Unavailable as reason:
        print(f"SKIPPED the guest with the hooks lsm and fentry: {reason}")
        return 0
    image = initramfs(kernel, busybox, wanted)
    runs, troubles = listen(boot(qemu, kernel, image))
    wrong = [run for run in runs if not run.verdict()[0]]
    for run in wrong:
        if run.status is None:
            run.tell()
    # What the firmware and the kernel say, in case of trouble alone.
    lost = len(wanted) - len(runs)
    if wrong or lost or any(line.startswith("guest: trouble") for line in troubles):
        print("".join(f"{line}\n" for line in troubles), end="")
        print(f"guest: {len(wrong)} hooks failed, {lost} never ran", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
