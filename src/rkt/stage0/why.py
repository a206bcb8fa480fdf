# SPDX-License-Identifier: Apache-2.0
"""Why an image cannot be fetched or started, or a pod not be started: the decision again, without changing anything.

Nothing is decided here: images are looked at by ``fetch.look``, verdicts held against today's rules by ``trust.policy``,
the store and pods read by who reads them otherwise. What is found on the way is kept, and whoever refused is named.
What a pod that may start could reach says ``stage0/explain``. Members of the result: ``docs/why.md``.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import ConfigError, DamagedRecord, FetchError, NotFound, NotVerified, RktError, StoreError
from rkt.fetch import reference as references
from rkt.linux import disk
from rkt.schema.record import Record
from rkt.stage0.stage1 import built_in_images
from rkt.store.cas import Store
from rkt.trust.policy import check_verdict, is_about
from rkt.values import AppcReference, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.look import Notes
    from rkt.fetch.oci_reference import DockerReference
    from rkt.fetch.reference import Reference
    from rkt.pod.lifecycle import Pod
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey

FORMAT = "rkt.why"
VERSION = 1
#: What came of it.
ALLOWED, REFUSED, UNKNOWN = "allowed", "refused", "unknown"
#: States of steps.
OK, BAD, NOTE, SKIPPED = "ok", "bad", "note", "skipped"
#: Causes that errors have no code for.
NETWORK, PROXY, TLS, CREDENTIALS, DISK, PLACE = "network", "proxy", "tls", "credentials", "disk", "pod"
#: A pod cannot be made with less, nor an image be taken in.
_LEAST_FREE_BYTES = 256 << 10
_CERTIFICATE = "certificate is not valid"
_NO_TLS = "does not speak TLS"
_NO_ACCESS = ("gives no access", "wants credentials", "refuses the credentials")


class Step(Record):
    """One thing that was looked at."""

    what: str
    state: str
    text: str


class Answer(Record):
    """What came of it.

    Attributes:
        subject: as typed.
        outcome: one of ``ALLOWED``, ``REFUSED``, ``UNKNOWN``.
        cause: a word for programs; empty unless refused.
        summary: one sentence.
        steps: in the order in which they were taken.
        next: what to type, most promising first.
    """

    subject: str
    outcome: str
    cause: str
    summary: str
    steps: list[Step]
    next: list[str]

    def to_json(self) -> dict[str, Any]:
        """The object of ``--format=json``."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **self.as_dict(),
            "steps": [step.as_dict() for step in self.steps],
        }


class _Refused(Exception):
    """The cause was found."""

    def __init__(self, cause: str, summary: str, *remedies: str) -> None:
        super().__init__(summary)
        self.cause = cause
        self.summary = summary
        self.remedies = [remedy for remedy in remedies if remedy]


def why_image(text: str, settings: Settings, *, offline: bool) -> Answer:
    """Why an image cannot be used.

    Args:
        text: a reference or a hash.
        settings: of the running command; what it switches off is switched off here.
        offline: whether no server may be asked.
    """
    inquiry = _ImageInquiry(text, settings, offline=offline)
    return inquiry.answer()


def why_pod(pod: Pod, text: str, settings: Settings) -> Answer:
    """Why a pod cannot be started.

    Args:
        pod: opened.
        text: as typed.
        settings: of the running command.
    """
    return _PodInquiry(pod, text, settings).answer()


class _Inquiry:
    """What was looked at so far."""

    def __init__(self, text: str, settings: Settings) -> None:
        self.text = text
        self.settings = settings
        self.store = Store(settings.data_dir)
        self.steps: list[Step] = []
        self.next: list[str] = []

    def note(self, what: str, text: str, state: str = OK) -> None:
        """Keep a step."""
        self.steps.append(Step(what=what, state=state, text=text))

    def answer(self) -> Answer:
        """Look at everything until somebody refuses."""
        outcome, cause = ALLOWED, ""
        try:
            outcome, summary = self.look()
        except _Refused as e:
            outcome, cause, summary = REFUSED, e.cause, e.summary
            self.next = e.remedies
        except (RktError, OSError) as e:
            outcome, cause = REFUSED, self.cause_of(e)
            summary = self.summary(e)
            self.next = self.remedies(e)
            if not self.steps or self.steps[-1].state != BAD:
                self.note("refused", self.told(e), BAD)
        return Answer(
            subject=self.text,
            outcome=outcome,
            cause=cause,
            summary=summary,
            steps=self.steps,
            next=list(dict.fromkeys(self.next)),
        )

    def look(self) -> tuple[str, str]:
        """The outcome and the sentence."""
        raise NotImplementedError

    def cause_of(self, e: RktError | OSError) -> str:
        """A word."""
        if isinstance(e, OSError):
            return DISK if disk.is_disk(e) else "os"
        return DISK if e.hint and e.hint == disk.remedy(errno.ENOSPC) else e.code

    def told(self, e: RktError | OSError) -> str:
        """An error in one sentence: what it names, and what lies behind it."""
        if isinstance(e, OSError):
            return f"{e.filename}: {e.strerror}" if e.filename else str(e)
        notes = getattr(e, "__notes__", [])
        if isinstance(e, NotVerified) and notes and e.__cause__ is None:
            # By a rule: which one, what it asks for, and why what is there does not count.
            return str(notes[0])
        chain = [e.message]
        cause = e.__cause__
        while isinstance(cause, RktError):
            if cause.message not in chain[-1]:
                chain.append(cause.message)
            cause = cause.__cause__
        return ": ".join(chain if len(chain) < 3 else [chain[0], chain[-1]])

    def summary(self, e: RktError | OSError) -> str:
        """The cause."""
        return self.told(e)

    def remedies(self, e: RktError | OSError) -> list[str]:
        """What an error advises."""
        if isinstance(e, OSError):
            return [text for text in (disk.remedy(e.errno),) if text]
        return [e.hint] if e.hint else []

    def look_at_disk(self, needed: int = 0) -> None:
        """Whether there is room."""
        directory = self.settings.data_dir
        while not os.path.isdir(directory) and directory != "/":
            directory = os.path.dirname(directory)
        status = os.statvfs(directory)
        free = status.f_bavail * status.f_frsize
        where = f"the file system of {self.settings.data_dir}"
        if status.f_flag & os.ST_RDONLY:
            self.note("disk", f"{where} is read-only", BAD)
            raise _Refused(DISK, f"{where} is read-only, so nothing can be stored", disk.remedy(errno.EROFS))
        if free < max(needed, _LEAST_FREE_BYTES) or (status.f_files and not status.f_favail):
            what = f"{_size(free)} are free in {where}"
            if status.f_files and not status.f_favail:
                what = f"{where} has room for no more files"
            wanted = f", and the image has {_size(needed)} before it is unpacked" if needed else ""
            self.note("disk", what + wanted, BAD)
            raise _Refused(DISK, f"the disk is full: {what}{wanted}", "rkt gc", "rkt image gc")
        self.note("disk", f"{_size(free)} are free in {where}")

    def look_at_stage1(self) -> None:
        """Whether there is one."""
        images, default = built_in_images(self.settings)
        if default in images:
            image = images[default]
            self.note("stage1", f"{image.name}:{image.version} of the installation, unless told otherwise")

    def look_at_verdict(self, name: str, record: ImageRecord) -> None:
        """Hold a stored verdict against today's rules."""
        verdict = record.verdict
        try:
            check_verdict(verdict, self.settings, opted_out=self.settings.insecure.image)
        except (NotVerified, ConfigError) as e:
            self.note("verdict", self.told(e), BAD)
            raise _Refused(
                e.code,
                _sentence(self.told(e)),
                *self.remedies(e),
                f"rkt trust list --name={_ruled(verdict.subject or name)}",
            ) from e
        signers = ", ".join(fact.signer for fact in verdict.facts if fact.signer) or verdict.fingerprint
        text = (
            f"vouched for by {signers}, as {verdict.rule} asks" if signers else f"accepted by {verdict.rule}"
        )
        self.note("verdict", text)

    def look_at_files(self, record: ImageRecord) -> None:
        """Whether all of a stored image is there, by their sums where that costs nothing."""
        try:
            self.store.manifest_bytes(record.key)
            if record.oci is not None:
                from rkt.store.oci import read_oci

                read_oci(self.store, record.key)
            for layer in record.layers:
                self.store.layer_path(layer)
        except (StoreError, NotFound) as e:
            raise self.damaged(e, record.key) from e
        count = len(record.layers)
        self.note(
            "files",
            f"manifest as it was imported, {count} layer{'' if count == 1 else 's'} there; "
            f"rkt image verify {record.key.medium} reads every file",
        )

    def damaged(self, e: RktError, key: ImageKey) -> _Refused:
        """What the store lost."""
        self.note("files", e.message, BAD)
        return _Refused(
            DamagedRecord.code,
            f"the store is damaged: {e.message}",
            f"rkt image rm {key.medium} && rkt fetch IMAGE" if isinstance(e, DamagedRecord) else "",
            f"rkt image verify --repair {key.medium}",
        )


class _ImageInquiry(_Inquiry):
    """About an image."""

    def __init__(self, text: str, settings: Settings, *, offline: bool) -> None:
        super().__init__(text, settings)
        self._offline = offline
        self._host = ""
        self._name = ""
        self._near = ""

    def look(self) -> tuple[str, str]:
        """The outcome and the sentence."""
        record = self._stored()
        if record is not None:
            name = str(record.name)
            self.note("store", f"has it as {record.key.medium}, {record.full_name}")
            self.look_at_verdict(name, record)
            self.look_at_files(record)
            self.look_at_disk()
            self.look_at_stage1()
            self.next = [f"rkt run {self.text}"]
            return ALLOWED, "nothing refuses it: it is in the store, and may be started"
        return self._look_outside(references.parse_reference(self.text))

    def _stored(self) -> ImageRecord | None:
        if is_image_hash(self.text):
            self.note("reference", "a hash: of an image in the store")
            key = self.store.resolve_id(self.text)
            return self._record(key)
        parsed = references.parse_reference(self.text)
        found = self._known(parsed)
        if found is None:
            if parsed.kind in {references.NAME, references.URL, references.DOCKER}:
                self._tell_damaged()
                self.note("store", "does not have it", NOTE)
            return None
        return self._record(found)

    def _known(self, parsed: Reference) -> ImageKey | None:
        if parsed.kind == references.DOCKER:
            from rkt.fetch.oci_reference import parse_docker

            target = parse_docker(parsed.location)
            self._host, self._name = target.registry, target.name
            self.note("reference", f"an image of a registry: {target}")
        elif parsed.name is not None:
            self._host, self._name = parsed.name.name.partition("/")[0], parsed.name.name
            self.note("reference", f"a name, which no pod has: {parsed.name}")
            wanted = AppcReference(parsed.name.name, {**references.host_labels(), **parsed.name.labels})
            return self.store.find_by_name(wanted)
        elif parsed.kind == references.URL:
            from urllib.parse import urlsplit

            self._host = urlsplit(parsed.location).netloc
            self.note("reference", f"a URL of {self._host}")
        elif parsed.kind == references.FILE:
            self.note("reference", f"a file: {parsed.location}")
        else:
            self.note("reference", f"a directory or an archive, {parsed.kind}: {parsed.location}")
        url = parsed.remote_key(self.settings.platform)
        row = self.store.remote_row(url) if url else None
        if row is None:
            return None
        record = self._record(row.key)
        if record is not None and not self.settings.insecure.image and not is_about(record.verdict, url):
            self.note("store", f"has it as {row.key.medium}, judged by another name", NOTE)
            return None
        return row.key

    def _record(self, key: ImageKey) -> ImageRecord | None:
        try:
            return self.store.get(key)
        except StoreError as e:
            raise self.damaged(e, key) from e
        except NotFound:
            return None

    def _tell_damaged(self) -> None:
        """A damaged record has no name by which it could be found."""
        damaged: list[RktError] = []
        for _ in self.store.records(damaged):
            pass
        for e in damaged[:2]:
            self.note("store", f"{e.message}; that may be of this image: {e.hint}", NOTE)

    def _look_outside(self, parsed: Reference) -> tuple[str, str]:
        from rkt.fetch.look import Notes, look_at, look_at_image

        self.look_at_disk()
        self._look_at_rules(parsed)
        remote = parsed.kind in {references.NAME, references.URL, references.DOCKER}
        if parsed.kind == references.DOCKER and not self.settings.insecure.image:
            from rkt.trust.judging import Asked

            try:
                Asked(self._name, self.settings, is_oci=True).check_possible()
            except NotVerified as e:
                self.note("network", "not asked: it is refused before", SKIPPED)
                self._tell_failure(e)
                raise
        if remote and self._offline:
            self.note("network", "not asked, because of --offline", SKIPPED)
            self.next = [f"rkt why {self.text}", f"rkt fetch {self.text}"]
            return UNKNOWN, "nothing here refuses it, but it is not in the store, and nobody was asked for it"
        if remote:
            self._tell_way()
        notes = Notes(self.settings)
        try:
            candidates = self._candidates(parsed)
            if candidates:
                looked = look_at_image(candidates[0], str(candidates[0]), self.settings, notes)
            else:
                looked = look_at(parsed, self.settings, notes)
        except (RktError, OSError) as e:
            self._tell(notes)
            self._tell_failure(e)
            raise
        self._tell(notes)
        if looked.size_bytes:
            self.look_at_disk(looked.size_bytes)
        self.look_at_stage1()
        self.next = [f"rkt fetch {self.text}"]
        if looked.verdict is None:
            self.note("image", "not downloaded: a fetch holds it against its signature", SKIPPED)
            return UNKNOWN, "nothing refuses it so far: only a fetch can compare the image with its signature"
        return ALLOWED, "nothing refuses it: a fetch would take it in"

    def _candidates(self, parsed: Reference) -> list[DockerReference]:
        """Of a short name, where the configuration says that it is looked for."""
        if parsed.name is None or not references.is_short(parsed.name):
            return []
        from rkt.fetch.short_names import candidates

        return candidates(parsed.name, self.settings)

    def _look_at_rules(self, parsed: Reference) -> None:
        """Which rule and which keys decide, where the name is known."""
        if self.settings.insecure.image:
            self.note("rules", "not asked, because of --insecure-options=image", SKIPPED)
            return
        if not self._name:
            what = (
                "what the directory or archive is called"
                if parsed.kind in references.LOCAL_KINDS
                else "its name"
            )
            self.note("rules", f"are those for {what}, which is not known yet", NOTE)
            return
        from rkt.trust.compiled import read_policy
        from rkt.trust.keystore import Keystore
        from rkt.trust.rule_files import asked
        from rkt.trust.rules import shown_name

        policy = read_policy(self.settings)
        rules = policy.rules_for(self._name)
        for rule in rules:
            self.note("rules", f"{rule.path} asks below {shown_name(rule.prefix)} for {asked(rule)}")
        if not rules:
            if policy.default_path:
                self.note(
                    "rules",
                    f'none covers {shown_name(self._name)}; default = "{policy.default}" ({policy.default_path})',
                    NOTE,
                )
            else:
                self.note("rules", "there are none: a signature by a key of the key store is asked for", NOTE)
        keystore = Keystore(self.settings)
        keys = keystore.listing(self._name).keys
        if not rules or any(each.keys == "keystore" for rule in rules for each in rule.requirements):
            words = ", ".join(f"{file.fingerprint} ({file.rule})" for file in keys.values())
            self.note("keys", words or "none of the key store counts for that name", OK if words else NOTE)
        self._tell_near_misses([rule.prefix for rule in policy.rules], [e.prefix for e in keystore.entries()])

    def _tell_near_misses(self, rules: list[str], keys: list[str]) -> None:
        """Prefixes of the same registry that do not cover the name: a slip of the pen looks like this."""
        from rkt.trust.rules import rule_name, shown_name

        name = rule_name(self._name)
        host = name.partition("/")[0]
        for word, prefixes in (("rule", rules), ("key", keys)):
            near = {
                prefix
                for prefix in prefixes
                if prefix
                and rule_name(prefix).partition("/")[0] == host
                and not f"{name}/".startswith(f"{rule_name(prefix)}/")
            }
            if near:
                listed = ", ".join(shown_name(prefix) for prefix in sorted(near)[:4])
                self._near = f"a {word} for {listed} does not cover {shown_name(name)}"
                self.note("rules", self._near, NOTE)

    def _tell_way(self) -> None:
        """By which way the server is reached, and who vouches for it."""
        words = [f"asks {self._host}"]
        proxy, path = self._proxy()
        if proxy:
            words.append(f"by the proxy {proxy} ({path})")
        from rkt.config.network import load_network

        tls = load_network(self.settings).tls.get(self._host)
        if tls is not None and tls.roots:
            words.append(f"whose certificate must be vouched for by {tls.roots}")
        self.note("network", ", ".join(words))

    def _proxy(self) -> tuple[str, str]:
        """The proxy for the host, and the file that says so."""
        from rkt.config.files import read_directory
        from rkt.config.network import FETCH_KINDS, load_network, proxy_for

        proxy = proxy_for(load_network(self.settings).proxies, self._bare_host())
        paths = [
            file.path
            for directory in self.settings.config_dirs
            for file in read_directory(f"{directory}/fetch.d", FETCH_KINDS)
            if file.kind == "proxy" and file.text("url") == proxy
        ]
        return (proxy, paths[-1]) if proxy and paths else ("", "")

    def _bare_host(self) -> str:
        if self._host.startswith("["):
            return self._host.partition("]")[0] + "]"
        return self._host.partition(":")[0]

    def _tell(self, notes: Notes) -> None:
        for line in notes.lines:
            self.note("found", line)

    def _tell_failure(self, e: RktError | OSError) -> None:
        what = "verdict" if isinstance(e, NotVerified) else "image"
        if self.cause_of(e) in {NETWORK, PROXY, TLS, CREDENTIALS}:
            what = "network"
        texts = [str(note) for note in getattr(e, "__notes__", [])] if isinstance(e, NotVerified) else []
        for text in dict.fromkeys((self.told(e), *texts)):
            self.note(what, text, BAD)

    def cause_of(self, e: RktError | OSError) -> str:
        """A word; errors of transfers are told apart by what they say."""
        cause = super().cause_of(e)
        if not isinstance(e, FetchError) or cause != FetchError.code:
            return cause
        text = self.told(e)
        if _CERTIFICATE in text or _NO_TLS in text:
            return TLS
        if any(words in text for words in _NO_ACCESS):
            return CREDENTIALS
        if type(e) is not FetchError:
            return NotFound.code
        if self._host and "cannot fetch " in text and "bad HTTP status" not in text:
            return PROXY if self._proxy()[0] else NETWORK
        return cause

    def told(self, e: RktError | OSError) -> str:
        """One sentence."""
        if isinstance(e, FetchError) and type(e) is not FetchError:
            # Of discovery: what the pages of the name answered.
            last: BaseException = e
            while last.__cause__ is not None:
                last = last.__cause__
            return f"{e.message}: {last}" if last is not e else e.message
        return super().told(e)

    @property
    def _is_oci(self) -> bool:
        return self.text.startswith("docker:")

    def summary(self, e: RktError | OSError) -> str:
        """The cause, with the host or the file that it is in."""
        text = self.told(e)
        cause = self.cause_of(e)
        reason = text.rpartition('": ')[2]
        if cause == PROXY:
            proxy, path = self._proxy()
            return f"{self._host} is not reached by the proxy {proxy}, which {path} asks for: {reason}"
        if cause == NETWORK:
            return f"{self._host} is not reached: {reason}"
        if cause == TLS and _CERTIFICATE in text:
            return (
                f"nobody who counts vouches for the certificate of {self._host}: {reason.rpartition(': ')[2]}"
            )
        if isinstance(e, NotVerified) and self._near and "no rule covers" in text:
            return f"{text}; {self._near}"
        return text

    def remedies(self, e: RktError | OSError) -> list[str]:
        """What to type."""
        found = super().remedies(e)
        cause = self.cause_of(e)
        local = f"{self.settings.local_config_dir}/fetch.d"
        file = f"{local}/{self._bare_host().strip('[]')}.json"
        if isinstance(e, NotVerified) and self._name:
            from rkt.trust.judging import trust_command

            listed = f"rkt trust list --name={_ruled(self._name)}"
            if self._is_oci and "no rule covers" in self.told(e):
                return [trust_command(self._name), listed, f"rkt fetch --insecure-options=image {self.text}"]
            return [*([] if self._is_oci else found), listed, *(found if self._is_oci else [])]
        if cause == TLS and _CERTIFICATE in self.told(e):
            text = f'{{"rktKind":"tls","rktVersion":"v1","hosts":["{self._host}"],"roots":"/PATH/root.pem"}}'
            return [f"mkdir -p {local} && echo '{text}' > {file}", "rkt help config"]
        if cause == TLS:
            text = f'{{"rktKind":"registry","rktVersion":"v1","registries":["{self._host}"],"http":true}}'
            return [f"mkdir -p {local} && echo '{text}' > {file}", *found]
        if cause == PROXY:
            proxy, path = self._proxy()
            return [f"curl -v {proxy}", f"change or remove {path}"]
        if cause == NETWORK:
            curl = f"curl -v https://{self._host}/{'v2/' if self._is_oci else ''}"
            return [f"getent hosts {self._bare_host()}" if _is_unknown(self.told(e)) else curl, *found]
        if cause == NotFound.code and not found and self._is_oci:
            return [f"rkt why docker://{_ruled(self._name)}:TAG, with a tag that is there"]
        if cause == NotFound.code and found and found[0].startswith("docker://"):
            return [f"rkt why docker://{self.text}, if the image of a registry is meant"]
        return found


class _PodInquiry(_Inquiry):
    """About a pod."""

    def __init__(self, pod: Pod, text: str, settings: Settings) -> None:
        super().__init__(text, settings)
        self._pod = pod

    def look(self) -> tuple[str, str]:
        """The outcome and the sentence."""
        from rkt.pod import lifecycle, status

        pod = self._pod
        self.note("pod", f"{pod.uuid} is {pod.state}")
        if pod.place in {lifecycle.EMBRYO, lifecycle.PREPARE} and not pod.locked:
            self.steps[-1] = self.steps[-1].replace(state=BAD)
            raise _Refused(
                PLACE,
                "the pod was never finished: who prepared it was ended before",
                "rkt gc",
                "rkt prepare IMAGE",
            )
        if pod.place == lifecycle.GARBAGE:
            self.steps[-1] = self.steps[-1].replace(state=BAD)
            raise _Refused(PLACE, "the pod is being removed", "rkt gc")
        self._look_at_verdicts()
        if pod.is_running:
            self.next = [f"rkt status {pod.uuid.short}"]
            return ALLOWED, "the pod runs"
        self._look_at_layers()
        self._look_at_host()
        self.look_at_disk()
        if pod.is_exited:
            self._tell_end()
            self.next = [f"rkt logs {pod.uuid.short}", f"rkt start {pod.uuid.short}"]
            return ALLOWED, "the pod is over, and nothing refuses to start it again"
        code = status.insecure_words(pod)
        if code:
            self.note("options", f"prepared with --insecure-options={','.join(code)}", NOTE)
        self.next = [f"rkt run-prepared {pod.uuid.short}"]
        return ALLOWED, "nothing refuses it: the pod is prepared, and may be started"

    def _look_at_verdicts(self) -> None:
        from rkt.pod import status
        from rkt.stage0.prepare import STAGE1_VERDICT, pod_verdicts
        from rkt.trust.verdict import KIND_BUILTIN

        opted_out = self.settings.insecure.image or "image" in status.insecure_words(self._pod)
        for path, verdict in pod_verdicts(self._pod):
            what = "stage1" if path == STAGE1_VERDICT else path.removeprefix("appsinfo/").partition("/")[0]
            if what == "stage1" and verdict.kind == KIND_BUILTIN:
                self.note("stage1", f"{verdict.name} of the installation that prepared the pod")
                continue
            try:
                check_verdict(verdict, self.settings, opted_out=opted_out)
            except (NotVerified, ConfigError) as e:
                self.note(what, self.told(e), BAD)
                remedies = [
                    *self.remedies(e),
                    f"rkt trust list --name={_ruled(verdict.subject or verdict.name)}",
                ]
                raise _Refused(e.code, _sentence(self.told(e)), *remedies) from e
            by = "not asked, because of --insecure-options=image" if opted_out else verdict.rule
            self.note(what, f"{verdict.name}: {by}")

    def _look_at_layers(self) -> None:
        from rkt.pod import status
        from rkt.stage0 import contract, roots

        if not self._pod.has(contract.OVERLAY_PREPARED):
            return
        for app in (None, *status.app_names(self._pod)):
            try:
                for layer in roots.layer_keys(self._pod, app):
                    self.store.layer_path(layer)
            except StoreError as e:
                self.note(app or "stage1", e.message, BAD)
                name = f"app {app}" if app else "stage1"
                raise _Refused(
                    DamagedRecord.code,
                    f"the store has lost files of {name}: {e.message}",
                    e.hint,
                    "rkt image list",
                ) from e
        self.note("files", "all layers are in the store")

    def _look_at_host(self) -> None:
        from rkt.stage0 import contract, roots

        if self._pod.has(contract.OVERLAY_PREPARED) and (
            reason := roots.overlay_unsupported(self.settings.data_dir)
        ):
            self.note("host", reason, BAD)
            raise _Refused(
                "host", f"the pod was prepared for overlays, and {reason}", "rkt prepare --no-overlay IMAGE"
            )

    def _tell_end(self) -> None:
        from rkt.pod import status

        names = status.app_names(self._pod)
        codes = status.exit_codes(self._pod, names)
        for app in names:
            kills = status.oom_kills(self._pod, app)
            words = f"ended with status {codes[app][0]}" if app in codes else "left no status"
            if kills:
                words += f"; the kernel killed {kills} of its processes for want of memory"
            self.note(app, words, NOTE)
        if status.was_killed(self._pod):
            self.note("pod", "its supervisor was killed, or the host went down", NOTE)


def _is_unknown(text: str) -> bool:
    """Whether it is the name of a host that nobody knows."""
    return "not known" in text or "name resolution" in text


def _sentence(text: str) -> str:
    return text.partition("\n")[0]


def _ruled(name: str) -> str:
    """As ``rkt trust list --name`` takes it."""
    from rkt.trust.rules import shown_name

    return shown_name(name)


def _size(count: int) -> str:
    """IEC units, rounded down."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1 << 10:
            return f"{count} {unit}"
        count >>= 10
    return f"{count} GiB"
