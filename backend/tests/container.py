"""A container's conditions without an engine: a read-only root, another user, nothing in the environment.

`image` lays out the files that a Dockerfile copies. `read_only_root` runs a command in them as a container would: a
root of its own that cannot be written to, /tmp in memory, a user without a home. That takes root's rights; `stranger`
needs none, and keeps the machine's own root: the files without write bits, another user where that may be chosen.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
MOUNTED = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/usr")
"""Of the machine: its programs and their libraries. Not /var, /run, /home, /root."""
CAN_MAKE_ROOTS = (
    os.geteuid() == 0
    and shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode
    == 0
)
ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cp -a "$IMAGE"/. "$ROOT"
mkdir -p "$ROOT/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
for path in $MOUNTED; do
    [ -d "$path" ] || continue
    mkdir -p "$ROOT$(dirname "$path")"
    if [ -L "$path" ]; then cp -P "$path" "$ROOT$path"; continue; fi
    mkdir -p "$ROOT$path"
    mount --rbind "$path" "$ROOT$path"
done
for path in $FILES; do mkdir -p "$ROOT$(dirname "$path")"; cp "$path" "$ROOT$path"; done
[ "$TMP_WRITABLE" = yes ] || mount -o remount,ro "$ROOT/tmp"
mount -o remount,ro "$ROOT"
exec chroot --userspec=$NOBODY:$NOBODY --groups=$NOBODY "$ROOT" "$@"
"""


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Its instructions with their arguments, in their order."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def image(copies: Sequence[str], folder: Path) -> Path:
    """A root folder with what the COPY instructions with these arguments put there, free of bytecode."""
    working = Path("/")
    for copy in copies:
        *sources, target = shlex.split(copy)
        place = working / target
        for source in sources:
            whole = ROOT / source
            into = folder / place.relative_to("/")
            if whole.is_dir():
                shutil.copytree(whole, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            elif target.endswith("/"):
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(whole, into)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(whole, into)
    return folder


def read_only_root(
    image: Path, command: Sequence[str], env: Mapping[str, str], *, cwd: str = "/", tmp_writable: bool = True
) -> list[str]:
    """The command line that runs `command` inside `image`, with nothing but `env` in its environment."""
    prefixes = [sys.prefix, os.path.realpath(sys.prefix), sys.base_prefix]
    of_python = [path for path in dict.fromkeys(prefixes) if not path.startswith("/usr")]
    root = image.with_name(f"{image.name}-root")
    root.mkdir(exist_ok=True)
    about = {
        "ROOT": str(root),
        "IMAGE": str(image),
        "MOUNTED": " ".join([*MOUNTED, *of_python]),
        "FILES": env.get("SSL_CERT_FILE", ""),
        "TMP_WRITABLE": "yes" if tmp_writable else "no",
        "NOBODY": str(NOBODY),
    }
    enter = ["env", *(f"{name}={value}" for name, value in about.items()), "sh", "-c", ENTER, "sh"]
    return ["unshare", "-m", *enter, *_bare(env), "sh", "-c", f'cd {cwd}; exec "$@"', "sh", *command]


def without_write_bits(image: Path) -> None:
    for path in [image, *image.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222 | 0o444 | (0o111 if path.is_dir() else 0))


def as_stranger(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> list[str]:
    """The command line that runs `command` in `cwd` with nothing but `env`, as a user who owns nothing if we may."""
    change = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    return [*change, *_bare(env), "sh", "-c", f'cd {shlex.quote(str(cwd))}; exec "$@"', "sh", *command]


def _bare(env: Mapping[str, str]) -> list[str]:
    return ["env", "-i", f"PATH={os.defpath}", *(f"{name}={value}" for name, value in env.items())]
