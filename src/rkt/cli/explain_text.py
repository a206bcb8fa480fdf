# SPDX-License-Identifier: Apache-2.0
"""The text of ``rkt explain``: the answer, what it rests on, what would lower the risk."""

from __future__ import annotations

from rkt.cli.output import human_size
from rkt.errors import printable
from rkt.pod.risk import TAKEOVER_POINTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LABEL_WIDTH = 14
#: Points of findings that are told as part of the answer.
_WORTH_TELLING = 10
#: Kinds of volumes that are not the host's.
_KINDS = {"empty": "an empty volume", "tmpfs": "an empty volume in memory", "image": "files of an image"}
#: Twice the default set; more are not listed.
_MOST_CAPABILITIES = 22


def render(explained: dict[str, Any], width: int) -> str:
    """The whole text.

    Args:
        explained: see ``docs/explain.md``; texts in it may come from images and are escaped.
        width: columns to stay within, but for words that are longer.
    """
    risk, findings = explained["risk"], explained["findings"]
    lines = [f"Risk: {risk['level']} ({risk['score']} points)", ""]
    lines += _answer(findings, width)
    for app in explained["apps"]:
        lines += ["", *_wrap(f"App {app['name']}", width)]
        for label, text in _app_rows(app, explained["pod"]):
            lines += _row(label, text, width)
    lines += ["", "Pod"]
    for label, text in _pod_rows(explained["pod"]):
        lines += _row(label, text, width)
    if findings:
        lines += ["", *_wrap("What the points are for, and what would lower them", width)]
        for finding in findings:
            lines += _hang(f"{finding['points']:>5}  ", f"{finding['text']} ({finding['source']})", width)
            lines += _hang("       -> ", finding["remedy"], width)
    return "\n".join(lines) + "\n"


def _answer(findings: list[dict[str, Any]], width: int) -> list[str]:
    grave = [finding["text"] for finding in findings if finding["points"] >= TAKEOVER_POINTS]
    told = [finding["text"] for finding in findings if _WORTH_TELLING <= finding["points"] < TAKEOVER_POINTS]
    if grave:
        lines = _wrap("This pod can take over this machine:", width)
    elif told:
        lines = _wrap(
            "Nothing it is given hands over this machine by itself. What to know before it starts:", width
        )
    else:
        text = "It reaches nothing of this machine but its kernel, and the processor time, memory and disk space it uses."
        return _wrap(text, width)
    for text in grave or told:
        lines += _hang("  - ", text, width)
    if grave and told:
        lines += _wrap("Besides:", width)
        for text in told:
            lines += _hang("  - ", text, width)
    return lines


def _app_rows(app: dict[str, Any], pod: dict[str, Any]) -> list[tuple[str, str]]:
    image, verified, user = app["image"], app["verified"], app["user"]
    name = f"{image['name']}:{image['version']}" if image["version"] else image["name"]
    vouched = "nobody vouches for it"
    if verified["kind"] == "openpgp":
        who = ", ".join(verified["identities"]) or verified["fingerprint"]
        trusted = "every name" if verified["rule"] == "root" else verified["rule"]
        vouched = f"signed by {who}, whose key is trusted for {trusted}"
    elif verified["kind"] == "policy":
        signers = ", ".join(f"{each['kind']} {each['signer']}" for each in verified["signers"])
        asked = verified["rule"]
        vouched = (
            f"verified by {signers}, as {asked} says"
            if signers
            else f"which nobody signed, {asked} lets it pass"
        )
    uid = "unknown" if user["uid"] is None else user["uid"]
    rows = [
        ("image", f"{name}, {vouched}"),
        ("runs", " ".join(app["exec"])),
        ("as", f"user {uid}, group {'unknown' if user['gid'] is None else user['gid']} ({user['source']})"),
    ]
    rows += [
        ("handler", f"{kind}: {' '.join(words)}, as root") for kind, words in app["event_handlers"].items()
    ]
    rows += [("probe", f"{probe['kind']}: {_how(probe)}, confined as the app") for probe in app["probes"]]
    capabilities, fixed = app["capabilities"], app["no_new_privileges"]
    short = [each.removeprefix("CAP_") for each in capabilities["bounding"]]
    if len(short) > _MOST_CAPABILITIES:
        short = [f"{len(short)} of the kernel's, see --format=json"]
    if capabilities["effective"] or app["event_handlers"]:
        text = ", ".join(short) or "none"
    elif fixed["value"]:
        text = "none, and it cannot gain any"
    else:
        text = f"none to begin with, but it may gain {', '.join(short) or 'none'}"
    rows.append(("capabilities", f"{text} ({capabilities['source']})"))
    rows.append(("system calls", _system_calls(app["system_calls"])))
    own = "read-only" if app["root_file_system"]["read_only"] else "writable"
    rows.append(("files", f"its own, {own} ({app['root_file_system']['source']})"))
    for path in app["paths"]:
        what = f"{path['host_path']} of this machine" if "host_path" in path else _KINDS[path["kind"]]
        how = "read-only" if path["read_only"] else "writable"
        rows.append(("", f"{path['path']}: {what}, {how} ({path['source']})"))
    all_devices = "devices" in pod["stage1"]["not_enforced"]
    rows.append(("devices", "all of this machine" if all_devices else "null, zero and the like (default)"))
    rows += [
        (
            "",
            f"{device['path']}: {device['host_path']} of this machine, {device['access']} ({device['source']})",
        )
        for device in app["devices"]
    ]
    memory, processes = app["limits"]["memory_bytes"], app["limits"]["processes"]
    own = "memory as the pod" if memory["limit"] is None else f"{human_size(memory['limit'])} of memory"
    most = "any number of" if processes["limit"] is None else str(processes["limit"])
    rows.append(("limits", f"{own} ({memory['source']}), {most} processes ({processes['source']})"))
    rows += [("asks in vain", wish) for wish in app["cut_wishes"]]
    return rows


def _how(probe: dict[str, Any]) -> str:
    if probe["exec"]:
        return " ".join(probe["exec"])
    return (
        f"{probe['method']} to its port {probe['port']}" if probe["port"] else "a socket on which it says so"
    )


def _system_calls(calls: dict[str, Any]) -> str:
    if calls["filter"] == "off":
        return f"all, there is no filter ({calls['source']})"
    more = f", among them {len(calls['added'])} beyond the default" if calls["added"] else ""
    return f"{len(calls['allowed'])} allowed by list{more} ({calls['source']})"


def _pod_rows(pod: dict[str, Any]) -> list[tuple[str, str]]:
    network, users = pod["network"], pod["user_namespace"]
    ids = "of its own" if users["private"] else "this machine's ids"
    rows = [
        (
            "network",
            f"this machine's ({network['source']})"
            if network["mode"] == "host"
            else f"none but its own loopback ({network['source']})"
            if network["mode"] == "none"
            else f"its own, on {network['mode'].replace(',', ', ')} ({network['source']})",
        ),
        ("users", f"{ids} ({users['source']})"),
    ]
    if pod["egress"]:
        rows.append(("talks to", f"what these rules say, the first that fits: {', '.join(pod['egress'])}"))
    if pod["ipc"]["mode"] == "parent":
        rows.append(("ipc", f"this machine's ({pod['ipc']['source']})"))
    rows.append(("memory", f"at most {human_size(pod['memory_limit_bytes'])}, all apps together"))
    rows += [("sysctl", f"{name}={value}") for name, value in pod["sysctls"].items()]
    hidden = len(pod["hidden_paths"])
    rows.append(
        (
            "kernel files",
            f"{hidden} paths of /proc and /sys hidden" if hidden else "/proc and /sys as on the host",
        )
    )
    if pod["stage1"]["not_enforced"]:
        rows.append(("not enforced", ", ".join(pod["stage1"]["not_enforced"])))
    if pod["insecure_options"]:
        rows.append(("switched off", f"{', '.join(pod['insecure_options'])} (--insecure-options)"))
    return rows


def _clean(text: str) -> str:
    """One line that a terminal shows as it is."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def _row(label: str, text: str, width: int) -> list[str]:
    return _hang(f"  {label:<{_LABEL_WIDTH - 2}} ", text, width)


def _wrap(text: str, width: int) -> list[str]:
    return _hang("", text, width)


def _hang(first: str, text: str, width: int) -> list[str]:
    """``text`` in lines that begin below the end of ``first``; a word that is too long for a line is not cut."""
    room = max(width - len(first), 1)
    lines: list[str] = []
    line = ""
    for word in _clean(text).split(" "):
        if line and len(line) + 1 + len(word) > room:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [f"{first if not i else ' ' * len(first)}{each}" for i, each in enumerate(lines)]
