"""What may stand on the command line and on standard input, and that everything else is refused before any request."""

from __future__ import annotations

import io
import json
import sys

import pytest

from schema_check import assert_output_is_true
from services.fal_worker import build_parser, main
from services.worker.commands import COMMANDS

PNG = "data:image/png;base64,iVBORw0KGgo="
CATEGORIES = ("--categories", '{"vibe": "calm"}')
HUGE = "1" + "0" * 400
COMPLETE = "any-llm-complete"
ASK = (COMPLETE, "--prompt", "x")


@pytest.fixture
def stdin(monkeypatch):
    """Put bytes on standard input."""

    def put(data: bytes | str | object) -> None:
        raw = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="ascii"))

    return put


@pytest.fixture
def sent(box, run):
    """Run a command that must succeed; the input of its one job."""

    def run_and_look(*argv: str) -> dict:
        code, document = run(*argv)
        assert (code, document["error"]) == (0, None)
        (job,) = box.ledger()["jobs"]
        return job["input"]

    return run_and_look


@pytest.fixture
def refused(box, run):
    """Run a command that must be refused before any request; its message."""

    def run_and_look(*argv: str) -> str:
        code, document = run(*argv)
        assert (code, document["error_type"]) == (1, "invalid_input")
        assert {"error", "trace", "retryable", "status_code", "request_id", "hint"} <= set(document)
        assert box.journal() == []
        return document["error"]

    return run_and_look


VALUES = ["-x", "--model", "- bullet\n- bullet", "--", "-", "--prompt=no", "-1", "@/etc/passwd", "%s %(x)s", "a=b"]


@pytest.mark.parametrize("value", [*VALUES, "--help", "-h", "--timeout 0", "Türkçe ✓ \U0001f600", " padded "])
def test_any_text_can_be_a_value(value, sent):
    assert sent(COMPLETE, "--prompt", value)["prompt"] == value


@pytest.mark.parametrize("value", ["-x", "--model", "a=b", "=", "--prompt=--prompt=x"])
def test_a_value_may_be_joined_to_its_option(value, sent):
    assert sent(COMPLETE, f"--prompt={value}")["prompt"] == value


def test_a_value_that_looks_like_an_option_does_not_eat_the_one_behind_it(sent):
    given = sent(COMPLETE, "--prompt", "--model", "--model", "--prompt", "--system", "--json")
    assert (given["prompt"], given["model"], given["system_prompt"]) == ("--model", "--prompt", "--json")


def test_the_last_of_two_values_counts(sent):
    assert sent(*ASK, "--prompt", "y")["prompt"] == "y"


@pytest.mark.parametrize("argv", [("--help",), ("-h",), (COMPLETE, "--help"), (*ASK, "-h"), ("workflow", "--help")])
def test_help_is_text_on_stdout_and_a_success(argv, box, capfd):
    assert main(argv) == 0
    out, err = capfd.readouterr()
    assert out.startswith("usage: fal-worker ")
    assert err == ""
    assert box.journal() == []


def test_the_help_of_a_command_names_its_options_in_both_spellings():
    text = build_parser().format_help()
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_tells_every_option(name, capfd):
    assert main([name, "--help"]) == 0
    out = capfd.readouterr().out
    for option in COMMANDS[name].options_in_argv:
        assert f"--{option.name}" in out
        assert f"--{option.name.replace('_', '-')}" in out
    assert ("--json" in out) == (not COMMANDS[name].is_program)


WRONG = {
    "no command": ((), "COMMAND"),
    "an unknown command": (("any-llm",), "any-llm"),
    "an option before the command": (("--prompt", "x", COMPLETE), "COMMAND"),
    "an unknown option": ((*ASK, "--colour", "red"), "--colour"),
    "an option of another command": ((*ASK, "--image_url", PNG), "--image_url"),
    "an abbreviation": ((COMPLETE, "--pro", "x"), "--pro"),
    "an abbreviation with a value": ((*ASK, "--max=3"), "--max"),
    "a stray word": ((*ASK, "stray"), "stray"),
    "an option behind --": ((COMPLETE, "--", "--prompt", "x"), "--prompt=x"),
    "an option without its value": ((COMPLETE, "--prompt"), "--prompt"),
    "no prompt": ((COMPLETE,), "--prompt"),
    "an empty prompt": ((COMPLETE, "--prompt", ""), "prompt"),
    "a blank prompt": ((COMPLETE, "--prompt", " \n"), "prompt"),
    "bytes that are no UTF-8": ((COMPLETE, "--prompt", "\udcff"), "UTF-8"),
    "half a surrogate pair": ((COMPLETE, "--prompt", "\ud83d"), "UTF-8"),
    "a file for --json": ((COMPLETE, "--json", "options.json"), "--json"),
    "no request id": (("any-llm-result",), "--request_id"),
    "a request id that is a path": (("any-llm-status", "--request_id", "../../x"), "request_id"),
    "a local path as an image": (("background", "--image_url", "/etc/passwd", "--prompt", "x"), "image_url"),
    "a webhook that is no URL": (("any-llm-submit", "--prompt", "x", "--webhook_url", "shop"), "webhook_url"),
    "no such picture": (("upload-file", "--file_path", "nowhere.jpg"), "nowhere.jpg"),
    "no such env file": ((*ASK, "--env_file", "nowhere.env"), "nowhere.env"),
    "an unknown priority": ((*ASK, "--priority", "fast"), "priority"),
    "a temperature that is a word": ((*ASK, "--temperature", "warm"), "--temperature"),
    "a temperature above 2": ((*ASK, "--temperature", "2.1"), "temperature"),
    "a temperature below 0": ((*ASK, "--temperature", "-0.1"), "temperature"),
    "a temperature that is no number": ((*ASK, "--temperature", "nan"), "temperature"),
    "half a token": ((*ASK, "--max_tokens", "1.5"), "--max_tokens"),
    "no tokens": ((*ASK, "--max_tokens", "0"), "max_tokens"),
    "an empty number": ((*ASK, "--max_tokens", ""), "--max_tokens"),
    "more digits than a number has": ((*ASK, "--max_tokens", "9" * 5000), "--max_tokens"),
    "no time": ((*ASK, "--timeout", "0"), "timeout"),
    "less than no time": ((*ASK, "--timeout", "-1"), "timeout"),
    "endless time": ((*ASK, "--timeout", "inf"), "timeout"),
    "neither true nor false": ((*ASK, "--with_logs", "maybe"), "--with_logs"),
    "an empty flag": ((*ASK, "--with_logs="), "--with_logs"),
    "categories that are no JSON": (("generate-bg-prompt", "--categories", "{", "--style_type", "x"), "--categories"),
    "categories that are a list": (("generate-bg-prompt", "--categories", "[]", "--style_type", "x"), "categories"),
    "categories that are empty": (("generate-bg-prompt", "--categories", "{}", "--style_type", "x"), "categories"),
    "categories of numbers": (("generate-bg-prompt", "--categories", '{"a": 1}', "--style_type", "x"), "categories"),
    "JSON without a bottom": (("generate-bg-prompt", "--categories", "[" * 9999, "--style_type", "x"), "--categories"),
    "no styles": (("generate-multiple-bg", "--image_url", PNG, *CATEGORIES, "--styles", "[]"), "styles"),
    "an unknown style": (("generate-multiple-bg", "--image_url", PNG, *CATEGORIES, "--styles", '["X"]'), "'X'"),
    "half a style": (("workflow", "--image", PNG, "--styles", '[{"name": "A"}]'), "description"),
    "a report without a folder": (("workflow", "--image", PNG, "--report"), "--save_dir"),
}


@pytest.mark.parametrize(("argv", "named"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_is_refused_and_names_what_is_wrong(argv, named, refused):
    assert named in refused(*argv)


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", None])
def test_a_flag_is_true_when_spelled_so_or_bare(word, box, capfd):
    assert main([*ASK, "--with_logs", *([word] if word else [])]) == 0
    out, err = capfd.readouterr()
    assert_output_is_true(ASK, 0, out)
    assert "fal: " in err


@pytest.mark.parametrize("word", ["false", "0", "no", "off", "False"])
def test_a_flag_is_false_when_spelled_so(word, box, capfd):
    assert main([*ASK, f"--with_logs={word}"]) == 0
    out, err = capfd.readouterr()
    assert_output_is_true(ASK, 0, out)
    assert err == ""


def test_a_bare_flag_does_not_eat_the_option_behind_it(sent):
    assert sent(COMPLETE, "--with_logs", "--prompt", "x")["prompt"] == "x"


def test_options_come_as_one_json_object_from_standard_input(stdin, sent):
    options = {"prompt": "- Türkçe ✓", "model": "m", "temperature": 1, "max_tokens": 7.0, "system": "--prompt"}
    stdin({**options, "priority": None, "with_logs": False, "timeout": 20.5})
    given = {"prompt": "- Türkçe ✓", "model": "m", "temperature": 1, "max_tokens": 7, "system_prompt": "--prompt"}
    assert sent(COMPLETE, "--json", "-") == given


@pytest.mark.parametrize("images", [PNG, [PNG]])
def test_images_on_standard_input_are_a_text_or_a_list(images, stdin, box, run):
    stdin({"prompt": "x", "image_url": images})
    run("any-llm-enterprise", "--json=-")
    assert box.ledger()["jobs"][0]["input"]["image_urls"] == [PNG]


@pytest.mark.parametrize("categories", [{"vibe": "çalm"}, '{"vibe": "çalm"}'])
def test_json_options_on_standard_input_are_json_or_a_text_of_it(categories, stdin, sent):
    stdin({"categories": categories, "style-type": "slate"})
    assert "çalm" in sent("generate-bg-prompt", "--json", "-")["prompt"]


def test_the_command_line_wins_over_standard_input(stdin, sent):
    stdin({"prompt": "from stdin", "model": "m"})
    given = sent(COMPLETE, "--json", "-", "--prompt", "from argv")
    assert (given["prompt"], given["model"]) == ("from argv", "m")


def test_standard_input_may_begin_with_a_byte_order_mark(stdin, sent):
    stdin(b'\xef\xbb\xbf{"prompt": "x"}\r\n')
    assert sent(COMPLETE, "--json", "-")["prompt"] == "x"


def test_a_prompt_of_a_megabyte_fits_standard_input(stdin, sent):
    prompt = "uzun ürün metni " * 65_536
    stdin({"prompt": prompt})
    assert sent(COMPLETE, "--json", "-")["prompt"] == prompt


WRONG_JSON = {
    "nothing": (b"", "JSON object"),
    "not JSON": (b"prompt=x", "JSON object"),
    "not UTF-8": (b'{"prompt": "\xff"}', "UTF-8"),
    "UTF-16": ('{"prompt": "x"}'.encode("utf-16"), "UTF-8"),
    "two objects": (b'{"prompt": "x"}{}', "JSON object"),
    "a list": ([], "a list"),
    "null": (None, "null"),
    "a text": ('"{}"', "a string"),
    "a number": (1, "a number"),
    "JSON without a bottom": (b"[" * 100_000, "JSON object"),
    "an unknown key": ({"prompt": "x", "colour": "red"}, "'colour'"),
    "an abbreviation": ({"pro": "x"}, "'pro'"),
    "no prompt": ({"prompt": None}, "--prompt"),
    "a prompt that is a number": ({"prompt": 1}, "a number"),
    "a prompt that is a list": ({"prompt": ["x"]}, "a list"),
    "half a surrogate pair": (b'{"prompt": "\\ud83d"}', "Unicode"),
    "a number that is a text": ({"prompt": "x", "temperature": "0.1"}, "temperature"),
    "a number that is true": ({"prompt": "x", "temperature": True}, "temperature"),
    "no number": (b'{"prompt": "x", "temperature": NaN}', "temperature"),
    "half a token": ({"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
    "a temperature of 400 digits": (f'{{"prompt": "x", "temperature": {HUGE}}}', "temperature"),
    "a time of 400 digits": (f'{{"prompt": "x", "timeout": {HUGE}}}', "timeout"),
    "a number of 5000 digits": (f'{{"prompt": "x", "max_tokens": {"9" * 5000}}}', "JSON object"),
    "a flag that is a text": ({"prompt": "x", "with_logs": "true"}, "with_logs"),
    "a flag that is a number": ({"prompt": "x", "with_logs": 1}, "with_logs"),
    "a path that is no Unicode": (b'{"prompt": "x", "env_file": "\\ud800"}', "Unicode"),
    "a path with a zero byte": ({"prompt": "x", "env_file": "a\0b"}, "env_file"),
}


@pytest.mark.parametrize(("data", "named"), WRONG_JSON.values(), ids=WRONG_JSON)
def test_wrong_standard_input_is_refused_and_names_what_is_wrong(data, named, stdin, refused):
    stdin(data)
    assert named in refused(COMPLETE, "--json", "-")


@pytest.mark.parametrize("images", [7, [7], {"url": PNG}, [PNG, None]])
def test_images_on_standard_input_that_are_no_texts_are_refused(images, stdin, refused):
    stdin({"prompt": "x", "image_url": images})
    assert "image_url" in refused("any-llm-enterprise", "--json", "-")


def test_a_closed_standard_input_is_refused(refused, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input" in refused(COMPLETE, "--json", "-")


# --env_file may also stand before the command


@pytest.mark.parametrize("spelling", [["--env_file", "PATH"], ["--env-file", "PATH"], ["--env_file=PATH"]])
def test_the_env_file_may_be_named_before_the_command(spelling, box, run, tmp_path):
    (tmp_path / "other.env").write_text("FAL_TEXT_ENDPOINT=fal-ai/any-llm\n")
    words = [word.replace("PATH", str(tmp_path / "other.env")) for word in spelling]
    assert run(*words, *ASK)[0] == 0
    assert [job["endpoint"] for job in box.ledger()["jobs"]] == ["fal-ai/any-llm"]


def test_an_env_file_behind_the_command_wins_over_one_before_it(box, run, tmp_path):
    (tmp_path / "other.env").write_text("FAL_TEXT_ENDPOINT=fal-ai/any-llm\n")
    assert run("--env_file", "nowhere.env", *ASK, "--env_file", str(tmp_path / "other.env"))[0] == 0
    assert [job["endpoint"] for job in box.ledger()["jobs"]] == ["fal-ai/any-llm"]


def test_an_error_of_serve_is_a_reply_also_with_the_env_file_before_it(box, capfd):
    assert main(["--env_file", "nowhere.env", "serve", "--no_such_option"]) == 1
    assert json.loads(capfd.readouterr().out)["error"]["data"]["error_type"] == "invalid_input"
