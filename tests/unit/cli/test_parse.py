# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli.app_args import ALL_APP_FLAGS, FETCH_APP_FLAGS
from rkt.cli.command import BOOL, DURATION, LIST, Command, Flag, Invocation
from rkt.cli.main import COMMANDS as ALL
from rkt.cli.other_words import WORDS
from rkt.cli.parse import (
    GLOBAL_FLAGS,
    FlagError,
    UnknownCommand,
    edit_distance,
    find,
    parse,
)
from rkt.errors import UsageError

COMMANDS = ["run", "run-prepared", "list", "status", "fetch", "image list", "image rm", "version", "help"]
FLAGS = {
    "run": (
        Flag(name="no-overlay", kind=BOOL, default=False),
        Flag(name="pull-policy", default="new", choices=("new", "update", "never")),
        Flag(name="volume", kind=LIST, default=[]),
        Flag(name="net", default="", bare="default"),
        Flag(name="name", default=""),
        Flag(name="old", kind=BOOL, default=False, deprecated="no-overlay"),
    ),
    "list": (
        Flag(name="full", kind=BOOL, default=False),
        Flag(name="format", default="", choices=("", "json", "json-pretty")),
    ),
    "image list": (Flag(name="full", kind=BOOL, default=False),),
    "status": (
        Flag(name="wait", default="false", bare="true"),
        Flag(name="grace", kind=DURATION, default=1800.0),
    ),
}


def _nothing(_invocation: Invocation) -> int:
    return 0


def command(name: str, *, app_flags: tuple[str, ...] = (), tail: bool = False) -> Command:
    """A verb with the flags of the table above."""
    return Command(
        name=name, summary="x", run=_nothing, flags=FLAGS.get(name, ()), app_flags=app_flags, tail=tail
    )


def flags_of(name: str) -> tuple[Flag, ...]:
    """What a verb of the table accepts."""
    return FLAGS.get(name, ()) + GLOBAL_FLAGS


@pytest.mark.parametrize(
    ("line", "name", "rest"),
    [
        ("run X", "run", "X"),
        ("run-p X", "run-prepared", "X"),
        ("vers", "version", ""),
        ("im li", "image list", ""),
        ("image list --full", "image list", "--full"),
        ("image", "image", ""),
        ("image --help", "image", "--help"),
        ("--debug run X", "run", "--debug X"),
        ("--dir=/x run X", "run", "--dir=/x X"),
        ("--dir /x run X", "run", "--dir /x X"),
        ("--dir list run X", "run", "--dir list X"),
        (
            "--pull-policy=new --insecure-options=image run X",
            "run",
            "--pull-policy=new --insecure-options=image X",
        ),
        ("--pull-policy new run X", "run", "--pull-policy new X"),
        ("--no-overlay run X", "run", "--no-overlay X"),
        ("--name list run X", "run", "--name list X"),
        ("--full image list", "image list", "--full"),
        ("image --full list", "image list", "--full"),
        ("--wait status U", "status", "--wait U"),
        ("run -- list", "run", "-- list"),
        ("run list", "run", "list"),
        ("-h run", "run", "-h"),
        ("--debug", "", "--debug"),
        ("", "", ""),
    ],
)
def test_the_command_is_found_wherever_flags_stand(line: str, name: str, rest: str) -> None:
    """Unique prefixes name commands, an exact name wins, and flags of the command may stand before it."""
    found = find(line.split(), COMMANDS, flags_of)
    assert (found.name, found.words) == (name, rest.split())


@pytest.mark.parametrize(
    ("line", "name", "rest"),
    [
        ("trust", "trust", ""),
        ("trust --debug ./key.asc", "trust", "--debug ./key.asc"),
        ("trust list", "trust list", ""),
        ("trust --debug rm 12", "trust rm", "--debug 12"),
        ("trust li", "trust", "li"),
        ("trust ./list", "trust", "./list"),
        ("trust key list", "trust", "key list"),
        ("trust -- list", "trust", "-- list"),
        ("tru list", "trust list", ""),
    ],
)
def test_a_command_may_have_commands_below_it(line: str, name: str, rest: str) -> None:
    """Only the exact word right behind it names one of them; everything else is its own."""
    found = find(line.split(), ["run", "trust", "trust list", "trust rm"], flags_of)
    assert (found.name, found.words) == (name, rest.split())


@pytest.mark.parametrize(
    ("line", "word", "parent", "suggestions"),
    [
        ("rn", "rn", "rkt", ["run"]),
        ("stauts", "stauts", "rkt", ["status"]),
        ("r", "r", "rkt", ["run", "run-prepared"]),
        ("foo run X", "foo", "rkt", []),
        ("zzzzz", "zzzzz", "rkt", []),
        ("image lst", "lst", "rkt image", ["list"]),
        ("--debug image bogus-name", "bogus-name", "rkt image", []),
        ("foo image list", "foo", "rkt", []),
        ("image foo list", "foo", "rkt image", []),
    ],
)
def test_an_unknown_command_names_its_neighbours(
    line: str, word: str, parent: str, suggestions: list[str]
) -> None:
    """A word that is no command is an error with what it could have been."""
    with pytest.raises(UnknownCommand) as caught:
        find(line.split(), COMMANDS, flags_of)
    assert caught.value.message == f'unknown command "{word}" for "{parent}"'
    assert [s for s in caught.value.suggestions if s in suggestions] == suggestions


@pytest.mark.parametrize("word", WORDS)
def test_words_of_docker_and_podman_lead_to_ours(word: str) -> None:
    """Who types a word of theirs that rkt does not have is told rkt's; in a group it means nothing."""
    assert word not in {name.split()[0] for name in ALL}
    with pytest.raises(UnknownCommand) as caught:
        find([word, "x"], list(ALL), flags_of)
    assert caught.value.suggestions == list(WORDS[word])
    assert {name.removeprefix("help ") for name in caught.value.suggestions} <= {*ALL, "config"}
    with pytest.raises(UnknownCommand) as caught:
        find(["net", word], list(ALL), flags_of)
    assert not {"help config", "net list"} & set(caught.value.suggestions)


def test_an_empty_word_is_no_command() -> None:
    """`rkt ""` is an unknown command, not help."""
    with pytest.raises(UnknownCommand, match='unknown command "" for "rkt"'):
        find([""], COMMANDS, flags_of)


@pytest.mark.parametrize("line", ["--bogus", "--bogus run X", "--full run X", "image --bogus"])
def test_an_unknown_flag_before_the_command_is_a_flag_error(line: str) -> None:
    """A flag that no reading of the line explains is reported as a flag."""

    def read() -> None:
        found = find(line.split(), COMMANDS, flags_of)
        parse(found.words, command(found.name))

    with pytest.raises(FlagError, match="unknown flag: --"):
        read()


def test_flags_of_every_kind_are_read() -> None:
    """Values come with = or as the next word, the last one wins, lists add up, defaults fill the rest."""
    words = [
        "--no-overlay",
        "--volume=a,kind=empty",
        "x",
        "--volume",
        "b,kind=empty",
        "--pull-policy=new",
        "--net",
    ]
    parsed = parse([*words, "--pull-policy", "never", "y"], command("run"))
    assert parsed.values["no-overlay"] is True
    assert parsed.values["volume"] == ["a,kind=empty", "b,kind=empty"]
    assert parsed.values["pull-policy"] == "never"
    assert parsed.values["net"] == "default"
    assert parsed.values["name"] == ""
    assert parsed.words == ["x", "y"]
    assert parsed.given == {"no-overlay", "volume", "pull-policy", "net"}


def test_a_default_list_is_not_shared() -> None:
    """Reading one command line does not change the defaults of the next."""
    parse(["--volume=a"], command("run"))
    assert parse([], command("run")).values["volume"] == []


def test_a_bool_takes_a_value_only_with_equals() -> None:
    """The word after a bool flag is never its value."""
    parsed = parse(["--full", "false"], command("list"))
    assert (parsed.values["full"], parsed.words) == (True, ["false"])
    assert parse(["--full=false"], command("list")).values["full"] is False


def test_an_optional_value_needs_equals() -> None:
    """The word after a flag with an optional value is never its value."""
    parsed = parse(["--wait", "10s"], command("status"))
    assert (parsed.values["wait"], parsed.words) == ("true", ["10s"])
    assert parse(["--wait=10s"], command("status")).values["wait"] == "10s"


def test_two_dashes_end_the_flags() -> None:
    """Words after -- are never flags."""
    parsed = parse(["--full", "--", "--format", "-h"], command("list"))
    assert (parsed.words, parsed.help) == (["--format", "-h"], False)


def test_a_tail_is_left_alone() -> None:
    """After the first word of a command with a tail nothing is a flag of ours."""
    parsed = parse(["--debug", "uuid", "ls", "--debug", "-l", "--", ""], command("enter", tail=True))
    assert parsed.words == ["uuid", "ls", "--debug", "-l", "--", ""]
    assert parsed.values["debug"] is True


def test_deprecated_flags_work_and_are_reported_once() -> None:
    """A deprecated flag has its value and one notice."""
    parsed = parse(["--old", "--old"], command("run"))
    assert parsed.values["old"] is True
    assert [flag.name for flag in parsed.deprecated] == ["old"]


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ("--ful", "unknown flag: --ful", "did you mean --full?"),
        ("--full=maybe", 'invalid value "maybe" for --full: true or false is expected', ""),
        ("--format", "flag needs an argument: --format", ""),
        ("--format=xml", "Invalid format option: xml", "use json or json-pretty"),
        ("-x", 'unknown shorthand flag: "x" in -x', ""),
        ("-full", 'unknown shorthand flag: "f" in -full', "flags start with two dashes: --full"),
    ],
)
def test_flag_errors_say_what_to_type(line: str, text: str, hint: str) -> None:
    """A flag that cannot be read is named, with a hint where there is one."""
    with pytest.raises(FlagError) as caught:
        parse(line.split(), command("list"))
    assert (caught.value.message, caught.value.hint) == (text, hint)


def test_a_choice_is_checked() -> None:
    """A value outside the words allowed is refused, and the words are listed."""
    with pytest.raises(FlagError, match="new, update or never is expected"):
        parse(["--pull-policy=always"], command("run"))


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (DURATION, "10", 'invalid value for --x: "10" is no duration such as'),
        (DURATION, "3000000h", "longer than any duration"),
        (BOOL, "maybe", 'invalid value "maybe" for --x: true or false'),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_flag(kind: str, text: str, said: str) -> None:
    """The error says which flag has which value."""
    table = Command(name="run", summary="x", run=lambda _: 0, flags=(Flag(name="x", kind=kind, default=0),))
    with pytest.raises(FlagError, match=said):
        parse([f"--x={text}"], table)


def test_edit_distance_counts_changes() -> None:
    """Insertions, deletions and replacements count one each."""
    assert edit_distance("stauts", "status") == 2
    assert edit_distance("", "abc") == 3
    assert edit_distance("run", "run") == 0


# Image arguments, spec cli §1.6. The generic parser eats a "--" directly after the command, so tables that start with
# one are written with two.


def apps_of(line: str, app_flags: tuple[str, ...] = ALL_APP_FLAGS) -> list[tuple[str, list[str] | None]]:
    """References and argument lists of a line."""
    parsed = parse(line.split(), command("run", app_flags=app_flags))
    return [(app.reference, app.args) for app in parsed.apps]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a", [("a", None)]),
        ("a b", [("a", None), ("b", None)]),
        ("a -- x y", [("a", ["x", "y"])]),
        ("a -- x --- b", [("a", ["x"]), ("b", None)]),
        ("a -- x --- b -- y", [("a", ["x"]), ("b", ["y"])]),
        ("a --- b", [("a", None), ("b", None)]),
        ("a -- --- b", [("a", []), ("b", None)]),
        ("a -- -- x", [("a", ["--", "x"])]),
        ("a -- --exec=y -h", [("a", ["--exec=y", "-h"])]),
        ("-- x", [("x", None)]),
        ("a --exec=y -- x", [("a", ["x"])]),
        ("a --exec y b", [("a", None), ("b", None)]),
    ],
)
def test_image_arguments_follow_the_table(line: str, expected: list[tuple[str, list[str] | None]]) -> None:
    """Each row of the table of the specification."""
    assert apps_of(line) == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-- -- x", "an image is required before any app arguments"),
        ("a -- x --- -- y", "only one set of app arguments allowed per image"),
        ("--exec=x a", "--exec must follow an image"),
        ("--caps-remove=x a", "--caps-remove must follow an image"),
        ("a --exec=x --exec=y", "--exec specified multiple times for the same image"),
        ("a --signature=x --signature=y", "--signature specified multiple times for the same image"),
        (
            "a --caps-retain=CAP_KILL --cap-remove=CAP_KILL",
            "cannot use both --caps-retain and --caps-remove on the same image",
        ),
        ("a --mount=volume=v,target=/x", 'dangling mount point "/x": volume "v" not found'),
    ],
)
def test_misplaced_image_arguments_are_refused(line: str, text: str) -> None:
    """Each has its own message."""
    with pytest.raises(UsageError) as caught:
        apps_of(line)
    assert caught.value.message == text


def test_fetch_takes_no_app_arguments() -> None:
    """A command that runs nothing refuses arguments for apps."""
    with pytest.raises(UsageError, match="app arguments unsupported"):
        apps_of("a -- x", FETCH_APP_FLAGS)
    with pytest.raises(FlagError, match="unknown flag: --exec"):
        apps_of("a --exec=x", FETCH_APP_FLAGS)


def test_an_empty_argument_reaches_the_app() -> None:
    """Empty words are kept inside an argument list and skipped outside (design §9.8)."""
    parsed = parse(["", "a", "", "--", "", "x", ""], command("run", app_flags=ALL_APP_FLAGS))
    assert [(app.reference, app.args) for app in parsed.apps] == [("a", ["", "x", ""])]


def test_flags_apply_to_the_image_before_them_or_to_the_pod() -> None:
    """Per-app flags belong to the last image; pod flags after an image belong to the pod."""
    words = "--volume=v,kind=empty --mount=volume=v,target=/g a --user=1 --no-overlay b --user=2 "
    words += "--mount=volume=v,target=/b --pull-policy never"
    parsed = parse(words.split(), command("run", app_flags=ALL_APP_FLAGS))
    assert [app.user for app in parsed.apps] == ["1", "2"]
    assert [mount.target for mount in parsed.mounts] == ["/g"]
    assert [mount.target for mount in parsed.apps[1].mounts] == ["/b"]
    assert parsed.apps[0].mounts == []
    assert parsed.values["no-overlay"] is True
    assert parsed.values["pull-policy"] == "never"


def test_name_is_the_pods_before_an_image_and_the_apps_after() -> None:
    """One word, two places: where it stands decides."""
    parsed = parse(["--name=web", "a", "--name=front", "b"], command("run", app_flags=ALL_APP_FLAGS))
    assert parsed.values["name"] == "web"
    assert [app.name for app in parsed.apps] == ["front", None]


def test_help_is_seen_after_an_image_but_not_among_arguments() -> None:
    """--help works wherever a flag may stand."""
    run = command("run", app_flags=ALL_APP_FLAGS)
    assert parse(["a", "--help"], run).help
    assert not parse(["a", "--", "--help"], run).help


def test_a_list_whose_value_may_be_left_out_adds_up() -> None:
    """``--net`` alone means its bare value, and repetitions add up in order (spec cli §1.7)."""
    command = Command(
        name="x", summary="", run=lambda _: 0, flags=(Flag(name="net", kind=LIST, bare="default"),)
    )
    assert parse([*["--net", "--net=a,b", "--net=c", "word"]], command).values["net"] == [
        "default",
        "a,b",
        "c",
    ]
    assert parse(["word"], command).values["net"] == []
