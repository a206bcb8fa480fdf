# SPDX-License-Identifier: Apache-2.0
"""What a stage1 image promises, one by one, and what was found of it; pure values."""

from __future__ import annotations

from dataclasses import dataclass, field

OK = "ok"
FAILED = "failed"
#: The image does not say that it has this, and need not.
ABSENT = "not declared"
#: Something else failed, so that this was not looked at.
UNREACHED = "not reached"
#: The person who asked wanted other groups.
LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence that must hold.

    Attributes:
        name: stable word, ``group.rest``.
        text: what must hold.
        section: heading in docs/stage1-implementors-guide.md.
    """

    name: str
    text: str
    section: str

    @property
    def group(self) -> str:
        """The part of the name before the dot."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a promise; ``seen`` says more where it does not simply hold."""

    promise: Promise
    state: str
    seen: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "check": self.promise.name,
            "state": self.state,
            "expected": self.promise.text,
            "seen": self.seen,
            "section": self.promise.section,
        }


_IMAGE = "The image"
_RUN = "run"
_FILES = "Files of the pod"
_DESCRIPTORS = "Descriptors and environment"
_STATUS = "Exit statuses"
_STOPPING = "How a pod ends"
_VERSIONS = "Interface versions"
_LIVE = "Apps that come and go"
_ATTACH = "attach"
_OPTIONS = "Further annotations"

PROMISES = tuple(
    Promise(*words)
    for words in (
        ("image.manifest", "the image manifest is valid and has a name and a version", _IMAGE),
        ("image.entrypoints", "each entrypoint is a plain absolute path of a program in the image", _IMAGE),
        ("image.required", "run and gc are declared", _IMAGE),
        ("image.live", "app/add, app/start, app/stop and app/rm are declared together or not at all", _IMAGE),
        ("image.version", "interface-version is a number that this rkt speaks", _VERSIONS),
        ("run.starts", "run brings the app up within the time", _RUN),
        ("run.process", "the process that was rkt stays and is the pod", _RUN),
        ("run.pid", "exactly one of pid and ppid, decimal, naming a process of the pod", _FILES),
        ("run.pid-last", "pid or ppid is written last: subcgroup is complete before", _FILES),
        ("run.cgroup", "subcgroup names a cgroup that exists", _FILES),
        ("run.ready", "rkt/supervisor-status is a link to ready while the pod runs", _FILES),
        ("run.lock", "RKT_LOCK_FD stays open and locked while the pod runs", _DESCRIPTORS),
        ("run.arguments", "every argument of its interface version is taken", _VERSIONS),
        ("app.arguments", "the program gets its words as they are, empty ones too", _RUN),
        (
            "app.environment",
            "the app's variables, PATH and AC_APP_NAME; nothing of the caller's",
            _DESCRIPTORS,
        ),
        ("app.descriptors", "no descriptor beyond 2 reaches the app, and not the lock", _DESCRIPTORS),
        ("app.root", "the app's root directory is its image's, and can be written to", _RUN),
        ("app.output", "what the app writes gets to the caller's standard output", _RUN),
        ("enter.status", "the exit status of the command is passed on", "enter"),
        ("enter.arguments", "the command gets its words as they are, empty ones too", "enter"),
        ("enter.root", "the command sees the files of the app", "enter"),
        ("enter.streams", "standard input and output of the command are the caller's", "enter"),
        ("enter.confined", "the command has no more rights than the app", "enter"),
        ("stop.status", "stop ends with status 0, and the pod ends", "stop"),
        ("stop.time", "the app gets SIGTERM and its time to end", _STOPPING),
        ("stop.force", "stop --force ends an app that ignores SIGTERM, at once", "stop"),
        ("start.again", "run works again in the pod directory of a pod that is over", "Running again"),
        ("signal.term", "SIGTERM to the pod's process gives the app its time, and ends the pod", _STOPPING),
        ("signal.kill", "SIGKILL of the pod's process ends every process of the pod", _STOPPING),
        ("status.zero", "a pod whose app ends with 0 ends with 0", _STATUS),
        ("status.app", "the app's exit status is the pod's", _STATUS),
        ("status.several", "the first app that fails ends a pod of several, with its status", _STATUS),
        ("status.file", "rkt/status/APP is the status, decimal, and a line feed", _STATUS),
        ("status.signal", "an app that a signal ended has status 128 and the signal's number", _STATUS),
        ("gc.status", "gc ends with status 0", "gc"),
        ("gc.twice", "gc can be called again", "gc"),
        ("gc.killed", "gc takes back what a killed pod left", "gc"),
        (
            "live.sandbox",
            "with --mutable a pod without apps runs until it is stopped, and ends with 0",
            _LIVE,
        ),
        ("live.add", "app/add makes rkt/status/APP-created", _LIVE),
        (
            "live.start",
            "app/start starts the app, makes rkt/status/APP-started, and may be called again",
            _LIVE,
        ),
        ("live.stop", "app/stop gives the app its time, and returns when it has ended", _LIVE),
        ("live.stopped", "app/stop ends with status 5 when the app does not run", _LIVE),
        ("live.again", "app/start starts an app again that has ended", _LIVE),
        ("live.rm", "app/rm removes the app's files in rkt/status", _LIVE),
        ("live.update", "app/update changes the limits of a running app", _LIVE),
        ("attach.list", "iottymux/APP/endpoints is there, and attach --action=list prints it", _ATTACH),
        ("attach.streams", "attach passes standard input and output of the app on", _ATTACH),
        ("options.restart", "an app that fails is started again, and appsinfo/APP/restarts tells", _OPTIONS),
        ("options.logs", "logs/APP.log is rotated as log-size says", _OPTIONS),
        ("host.clean", "nothing is left outside the pod directory", "gc"),
    )
)
GROUPS = tuple(dict.fromkeys(each.group for each in PROMISES))
_BY_NAME = {each.name: each for each in PROMISES}


@dataclass(slots=True)
class Report:
    """Findings of one image, in the order of the promises when it is complete."""

    found: dict[str, Finding] = field(default_factory=dict)
    #: Why what comes now cannot be looked at.
    obstacle: str = ""

    def hold(self, name: str, holds: bool, seen: str) -> bool:
        """Take down whether a promise holds. A failure stays one, whatever is found later; returns ``holds``."""
        before = self.found.get(name)
        if before is None or before.state != FAILED:
            self.found[name] = Finding(_BY_NAME[name], OK if holds else FAILED, "" if holds else seen)
        return holds

    def absent(self, *names: str, why: str) -> None:
        """Take down that an image does not have something."""
        for name in names:
            self.found[name] = Finding(_BY_NAME[name], ABSENT, why)

    def finish(self, groups: tuple[str, ...]) -> list[Finding]:
        """All findings; what nobody came to look at is said so."""
        for promise in PROMISES:
            if promise.group not in groups:
                self.found[promise.name] = Finding(promise, LEFT_OUT)
            elif promise.name not in self.found:
                self.found[promise.name] = Finding(
                    promise, UNREACHED, self.obstacle or "an earlier check failed"
                )
        return [self.found[promise.name] for promise in PROMISES]
