"""The worker as Node.js calls it: the documented example, its failures, time-outs, and large prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 120.0
"""For what comes to pass at once, but on a busy machine a little later."""

EXAMPLE = r"""
import { execFile, spawn } from 'child_process';
import { promisify } from 'util';

const execFileAsync = promisify(execFile);

async function generateDescription(prompt, options = {}) {
  const { stdout } = await execFileAsync('python3', [
    'src/services/fal_worker.py',
    'any-llm-complete',
    '--prompt', prompt,
    '--model', 'openai/gpt-4o-mini',
    '--temperature', '0.7',
    '--max_tokens', '200'
  ], {
    timeout: 120000,
    cwd: process.cwd() + '/backend',
    ...options
  });

  const data = JSON.parse(stdout);

  if (data.error) {
    throw new Error(data.error);
  }

  return data.output;
}

// execFile rejects on exit code 1; the worker's JSON is in err.stdout then.
async function described(prompt, options) {
  try {
    return { output: await generateDescription(prompt, options) };
  } catch (err) {
    const { name, code, signal, killed } = err;
    return { name, code, signal, killed, data: err.stdout ? JSON.parse(err.stdout) : null };
  }
}

const say = (value) => console.log(JSON.stringify(value));
"""
"""The TypeScript of an older caller without its types, and what it has to add for failures."""


@pytest.fixture
def example(box: Sandbox, node: str, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start the example with these last lines, in the project's folder."""

    def start(lines: str) -> subprocess.Popen[bytes]:
        (tmp_path / "example.mjs").write_text(EXAMPLE + lines, encoding="utf-8")
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return subprocess.Popen(
            [node, str(tmp_path / "example.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PATH": path},
        )

    return start


@pytest.fixture
def answer(example: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Any]:
    """Run the example to its end; the JSON it printed."""

    def run(lines: str) -> Any:
        with example(lines) as process:
            out, _ = process.communicate(timeout=180)
        assert process.returncode == 0
        return json.loads(out)

    return run


def test_the_documented_example_writes_a_turkish_description(answer: Callable[..., Any], box: Sandbox) -> None:
    box.say("Şık ve ergonomik kupa, içinizi ısıtır.")
    lines = "say(await generateDescription('Türkçe 2 cümlelik ergonomi odaklı ürün açıklaması yaz.'));"
    assert answer(lines) == "Şık ve ergonomik kupa, içinizi ısıtır."
    (job,) = box.ledger()["jobs"]
    assert job["input"] == {
        "prompt": "Türkçe 2 cümlelik ergonomi odaklı ürün açıklaması yaz.",
        "model": "openai/gpt-4o-mini",
        "temperature": 0.7,
        "max_tokens": 200,
    }


@pytest.mark.parametrize("prompt", ["- madde\n- madde", "--help", "$HOME `id` \"'; echo", "ışıl ışıl ✓"])
def test_a_prompt_reaches_fal_as_it_is(prompt: str, answer: Callable[..., Any], box: Sandbox) -> None:
    assert "sandbox" in answer(f"say(await generateDescription({json.dumps(prompt)}));")
    assert box.ledger()["jobs"][0]["input"]["prompt"] == prompt


def test_a_failure_rejects_and_its_json_is_in_stdout(answer: Callable[..., Any], box: Sandbox) -> None:
    box.fault("submit", status=401)
    failure = answer("say(await described('x'));")
    assert (failure["name"], failure["code"], failure["killed"]) == ("Error", 1, False)
    assert (failure["data"]["error_type"], failure["data"]["status_code"]) == ("auth", 401)
    assert failure["data"]["output"] == ""


def test_a_missing_key_is_told_to_node(answer: Callable[..., Any]) -> None:
    failure = answer("delete process.env.FAL_KEY; say(await described('x'));")
    assert failure["code"] == 1
    assert failure["data"]["error"].startswith("FAL_KEY environment variable is required")


def test_nodes_time_out_also_stops_the_job_at_fal(
    example: Callable[..., subprocess.Popen[bytes]], box: Sandbox
) -> None:
    """Node closes the pipe before it ends the worker, so nothing can be read any more."""
    box.configure(latency=60)
    with example("say(await described('x', { timeout: 5000 }));") as process:
        box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
        out, _ = process.communicate(timeout=WITHIN_S)
    failure = json.loads(out)
    assert (failure["killed"], failure["code"], failure["signal"], failure["data"]) == (True, 1, None, None)
    assert (box.ledger()["cancelled"], box.ledger()["billable"]) == (1, 0)


def test_the_workers_own_time_out_comes_first_and_is_told_as_json(answer: Callable[..., Any], box: Sandbox) -> None:
    box.configure(latency=60)
    failure = answer("process.env.FAL_TIMEOUT_S = '3'; say(await described('x', { timeout: 30000 }));")
    assert (failure["killed"], failure["code"], failure["data"]["error_type"]) == (False, 1, "timeout")
    ledger = box.wait_for(lambda ledger: ledger["running"] == 0, WITHIN_S)
    assert [job["request_id"] for job in ledger["jobs"]] == [failure["data"]["request_id"]] * ledger["cancelled"]


def test_an_abort_signal_also_stops_the_job_at_fal(
    example: Callable[..., subprocess.Popen[bytes]], box: Sandbox
) -> None:
    box.configure(latency=60)
    lines = """
    const stop = new AbortController();
    process.stdin.once('data', () => { stop.abort(); process.stdin.pause(); });
    say(await described('x', { signal: stop.signal }));
    """
    with example(lines) as process:
        box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
        out, _ = process.communicate(b"stop\n", timeout=WITHIN_S)
    assert json.loads(out)["name"] == "AbortError"
    box.wait_for(lambda ledger: ledger["cancelled"] == 1, WITHIN_S)


def test_a_prompt_that_is_too_long_for_an_argument_goes_over_standard_input(
    answer: Callable[..., Any], box: Sandbox
) -> None:
    prompt = "uzun ürün metni " * 20_000
    lines = f"""
    const call = execFileAsync('python3', ['src/services/fal_worker.py', 'any-llm-complete', '--json', '-'],
                               {{ cwd: process.cwd() + '/backend' }});
    call.child.stdin.end(JSON.stringify({{ prompt: {json.dumps(prompt)}, temperature: 0.2 }}));
    say(JSON.parse((await call).stdout).error);
    """
    assert answer(lines) is None
    assert box.ledger()["jobs"][0]["input"]["prompt"] == prompt


def test_a_stream_arrives_line_by_line(answer: Callable[..., Any], box: Sandbox) -> None:
    box.say("Kupa. Sıcak tutar.")
    lines = """
    import { createInterface } from 'readline';
    const worker = spawn('python3', ['backend/src/services/fal_worker.py', 'any-llm-stream', '--prompt', 'x']);
    const events = [];
    for await (const line of createInterface({ input: worker.stdout })) events.push(JSON.parse(line));
    say(events);
    """
    events = answer(lines)
    assert "".join(event["delta"] for event in events) == "Kupa. Sıcak tutar."
    assert [event["partial"] for event in events][-2:] == [True, False]
