"""Runs a command that must not outlive the process that started it, even if that one is killed with -9.

    python tether.py [--watch] PARENT_PID COMMAND [ARGUMENT...]

On Linux the kernel is asked to kill this process when its parent dies (PR_SET_PDEATHSIG, which survives the exec).
Elsewhere, or with `--watch`, a small watcher is left beside the command, which asks every half second whether the
parent is still there.  The command takes over this process: same pid, same exit status.  As a script it imports
nothing of ours, so that it costs a few milliseconds and no memory.

The signal is SIGKILL: services are built to lose their process at any moment (their jobs are requeued), while an
orphan that keeps a port or a data directory is in the way of the next start.
"""

import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WATCH_INTERVAL_S = 0.5


def die_with(parent_pid: int, *, watch: bool = False) -> None:
    """Arrange that this process, and what it becomes by exec, is killed when `parent_pid` ends."""
    if watch or not _ask_kernel():
        _leave_watcher(parent_pid)
    # The parent may have died before the kernel was asked; then this process has been adopted already.
    if os.getppid() != parent_pid:
        os._exit(1)


def _ask_kernel() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return int(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)) == 0


def _leave_watcher(parent_pid: int) -> None:
    command_pid = os.getpid()
    if os.fork():
        return
    # Neither a terminal's Ctrl-C nor the command's pipes concern the watcher.
    os.setsid()
    for descriptor in range(3):
        os.close(descriptor)
    while os.getppid() == command_pid:  # else the command has ended by itself
        if not _alive(parent_pid):
            os.kill(command_pid, signal.SIGKILL)
            break
        time.sleep(WATCH_INTERVAL_S)
    os._exit(0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    """Tie this process to its parent, then become the command."""
    arguments = sys.argv[1:]
    watch = arguments[0] == "--watch"
    parent_pid, *command = arguments[watch:]
    die_with(int(parent_pid), watch=watch)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
