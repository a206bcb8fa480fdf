# SPDX-License-Identifier: Apache-2.0
"""Workers that do everything to the same pods at once, and judge each answer by a model of what it may be.

``tests/lib/mixed_model.py`` is that model. An answer that none of the states explains which were possible while the
command ran is a problem, and so is what contradicts what was proved before.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.lib.inspect import INSECURE
from tests.lib.mixed_model import (
    ABSENT,
    ACTIVE,
    APP_ENDS,
    APP_NAMES,
    ENDS,
    EXITED,
    GONE,
    GROWS,
    IDLE,
    MAKING,
    PREPARED,
    REMOVES,
    REMOVES_ANY,
    RUNNING,
    RUNS,
    STARTING,
    STARTS,
    Life,
    ModelPod,
    Subject,
    Surprise,
    View,
)
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import Rkt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.lib.mixed_model import Moves
    from tests.lib.rkt import Result

_SHOWN = {
    "preparing": {MAKING},
    "prepared": {MAKING, PREPARED},
    "running": {STARTING, RUNNING},
    "exited": {EXITED},
    "exited garbage": {EXITED},
    "exited deleting": {EXITED},
    "garbage": {GONE},
    "deleting": {GONE},
}
_APP_SHOWN = {"unknown": {IDLE}, "created": {IDLE}, "exited": {IDLE}, "running": {ACTIVE}}
#: What a command that no longer finds its pod says.
_LOST = r'no matches found for|pod "[^"]*" was (moved or )?removed'
#: What a command about a living pod says when the pod is over, or ends meanwhile.
_OVER = r"isn't currently running|is not running|the pod is being stopped|the pod ended meanwhile|the pod's supervisor does not answer"
_LIVES = {STARTING, RUNNING}
#: Commands about a pod that change nothing for others: words, the states in which they succeed, and what they say
#: in others. A sandbox may have no app to look at, or several.
_LOOKS: tuple[tuple[tuple[str, ...], set[str], dict[str, set[str]]], ...] = (
    (("stats", "--apps", "--format=json", "--interval=50ms", "UUID"), _LIVES, {}),
    (("top", "UUID"), _LIVES, {}),
    (("logs", "UUID"), {MAKING, PREPARED, STARTING, RUNNING, EXITED}, {}),
    (
        ("cat-manifest", "UUID"),
        {MAKING, PREPARED, STARTING, RUNNING, EXITED},
        {"has no manifest yet": {MAKING}},
    ),
    (("status", "--format=json", "UUID"), {MAKING, PREPARED, STARTING, RUNNING, EXITED}, {}),
    (("update", "--pids-limit=50", "UUID"), {RUNNING}, {}),
    (("cp", "UUID:/bin/busybox", "OUT"), {PREPARED, STARTING, RUNNING, EXITED}, {}),
    (
        ("export", "--overwrite", "UUID", "OUT.aci"),
        {EXITED},
        {"is not exited": {MAKING, PREPARED, STARTING, RUNNING}},
    ),
    (
        ("wait", "--timeout=50ms", "UUID"),
        {EXITED},
        {
            "did not end within": {MAKING, PREPARED, STARTING, RUNNING},
            "left no exit status": {EXITED},
            "was removed while": {GONE},
        },
    ),
    (
        ("wait", "--ready", "--timeout=1s", "UUID"),
        _LIVES,
        {"was not ready within": {MAKING, PREPARED, STARTING}, "ended before it was ready": {EXITED, GONE}},
    ),
)
_TOO_EARLY = (
    "not yet ready|not ready yet|has no cgroups of its own|no first process|is preparing|contains zero apps"
)
_NO_SINGLE_APP = (
    "contains (zero|multiple) apps|nonexistent app|no app |cannot copy from .* No such file"
    "|has no root file system any more|the app was removed, or has ended, meanwhile"
)
#: What the app of a pod does, whether it ends by itself, and with which status.
_SCRIPTS: tuple[tuple[str, bool, set[int]], ...] = (
    ("sleep 0.2; exit 3", True, {3}),
    ("exit 0", True, {0}),
    ("sleep 1000", False, set()),
    ("sleep 1000", False, set()),
)
_WORKERS = 8
_MOST_PODS = 14
_COMMAND_SECONDS = 90.0


class Mixed:
    """The workers, their pods, and what went wrong."""

    def __init__(self, rkt: Rkt, image: str, seed: int) -> None:
        self.rkt = rkt
        self.image = image
        self.seed = seed
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._pods: dict[str, ModelPod] = {}
        self._unknown: set[str] = set()
        self._making = 0
        #: For each gc that runs, its views of pods that came later.
        self._collecting: list[list[View]] = []
        self._end = 0.0

    # Running ---------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let the workers work, then end everything and look what is left; ``problems`` says what was wrong."""
        self._end = time.monotonic() + seconds
        workers = [threading.Thread(target=self._work, args=(number,)) for number in range(_WORKERS)]
        for worker in workers:
            worker.start()
        while time.monotonic() < self._end:
            time.sleep(0.02)
            self._reap()
        for worker in workers:
            worker.join(4 * _COMMAND_SECONDS * SLOWNESS)
            if worker.is_alive():
                self.problems.append(f"{worker.name} hangs")
        self._finish()

    def _work(self, number: int) -> None:
        choose = random.Random(f"{self.seed}-{number}")
        while time.monotonic() < self._end and len(self.problems) < 20:
            (name,) = choose.choices(list(_OPERATIONS), list(_OPERATIONS.values()))
            try:
                getattr(self, f"_do_{name}")(choose)
            except Surprise as e:
                self.problems.append(f"{name}: {e}")
            except (AssertionError, OSError, ValueError, KeyError) as e:
                self.problems.append(f"{name}: {type(e).__name__}: {e}")
            with self._lock:
                self.counts[name] += 1

    def _reap(self) -> None:
        """Take note of pods whose process has ended."""
        with self._lock:
            for pod in self._pods.values():
                life = pod.life
                if life is not None and life.process.poll() is not None:
                    self._note_end(pod, life)

    def _note_end(self, pod: ModelPod, life: Life) -> None:
        pod.life = None
        status = life.process.returncode
        pod.subject.history.append(f"{time.monotonic():.3f} its process ended with {status}")
        allowed = set(life.statuses)
        if life.was_stopped:
            allowed |= {0}
        if life.was_forced:
            allowed |= {-signal.SIGKILL, 128 + signal.SIGKILL, 0}
        try:
            if status not in allowed:
                raise Surprise(
                    f"{pod.subject.what} ended with {status}, not {allowed}\n{life.process.texts()}"
                )
            pod.subject.prove({EXITED}, self._around(pod.subject))
        except Surprise as e:
            self.problems.append(self._tell(str(e), [pod.subject]))
        pod.subject.always = GROWS
        for app in pod.apps.values():
            app.loosen(APP_ENDS)
        life.process.close()

    @staticmethod
    def _around(subject: Subject) -> set[tuple[str, str]]:
        return set().union(*(view.around | view.moves for view in subject.views))

    # Commands --------------------------------------------------------------------------------------------------

    def _tell(self, text: str, subjects: Iterable[Subject]) -> str:
        lines = [f"seed {self.seed}: {text}"]
        for subject in subjects:
            lines += [
                f"  {subject.what}, now {sorted(subject.possible)}",
                *(f"    {line}" for line in subject.history),
            ]
        return "\n".join(lines)

    def _command(
        self,
        words: tuple[str, ...],
        subjects: list[tuple[Subject, Moves]],
        judge: Callable[[Result, list[set[str]]], list[set[str] | None] | None],
    ) -> Result:
        """Run a command and hold its answer against the model.

        Args:
            words: after ``rkt``.
            subjects: what it is about, and how it may move that.
            judge: gets the answer and what the command may have seen of each subject; says what the answer proves of
                each, or ``None`` for an answer that cannot be.
        """
        with self._lock:
            views = [subject.watch(" ".join(words), moves) for subject, moves in subjects]
        try:
            result = self.rkt.run(*words, timeout=_COMMAND_SECONDS)
        except AssertionError as e:
            with self._lock:
                for view in views:
                    view.end("hangs", None)
                self.problems.append(
                    self._tell(f"a command hangs: {e}", [subject for subject, _ in subjects])
                )
            raise Surprise("hangs") from None
        text = (
            f"{result.status} {result.stderr.strip()}" if result.status else f"0 {result.stdout[:40].strip()}"
        )
        with self._lock:
            seen = [set(view.seen) for view in views]
            if views and views[0].frozen and self._says(result, "is paused"):
                proved: list[set[str] | None] | None = [None] * len(views)
            else:
                proved = judge(result, seen)
            self.answers[f"{words[0]} {words[1] if words[0] == 'app' else ''} {_shape(text)}"] += 1
            if proved is None:
                self.problems.append(
                    self._tell(
                        f"unexplained answer, states {seen}\n{result}", [subject for subject, _ in subjects]
                    )
                )
            for view, states in zip(views, proved or [None] * len(views), strict=True):
                try:
                    view.end(text, states)
                except Surprise as e:
                    self.problems.append(self._tell(f"{e}\n{result}", [view.subject]))
        return result

    def _pick(self, choose: random.Random, kind: str = "") -> ModelPod | None:
        with self._lock:
            pods = [
                pod
                for pod in self._pods.values()
                if (not kind or pod.kind == kind)
                and (pod.subject.possible != {GONE} or choose.random() < 0.02)
            ]
        return choose.choice(pods) if pods else None

    # Pods ------------------------------------------------------------------------------------------------------

    def _launch(
        self, kind: str, words: tuple[str, ...], *, ends: bool, statuses: set[int]
    ) -> ModelPod | None:
        """Start a process that becomes a new pod; the pod, as soon as it says its UUID."""
        if not self._reserve():
            return None
        path = f"{self.rkt.tmp}/uuid-{threading.get_ident()}-{time.monotonic_ns()}"
        try:
            process = self.rkt.popen(*(word.replace("UUIDFILE", path) for word in words))
            deadline = time.monotonic() + _COMMAND_SECONDS * SLOWNESS
            while not (uuid := _read(path)):
                if process.poll() is not None and not _read(path):
                    raise Surprise(f"{words} ended with {process.returncode}: {process.texts()}")
                if time.monotonic() > deadline:
                    raise Surprise(f"{words} does not make a pod: {process.texts()}")
                time.sleep(0.002)
            pod = ModelPod(uuid, Life(process, statuses), kind=kind, ends=ends)
            self._admit(pod)
            os.unlink(path)
            return pod
        finally:
            with self._lock:
                self._making -= 1

    def _reserve(self) -> bool:
        """Whether there is room for one more pod; whoever makes it takes it off ``_making`` again."""
        with self._lock:
            alive = sum(1 for pod in self._pods.values() if pod.subject.possible != {GONE})
            if alive + self._making >= _MOST_PODS:
                return False
            self._making += 1
            return True

    def _admit(self, pod: ModelPod) -> None:
        with self._lock:
            self._pods[pod.uuid] = pod
            # Who collects already may meet it as well.
            for views in self._collecting:
                views.append(pod.subject.watch("gc", REMOVES))

    def _pod_words(self, choose: random.Random) -> tuple[tuple[str, ...], bool, set[int]]:
        """Image and flags of a pod, whether it ends by itself, and with which status."""
        more = choose.choice([(), (), ("--private-users",), ("--no-overlay",)])
        script, ends, statuses = choose.choice(_SCRIPTS)
        return (*more, self.image, "--exec=/bin/sh", "--", "-c", script), ends, statuses

    def _do_prepare(self, choose: random.Random) -> None:
        if not self._reserve():
            return
        words, ends, _ = self._pod_words(choose)
        try:
            result = self.rkt.run("prepare", INSECURE, *words, timeout=_COMMAND_SECONDS)
            if result.status:
                raise Surprise(f"prepare failed: {result}")
            self._admit(ModelPod(result.stdout.strip(), None, kind="prepare", ends=ends))
        finally:
            with self._lock:
                self._making -= 1

    def _do_run(self, choose: random.Random) -> None:
        words, ends, statuses = self._pod_words(choose)
        words = ("run", INSECURE, "--uuid-file-save=UUIDFILE", *words)
        pod = self._launch("run", words, ends=ends, statuses=statuses)
        if pod is not None and choose.random() < 0.5:
            self._wait_ready(pod)

    def _do_sandbox(self, choose: random.Random) -> None:
        more = choose.choice([(), (), ("--private-users",), ("--no-overlay",)])
        words = ("app", "sandbox", INSECURE, "--uuid-file-save=UUIDFILE", "--volume=v,kind=empty", *more)
        pod = self._launch("sandbox", words, ends=False, statuses=set())
        if pod is not None:
            self._wait_ready(pod)

    def _wait_ready(self, pod: ModelPod) -> None:
        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status == 0 and "state=running" in result.stdout:
                return [{STARTING, RUNNING}] if seen[0] & {STARTING, RUNNING} else None
            if result.status == 0:
                return self._shown(result, seen[0])
            return [{GONE}] if self._says(result, _LOST) and GONE in seen[0] else None

        self._command(("status", "--wait-ready=60s", pod.uuid), [(pod.subject, frozenset())], judge)

    @staticmethod
    def _says(result: Result, pattern: str) -> bool:
        return result.status == 254 and re.search(pattern, result.stderr) is not None

    @staticmethod
    def _shown(result: Result, seen: set[str]) -> list[set[str] | None] | None:
        match = re.search(r"^state=(.*)$", result.stdout, re.MULTILINE)
        if match is None or match[1] not in _SHOWN:
            return None
        return [_SHOWN[match[1]]] if _SHOWN[match[1]] & seen else None

    def _do_status(self, choose: random.Random) -> None:
        pod = self._pick(choose)
        if pod is None:
            return

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status == 0:
                return self._shown(result, seen[0])
            return [{GONE}] if self._says(result, _LOST) and GONE in seen[0] else None

        self._command(("status", pod.uuid), [(pod.subject, frozenset())], judge)

    def _do_stop(self, choose: random.Random) -> None:
        pod = self._pick(choose)
        if pod is None or (pod.kind == "sandbox" and choose.random() < 0.6):
            return
        force = choose.random() < 0.3
        with self._lock:
            life = pod.life
            if life is not None:
                life.was_stopped = True
                life.was_forced |= force

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            with self._lock:
                # Somebody may have started it again meanwhile: then the command was about that life.
                if pod.life is not None and pod.life is not life:
                    pod.life.was_stopped = True
                    pod.life.was_forced |= force
            apps: list[set[str] | None] = [None] * len(pod.apps)
            if result.status == 0 and "is already stopped" in result.stdout:
                return [{EXITED}, *apps] if EXITED in seen[0] else None
            if result.status == 0:
                if not seen[0] & {STARTING, RUNNING}:
                    return None
                # Killed, but it may take a moment to die.
                return [{STARTING, RUNNING, EXITED} if force else {EXITED}, *apps]
            if self._says(result, _LOST):
                return [{GONE}, *apps] if GONE in seen[0] else None
            if self._says(result, "is not running|supervisor does not answer"):
                return [None, *apps] if seen[0] & {MAKING, PREPARED, STARTING} else None
            return None

        words = ("stop", *(["--force"] if force else []), pod.uuid)
        subjects = [(pod.subject, ENDS), *((app, APP_ENDS) for app in pod.apps.values())]
        if force:
            with self._lock:
                pod.subject.loosen(ENDS)
        self._command(words, subjects, judge)

    def _do_pause(self, choose: random.Random) -> None:
        pod = self._pick(choose)
        if pod is None:
            return

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status == 0:
                return [None] if seen[0] & {STARTING, RUNNING} else None
            if self._says(result, _LOST):
                return [{GONE}] if GONE in seen[0] else None
            if self._says(result, "is not running"):
                return [None] if seen[0] & {MAKING, PREPARED, EXITED} else None
            # It has none yet, or none any more.
            if self._says(result, "has no cgroups of its own|cannot be paused"):
                return [None] if seen[0] & {MAKING, STARTING, EXITED} else None
            return None

        with self._lock:
            pod.subject.freezers += 1
        try:
            if self._command(("pause", pod.uuid), [(pod.subject, frozenset())], judge).status == 0:
                time.sleep(choose.random() / 5)
                self._command(("unpause", pod.uuid), [(pod.subject, frozenset())], judge)
        finally:
            with self._lock:
                pod.subject.freezers -= 1

    def _do_start(self, choose: random.Random) -> None:
        self._begin(choose, "start", EXITED, STARTS)

    def _do_run_prepared(self, choose: random.Random) -> None:
        self._begin(choose, "run-prepared", PREPARED, RUNS)

    def _begin(self, choose: random.Random, verb: str, before: str, moves: Moves) -> None:
        """A command becomes the pod, if that was in the state ``before``."""
        pod = self._pick(choose)
        if pod is None:
            return
        with self._lock:
            if before not in pod.subject.possible:
                return
            view = pod.subject.watch(verb, moves | (ENDS if pod.ends else frozenset()))
            views = [app.watch(verb, APP_ENDS) for app in pod.apps.values()]
        process = self.rkt.popen(verb, INSECURE, pod.uuid)
        deadline = time.monotonic() + _COMMAND_SECONDS * SLOWNESS
        while process.poll() is None and not _is_pod(process.pid) and time.monotonic() < deadline:
            time.sleep(0.002)
        with self._lock:
            for each in views:
                each.end(verb, None)
            seen = set(view.seen)
            text = process.texts()[1].strip()
            try:
                if process.poll() == 254 and text.startswith(f"{verb}:"):
                    self.answers[f"{verb}  {_shape(text)}"] += 1
                    allowed = (
                        (_LOST, {GONE}),
                        ("is running|is currently|already running", {STARTING, RUNNING}),
                        ("is being prepared|preparing", {MAKING}),
                        ("in use|is being", {EXITED, GONE, STARTING}),
                        ("is not prepared", {STARTING, RUNNING, EXITED, GONE}),
                    )
                    fits = any(re.search(pattern, text) and states & seen for pattern, states in allowed)
                    view.end(text, None)
                    process.close()
                    if not fits:
                        raise Surprise(f"unexplained answer of {verb}, states {seen}\n{text}")
                    return
                self.answers[f"{verb}  0"] += 1
                if before not in seen:
                    raise Surprise(f"{verb} began a pod that was {seen}")
                if pod.life is not None:
                    if pod.life.process.poll() is None:
                        raise Surprise(f"{verb} began a pod that runs")
                    self._note_end(pod, pod.life)
                pod.subject.always = GROWS | (ENDS if pod.ends else frozenset())
                life = Life(process, {0, 3} if pod.ends else set())
                # Stops that began before this may be about it.
                life.was_stopped = any(each.command.startswith("stop") for each in pod.subject.views)
                life.was_forced = any(each.command.startswith("stop --force") for each in pod.subject.views)
                pod.life = life
                view.end("became the pod", {STARTING, RUNNING})
                if life.was_forced:
                    pod.subject.loosen(ENDS)
            except Surprise as e:
                if view in pod.subject.views:
                    view.end(text, None)
                self.problems.append(self._tell(f"{e}", [pod.subject]))

    def _do_rm(self, choose: random.Random) -> None:
        pod = self._pick(choose)
        if pod is None:
            return

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status == 0:
                return [{GONE}] if seen[0] & {PREPARED, EXITED, GONE} else None
            if self._says(result, _LOST):
                return [{GONE}] if GONE in seen[0] else None
            if self._says(result, "is currently running"):
                return [{STARTING, RUNNING}] if seen[0] & {STARTING, RUNNING} else None
            if self._says(result, "is currently being prepared"):
                return [{MAKING}] if MAKING in seen[0] else None
            if self._says(result, "is in use|is currently being deleted"):
                # Somebody else holds it.
                return [None] if len(pod.subject.views) > 1 or seen[0] != {EXITED} else None
            return None

        self._command(("rm", pod.uuid), [(pod.subject, REMOVES_ANY)], judge)

    def _do_gc(self, choose: random.Random) -> None:
        if choose.random() < 0.3:
            self._command(
                ("gc", "--grace-period=1h"), [], lambda result, _: [] if result.status == 0 else None
            )
            return
        pods: list[ModelPod] = []

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status:
                return None
            proved: list[set[str] | None] = []
            for pod, states in zip(pods, seen, strict=True):
                about = [line for line in result.stderr.splitlines() if pod.uuid in line]
                # Passed over as in use it may be, while somebody has it in hand.
                bad = any("unable" in line or "failed" in line for line in about if "in use" not in line)
                if bad and GONE not in states:
                    return None
                # What was over all the time, and nobody else had in hand, has to go.
                mine = [view for view in pod.subject.views if view.command.startswith("gc")]
                alone = len(mine) == 1 and not mine[0].crowded
                proved.append({GONE} if states <= {EXITED, GONE} and alone and EXITED in states else None)
            return proved

        late: list[View] = []
        with self._lock:
            self._collecting.append(late)
            pods = [pod for pod in self._pods.values() if pod.subject.possible != {GONE}]
        try:
            self._command(("gc", "--grace-period=0"), [(pod.subject, REMOVES) for pod in pods], judge)
        finally:
            with self._lock:
                self._collecting = [each for each in self._collecting if each is not late]
                for view in late:
                    view.end("gc that began before the pod", None)

    def _do_list(self, _choose: random.Random) -> None:
        with self._lock:
            pods = list(self._pods.values())

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status or result.stderr:
                self.problems.append(f"list said {result.stderr}")
                return None
            listed = {each["name"]: each["state"] for each in json.loads(result.stdout or "null") or []}
            self._unknown |= set(listed) - {pod.uuid for pod in pods}
            proved: list[set[str] | None] = []
            for pod, states in zip(pods, seen, strict=True):
                shown = listed.get(pod.uuid)
                if shown is None:
                    if not states & {GONE, MAKING}:
                        self.problems.append(self._tell(f"not listed, but {states}", [pod.subject]))
                        return None
                    proved.append({GONE, MAKING})
                elif not states & _SHOWN.get(shown, set()):
                    self.problems.append(self._tell(f"listed as {shown}, but {states}", [pod.subject]))
                    return None
                else:
                    proved.append(_SHOWN[shown])
            return proved

        self._command(("list", "--format=json"), [(pod.subject, frozenset()) for pod in pods], judge)

    def _do_look(self, choose: random.Random) -> None:
        """A command that only looks, or changes nothing that others would see."""
        pod = self._pick(choose)
        if pod is None:
            return
        template, works, refusals = choose.choice(_LOOKS)
        out = f"{self.rkt.tmp}/look-{threading.get_ident()}"
        words = tuple(word.replace("UUID", pod.uuid).replace("OUT", out) for word in template)
        answers = {
            **refusals,
            _LOST: {GONE},
            "is being deleted": {GONE},
            _OVER: {MAKING, PREPARED, EXITED, GONE},
            _TOO_EARLY: {MAKING, STARTING},
        }
        if pod.kind == "sandbox":
            # Apps come and go.
            answers = {_NO_SINGLE_APP: {MAKING, STARTING, RUNNING, EXITED}, **answers}

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status == 0 or (template[0] == "wait" and not result.stderr):
                return [None] if seen[0] & works else None
            for pattern, states in answers.items():
                if self._says(result, pattern):
                    return [None] if seen[0] & states else None
            return None

        self._command(words, [(pod.subject, frozenset())], judge)

    def _do_enter(self, choose: random.Random) -> None:
        pod = self._pick(choose)
        if pod is None:
            return
        name = choose.choice(APP_NAMES) if pod.kind == "sandbox" else ""
        app = pod.apps.get(name)

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            rest: list[set[str] | None] = [None] * (len(seen) - 1)
            pod_seen = seen[0]
            app_seen = seen[1] if app is not None else {ACTIVE, IDLE}
            if result.status == 0:
                fits = pod_seen & {STARTING, RUNNING} and ACTIVE in app_seen
                return [{STARTING, RUNNING}, *rest] if fits and result.stdout == "in\n" else None
            if self._says(result, _LOST):
                return [None, *rest] if GONE in pod_seen else None
            if self._says(result, 'no app "|contains zero apps'):
                return [None, *rest] if app is not None and ABSENT in app_seen else None
            if self._says(result, "app .* is not running"):
                fits = IDLE in app_seen or pod_seen & {STARTING, EXITED, GONE}
                return [None, *rest] if fits else None
            if pod_seen & {EXITED, GONE} or (app is not None and app_seen & {IDLE, ABSENT}):
                # What it was about ended under its feet: killed with it, or unable to get in.
                return [None, *rest] if result.status in {254, 137, -9, 128 + 9, 143} else None
            return (
                [None, *rest]
                if pod_seen & {MAKING, PREPARED}
                and self._says(result, "isn't currently running|no first process")
                else None
            )

        words = ("enter", *([f"--app={name}"] if name else []), pod.uuid, "/bin/echo", "in")
        subjects: list[tuple[Subject, Moves]] = [(pod.subject, frozenset())]
        if app is not None:
            subjects.append((app, frozenset()))
        self._command(words, subjects, judge)

    # Apps ------------------------------------------------------------------------------------------------------

    def _app_command(
        self,
        choose: random.Random,
        verb: str,
        words: Callable[[ModelPod, str], tuple[str, ...]],
        moves: Moves,
        answers: dict[str, tuple[set[str], set[str] | None]],
        success: tuple[set[str], set[str]],
        *,
        works_when_over: bool = False,
    ) -> None:
        """A command about one app.

        Args:
            choose: of the worker.
            verb: after ``rkt app``.
            words: makes the command line.
            moves: how it may move the app.
            answers: pattern of a refusal -> (states of the app of which one must have been possible, what it proves).
            success: likewise for status 0.
            works_when_over: whether it succeeds on a pod that is over.
        """
        pod = self._pick(choose, "sandbox")
        if pod is None:
            return
        name = choose.choice(APP_NAMES)
        app = pod.apps[name]

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            pod_seen, app_seen = seen
            if result.status == 0 and "is already stopped" in result.stdout:
                return [{EXITED}, None] if EXITED in pod_seen else None
            if result.status == 0:
                lives = pod_seen & ({RUNNING, EXITED} if works_when_over else {RUNNING})
                return [None, success[1]] if lives and app_seen & success[0] else None
            for pattern, (states, proved) in answers.items():
                if self._says(result, pattern):
                    return [None, proved] if app_seen & states else None
            if self._says(result, _LOST):
                return [{GONE}, None] if GONE in pod_seen else None
            if self._says(result, "not yet ready|not ready yet"):
                return [None, None] if pod_seen & {MAKING, STARTING} else None
            if self._says(result, _OVER):
                return [None, None] if pod_seen & {MAKING, EXITED, GONE} else None
            return None

        self._command(("app", verb, *words(pod, name)), [(pod.subject, frozenset()), (app, moves)], judge)

    def _do_app_add(self, choose: random.Random) -> None:
        script = choose.choice(("sleep 1000", "sleep 1000", "exit 3"))
        if script == "exit 3":
            more: Moves = APP_ENDS
        else:
            more = frozenset()
        volume = choose.choice(
            ([], ["--mount=volume=v,target=/v"], ["--mnt-volume=name=v,kind=tmpfs,target=/v"])
        )

        def words(pod: ModelPod, name: str) -> tuple[str, ...]:
            if more:
                with self._lock:
                    pod.apps[name].loosen(more)
            return (
                INSECURE,
                pod.uuid,
                self.image,
                f"--name={name}",
                *volume,
                "--exec=/bin/sh",
                "--",
                "-c",
                script,
            )

        self._app_command(
            choose,
            "add",
            words,
            frozenset({(ABSENT, IDLE)}),
            {"multiple apps with name": ({IDLE, ACTIVE}, {IDLE, ACTIVE})},
            ({ABSENT}, {IDLE}),
        )

    def _do_app_start(self, choose: random.Random) -> None:
        self._app_command(
            choose,
            "start",
            lambda pod, name: (pod.uuid, f"--app={name}"),
            frozenset({(IDLE, ACTIVE)}),
            {"nonexistent app": ({ABSENT}, {ABSENT})},
            ({IDLE, ACTIVE}, {ACTIVE}),
        )

    def _do_app_stop(self, choose: random.Random) -> None:
        self._app_command(
            choose,
            "stop",
            lambda pod, name: (pod.uuid, f"--app={name}"),
            APP_ENDS,
            {
                "nonexistent app|no app": ({ABSENT}, {ABSENT}),
                'app "[^"]*" is not running': ({IDLE, ABSENT}, None),
            },
            ({ACTIVE}, {IDLE}),
        )

    def _do_app_rm(self, choose: random.Random) -> None:
        self._app_command(
            choose,
            "rm",
            lambda pod, name: (pod.uuid, f"--app={name}"),
            frozenset({(IDLE, ABSENT), (ACTIVE, IDLE)}),
            {"nonexistent app": ({ABSENT}, {ABSENT})},
            ({IDLE, ACTIVE}, {ABSENT}),
            works_when_over=True,
        )

    def _do_app_list(self, choose: random.Random) -> None:
        pod = self._pick(choose, "sandbox")
        if pod is None:
            return

        def judge(result: Result, seen: list[set[str]]) -> list[set[str] | None] | None:
            if result.status:
                return [None] * len(seen) if self._says(result, _LOST) and GONE in seen[0] else None
            rows = dict(line.split("\t") for line in result.stdout.split("\n") if line)
            proved: list[set[str] | None] = [None]
            for name, states in zip(APP_NAMES, seen[1:], strict=True):
                shown = {ABSENT} if name not in rows else _APP_SHOWN[rows[name]]
                # The word of a pod that is being made or removed is not counted.
                if not shown & states and not seen[0] & {MAKING, GONE}:
                    return None
                proved.append(shown if seen[0] <= {RUNNING} else None)
            return proved

        still: Moves = frozenset()
        subjects = [(subject, still) for subject in (pod.subject, *pod.apps.values())]
        self._command(("app", "list", "--no-legend", pod.uuid), subjects, judge)

    # The end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Stop what runs, collect everything, and account for every pod."""
        self._reap()
        if lost := self._unknown - set(self._pods):
            self.problems.append(f"listed, but nobody made them: {lost}")
        there = self.rkt.pods()
        for pod in self._pods.values():
            place = there.get(pod.uuid)
            expected = {
                MAKING: "prepare",
                PREPARED: "prepared",
                STARTING: "run",
                RUNNING: "run",
                EXITED: "exited-garbage run",
                GONE: "",
            }
            places = {word for state in pod.subject.possible for word in expected[state].split() or [""]}
            if (place or "") not in places | ({"garbage"} if GONE in pod.subject.possible else set()):
                self.problems.append(self._tell(f"it stands in {place}, not in {places}", [pod.subject]))
        for pod in self._pods.values():
            if pod.life is None:
                continue
            pod.life.was_stopped = True
            pod.subject.loosen(ENDS)
            result = self.rkt.run("stop", pod.uuid, timeout=_COMMAND_SECONDS)
            if result.status:
                self.problems.append(self._tell(f"cannot be stopped at the end\n{result}", [pod.subject]))
                continue
            try:
                pod.life.process.wait(30)
            except subprocess.TimeoutExpired:
                self.problems.append(self._tell("does not end at the end", [pod.subject]))
        self._reap()
        result = self.rkt.run("gc", "--grace-period=0", "--expire-prepared=0", timeout=_COMMAND_SECONDS)
        if result.status or self.rkt.pods():
            self.problems.append(f"after gc there is {self.rkt.pods()}\n{result}")
        for directory in ("ranges", "cas/tmp", "pods/names"):
            path = f"{self.rkt.data}/{directory}"
            if os.path.isdir(path) and os.listdir(path):
                self.problems.append(f"{directory} has {os.listdir(path)}")
        if left := self.rkt.leaks():
            self.problems.append("left on the host:\n" + "\n".join(left))


#: Name of a method -> how often.
_OPERATIONS = {
    "run": 12,
    "prepare": 6,
    "run_prepared": 8,
    "sandbox": 4,
    "stop": 10,
    "start": 10,
    "gc": 5,
    "rm": 6,
    "list": 8,
    "status": 6,
    "enter": 10,
    "pause": 3,
    "app_add": 12,
    "app_start": 12,
    "app_stop": 8,
    "app_rm": 8,
    "app_list": 6,
    "look": 20,
}


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read().strip()
    except FileNotFoundError:
        return ""
    return text if len(text) == 36 else ""


def _is_pod(pid: int) -> bool:
    """Whether a process has become stage1."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return b"/stage1/rootfs/" in stream.read()
    except OSError:
        return False


def _shape(text: str) -> str:
    """An answer without what differs from pod to pod."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "SHORT", text)
    return re.sub(r"\d{4,}", "N", text)[:160].replace("\n", " | ")


def lines(mixed: Mixed) -> Iterator[str]:
    """What was done, for people."""
    yield f"seed {mixed.seed}, {sum(mixed.counts.values())} operations: " + ", ".join(
        f"{count} {name}" for name, count in mixed.counts.most_common()
    )
    for answer, count in sorted(mixed.answers.items()):
        yield f"{count:6} {answer}"
