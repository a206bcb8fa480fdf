# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from rkt.cli import main as main_module
from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.config.settings import Installation
from rkt.errors import NotFound, PodError, UsageError
from tests.lib.host import is_open_to_others

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(main_module.__file__))))
INSTALLATION = Installation(package_path=SOURCE, library_paths=[], stage1_images_path="/nonexistent/stage1")
#: Configuration of this machine must not count.
QUIET = ["--system-config=/nonexistent", "--local-config=/nonexistent"]


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


Verb = Callable[[Callable[[Invocation], int]], list[Invocation]]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Adds the verb ``probe`` that records its invocation and does what the test says."""

    def add(do: Callable[[Invocation], int]) -> list[Invocation]:
        calls: list[Invocation] = []

        def run(invocation: Invocation) -> int:
            calls.append(invocation)
            return do(invocation)

        module = types.ModuleType("rkt.cli.probe")
        module.COMMAND = Command(  # type: ignore[attr-defined]
            name="probe",
            summary="x",
            run=run,
            usage="IMAGE…",
            app_flags=ALL_APP_FLAGS,
            flags=(
                Flag(name="format", default="", choices=("", "json", "json-pretty")),
                Flag(name="old", kind=BOOL, default=False, deprecated="new"),
            ),
        )
        monkeypatch.setitem(sys.modules, "rkt.cli.probe", module)
        monkeypatch.setitem(main_module.COMMANDS, "probe", "probe")
        return calls

    return add


def rkt(*words: str) -> int:
    """Run one command line in this process."""
    return main_module.main(["rkt", *words], INSTALLATION)


def failing(error: BaseException) -> Callable[[Invocation], int]:
    """What a verb does that fails."""

    def do(_invocation: Invocation) -> int:
        raise error

    return do


def test_the_first_two_lines_of_version_are_as_others_parse_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs written for rkt read `rkt Version:` and `appc Version:`."""
    assert rkt(*QUIET, "version") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("rkt Version: ")
    assert lines[1] == "appc Version: 0.8.11"


def test_no_command_is_status_2_with_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """`rkt` alone says what is missing and prints nothing on stdout."""
    for words in ((), ("--debug",)):
        assert rkt(*words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("missing command\n\nNAME:\n")


@pytest.mark.parametrize(
    "words", [("help", "version"), ("version", "--help"), ("version", "-h"), ("-h", "vers")]
)
def test_help_of_a_command_is_the_same_however_asked(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Help is a result: on stdout, status 0."""
    assert rkt(*words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("NAME:\n  version - ")
    assert err == ""


def test_flags_beside_help_need_no_root_and_no_settings(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help wins over everything but flags that cannot be read."""
    calls = verb(lambda _: 0)
    assert rkt("probe", "a", "--help", "--dir=") == 0
    assert calls == []
    assert "APP OPTIONS (after an image):\n" in capsys.readouterr().out


def test_an_unknown_command_prints_neighbours_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    """The form of rkt's message is kept."""
    assert rkt("verison") == 254
    assert capsys.readouterr().err == (
        'Error: unknown command "verison" for "rkt"\n\nDid you mean this?\n\tversion\n\n'
        "Run 'rkt --help' for usage.\n"
    )


def test_a_flag_error_prints_the_usage(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """The message comes first, then how the command is used."""
    verb(lambda _: 0)
    assert rkt("probe", "--formt=json") == 254
    assert capsys.readouterr().err == (
        "Error: unknown flag: --formt\nhint: did you mean --format?\n\nUSAGE:\n  rkt probe IMAGE…\n\n"
        "Run 'rkt probe --help' for all options.\n"
    )


def test_the_verb_gets_what_was_written(verb: Verb, tmp_path: os.PathLike[str]) -> None:
    """Settings are absolute, links in the data directory resolved, images and flags in place."""
    root = os.fspath(tmp_path)
    os.mkdir(f"{root}/real")
    os.symlink("real", f"{root}/link")
    calls = verb(lambda _: 7)
    words = [f"--dir={root}/link/data", "--insecure-options=IMAGE,http", "probe", "a", "--user=5", "--", "x"]
    assert rkt(*QUIET, *words) == 7
    invocation = calls[0]
    assert invocation.settings.data_dir == f"{root}/real/data"
    assert invocation.settings.insecure.words() == ["image", "http"]
    assert invocation.settings.local_config_dir == "/nonexistent"
    assert invocation.settings.command == "probe"
    assert [(app.reference, app.user, app.args) for app in invocation.apps] == [("a", "5", ["x"])]


def test_the_data_directory_is_flag_then_configuration_then_default(
    verb: Verb, tmp_path: os.PathLike[str]
) -> None:
    """--dir beats configuration, configuration beats the default."""
    root = os.path.realpath(tmp_path)
    os.makedirs(f"{root}/etc/paths.d")
    os.mkdir(f"{root}/real")
    os.symlink("real", f"{root}/link")
    with open(f"{root}/etc/paths.d/p.json", "w", encoding="utf-8") as stream:
        stream.write(f'{{"rktKind":"paths","rktVersion":"v1","data":"{root}/link"}}')
    calls = verb(lambda _: 0)
    config = f"--local-config={root}/etc"
    assert rkt(*QUIET, "probe") == 0
    assert rkt("--system-config=/nonexistent", config, "probe") == 0
    assert rkt("--system-config=/nonexistent", config, f"--dir={root}/other", "probe") == 0
    assert [call.settings.data_dir for call in calls] == ["/var/lib/rkt", f"{root}/real", f"{root}/other"]


@pytest.mark.parametrize("name", ["dir", "local-config", "system-config"])
def test_an_empty_directory_is_refused(name: str, verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty path would become the working directory."""
    calls = verb(lambda _: 0)
    assert rkt(f"--{name}=", "probe") == 254
    assert f'invalid value "" for --{name}: a directory is expected' in capsys.readouterr().err
    assert calls == []


def test_an_error_is_one_line_with_its_innermost_cause(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layers between the message and the innermost cause are dropped, the hint follows."""
    inner = FileNotFoundError(2, "No such file or directory", "/x")
    middle = NotFound("cannot read the record")
    middle.__cause__ = inner
    outer = PodError("cannot list pods", hint="rkt gc")
    outer.__cause__ = middle
    verb(failing(outer))
    assert rkt(*QUIET, "probe") == 254
    assert capsys.readouterr() == (
        "",
        "probe: cannot list pods: /x: No such file or directory\nhint: rkt gc\n",
    )


def test_debug_shows_the_chain_as_a_tree(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Each deeper cause on its own line, two more spaces per level."""
    inner = FileNotFoundError(2, "No such file or directory", "/x")
    middle = NotFound("cannot read the record")
    middle.__cause__ = inner
    outer = PodError("cannot list pods")
    outer.__cause__ = middle
    verb(failing(outer))
    assert rkt(*QUIET, "--debug", "probe") == 254
    assert capsys.readouterr().err == (
        "probe: cannot list pods\n└─cannot read the record\n  └─/x: No such file or directory\n"
    )


def test_a_cause_already_quoted_is_not_repeated(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever worded the inner error into the outer one is believed."""
    error = PodError("cannot open /x: No such file or directory")
    error.__cause__ = FileNotFoundError(2, "No such file or directory", "/x")
    verb(failing(error))
    rkt(*QUIET, "probe")
    assert capsys.readouterr().err == "probe: cannot open /x: No such file or directory\n"


def test_an_error_of_the_system_names_the_path(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk says which file could not be written and how to make room."""
    verb(failing(OSError(28, "No space left on device", "/data/x")))
    assert rkt(*QUIET, "probe") == 254
    assert capsys.readouterr().err == (
        "probe: /data/x: No space left on device\nhint: make room: rkt gc, rkt image gc\n"
    )


def test_a_mistake_of_ours_has_a_traceback_only_with_debug(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback reaches a user who did not ask for it."""
    verb(failing(KeyError("k")))
    assert rkt(*QUIET, "probe") == 254
    plain = capsys.readouterr().err
    assert plain.startswith("probe: internal error: KeyError: 'k'\nhint: ")
    assert "Traceback" not in plain
    assert rkt(*QUIET, "--debug", "probe") == 254
    assert "Traceback" in capsys.readouterr().err


def test_notes_of_failed_cleaning_up_are_kept(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Both errors are told when cleaning up failed too."""
    error = PodError("cannot start")
    error.add_note("cannot unmount /x: Device or resource busy")
    verb(failing(error))
    rkt(*QUIET, "probe")
    assert "note: cannot unmount /x: Device or resource busy\n" in capsys.readouterr().err


def test_errors_cannot_move_the_cursor(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a message are escaped."""
    verb(failing(PodError("image \x1b[2J\u202e", hint="try \x07")))
    rkt(*QUIET, "probe")
    assert capsys.readouterr().err == "probe: image \\x1b[2J\\u202e\nhint: try \\x07\n"


def test_a_usage_error_of_a_verb_points_to_its_help(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """An error about words without a hint gets one."""
    verb(failing(UsageError("must provide at least one image")))
    assert rkt(*QUIET, "probe") == 254
    assert capsys.readouterr().err == "probe: must provide at least one image\nhint: rkt help probe\n"


def test_json_callers_get_the_code_on_stderr(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """With --format=json the last line on stderr is the error for programs; stdout stays empty."""
    verb(failing(NotFound("no such pod", hint="rkt list")))
    assert rkt(*QUIET, "probe", "--format=json") == 254
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == '{"error":{"code":"not-found","message":"no such pod","hint":"rkt list"}}'


@pytest.mark.parametrize("name", ["version", "events"])
def test_a_verb_without_words_refuses_them(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A word that would be ignored is an error: the user meant something by it."""
    assert rkt(*QUIET, name, "x") == 254
    assert capsys.readouterr() == ("", f'{name}: unexpected argument "x"\nhint: rkt help {name}\n')


def test_an_interrupt_is_status_130(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends quietly."""
    verb(failing(KeyboardInterrupt()))
    assert rkt(*QUIET, "probe") == 130
    assert capsys.readouterr().err == "probe: interrupted\n"


def test_a_deprecated_flag_names_its_successor(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag works and one line says what to write instead."""
    calls = verb(lambda _: 0)
    assert rkt(*QUIET, "probe", "--old") == 0
    assert calls[0].values["old"] is True
    assert capsys.readouterr().err == "Flag --old has been deprecated, use --new instead\n"


def test_profiles_are_written_even_after_a_failure(verb: Verb, tmp_path: os.PathLike[str]) -> None:
    """Both files hold something, and the status is the command's."""
    verb(failing(PodError("x")))
    cpu, memory = os.path.join(tmp_path, "cpu"), os.path.join(tmp_path, "memory")
    assert rkt(*QUIET, f"--cpuprofile={cpu}", f"--memprofile={memory}", "probe") == 254
    assert os.path.getsize(cpu) > 0
    assert os.path.getsize(memory) > 0


def test_files_are_made_for_owner_and_group_only(verb: Verb) -> None:
    """The umask is ours, whatever the caller's is."""
    seen: list[int] = []

    def look(_invocation: Invocation) -> int:
        seen.append(os.umask(0))
        return 0

    verb(look)
    os.umask(0)
    rkt(*QUIET, "probe")
    assert seen == [0o027]


LAUNCH = (
    f"import sys; sys.path.insert(0, {SOURCE!r}); from rkt.cli.main import main;"
    "from rkt.config.settings import Installation;"
    "sys.exit(main(['rkt', *sys.argv[1:]], Installation(package_path='/x', library_paths=[], stage1_images_path='/x')))"
)


def process(*words: str, shell: str = 'exec "$@"') -> subprocess.CompletedProcess[str]:
    """Run one command line in a process of its own."""
    command = ["/bin/sh", "-c", shell, "sh", sys.executable, "-IS", "-c", LAUNCH, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_reader_that_went_away_is_not_an_error() -> None:
    """`rkt help | true` ends without a word, as a program killed by SIGPIPE would."""
    done = process("help", shell='{ "$@"; echo "status $?" >&2; } | true')
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.stderr in {"status 141\n", "status 0\n"}


def test_a_full_disk_behind_stdout_is_an_error() -> None:
    """Output that cannot be written is not success."""
    done = process("version", shell='"$@" > /dev/full')
    assert done.returncode == 254
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_standard_descriptors_do_no_harm() -> None:
    """With 0, 1 and 2 closed nothing is opened in their place and nothing fails."""
    done = process("version", shell='"$@" <&- >&- 2>&-; echo $?')
    assert done.stdout == "0\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("verb", ["enter", "gc", "prepare", "rm", "run", "run-prepared", "app exec"])
def test_a_verb_for_root_without_words_asks_for_root_first(verb: str) -> None:
    """Unprivileged callers learn that before anything about what is missing (cli R22, runtime A8)."""
    if not is_open_to_others(__file__):
        pytest.skip("the checkout is closed to other users")
    code = LAUNCH.replace("sys.exit(", "import os; os.setuid(65534); sys.exit(")
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, *verb.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 254
    assert done.stderr.startswith(f"{verb.rsplit(maxsplit=1)[-1]}: cannot run as unprivileged user\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_verb_for_root_is_refused_before_its_words_are_looked_at() -> None:
    """Unprivileged callers learn first that they need root."""
    if not is_open_to_others(__file__):
        pytest.skip("the checkout is closed to other users")
    code = LAUNCH.replace(
        "sys.exit(",
        "import os, rkt.cli.version as v; v.COMMAND = v.COMMAND.replace(needs_root=True); os.setuid(65534); sys.exit(",
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, "version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 254
    assert done.stderr.startswith("version: cannot run as unprivileged user\n")
