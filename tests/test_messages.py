"""Every error and note names the thing, what is wrong with it, the value, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowprep
from flowprep import errors
from tests.message_collector import (
    ERRORS,
    USAGE_ERRORS,
    Message,
    messages_of_package,
    messages_of_source,
)

MESSAGES = messages_of_package(Path(flowprep.__file__).parent)

BANNED = re.compile(
    r"\b(invalid|illegal|bad|oops|sorry|please|something went wrong|unexpected error|unknown error"
    r"|unable to|failed to)\b",
    re.IGNORECASE,
)
REMEDY = re.compile(
    r"(?:^|[;:,.\n(]|\bor\b|\band\b|\bto [\w ]+,)\s*(?:then |first |instead )?`?"
    r"(?:add|allow|begin|check|choose|close|compare|convert|copy|correct|cut|delete|end|export|extract|fit"
    r"|free|fuse|give|go on|import|install|join|keep|leave|let|list|load|lower|make|measure|mend"
    r"|move|name|open|pass|point|put|raise|read|remove|rename|repair|replace|report|restore|run|save|set"
    r"|shorten|start|take|test|train|try|turn|unset|use|wait|write)\b"
    r"|`(?:flowprep|pip) |\bdid you mean\b|\{\}\?",
    re.IGNORECASE,
)
"""An imperative at the beginning of a clause, or a command."""
RULE = re.compile(
    r"\b(must|needs?|takes?|wants|goe?s? with|asks for|are for|is for|says?|expected)\b"
    r"|\b(has|it has|which are|instead of)\b.*\{\}",
    re.DOTALL,
)
"""Says which values are right, so that giving one of them is the remedy: `must be >= 1, got 0`."""

WITHOUT_REMEDY = {
    # The words of the system, of a library or of another error, which say what is wrong; the
    # remedy, where there is one, is among them.
    "inputs/listed.py": ["{} names no video that may be used"],
    "differences.py": ["{}:\n{}\n{}"],
    "cli/config_file.py": ["{}: {}", "{}: no option is called {}"],
    "storage_errors.py": ["cannot {} {}: {}"],
    "storage.py": ["cannot {} {}: {}"],
    "locks.py": ["{} ({}); {}"],
    "learn/weights/tensorflow.py": ["{} is not read: {}"],
    "run/ray_executor.py": ["{}: {}"],
    "run/run_job.py": ["{}: {}", "{} at {}: {}"],
    # Says what was done, and there is nothing to choose.
    "run/driver.py": ["tried {} again"],
    "learn/describe.py": ["the tensors are under {}"],
    "run/plan.py": ["{} was lost; made anew from"],
    "run/recovery.py": ["{} was lost or damaged; made anew from", "tried {} again"],
    "dataset/lost_plan.py": ["{} was lost; made anew from"],
    "exchange/import_tree.py": ["{} was lost; made anew from"],
    "dataset/unfilled.py": ["{} held no video yet, so it was begun anew"],
    # GUARD_REMEDY is the remedy.
    "learn/clips/loader.py": ["the processes that read clips ended while they were starting: {}"],
    "processes.py": [
        "a process cannot start processes while it is starting: {}",
        "the worker processes ended while they were starting: {}",
    ],
    # How much the camera moved.
    "look/view.py": ["{}: {}"],
    "learn/predict.py": ["VIDEO {}"],
    # The remedy is chosen above.
    "dataset/foreign.py": ["{} in {} {}: {}"],
    "learn/config.py": ["{} of {}: {}"],
    "dataset/layout.py": ["{}: {} line {} is damaged"],
    "inputs/entries.py": ["{} does not exist: {}"],
    "inputs/manifest.py": ["two videos have the key {}"],
}
"""Messages, by their beginning, for which no remedy exists or another text gives it."""

WITHOUT_VALUE = {
    "ending.py": ["the working folder does not exist"],
    "exchange/import_plan.py": ["bound_px must be given"],
    "learn/clips/loader.py": ["a process that reads clips was ended"],
    "learn/evaluate.py": ["the network never saw a mirrored clip"],
    "learn/fuse.py": ["train-scores must be given"],
    "learn/predict.py": ["checkpoint must be given", "method svm needs scores"],
    "learn/scores.py": ["no video has a label"],
    "learn/train_setup.py": ["the training videos are not those"],
    "look/compare.py": ["configs must have the same decoding"],
    "look/show.py": ["flow is only for frames"],
    "run/options.py": ["runtime_env must be given to ray.init"],
    "processes.py": ["a worker process was ended"],
    "video/decord_reader.py": ["the decoder decord is not installed"],
    "inputs/manifest.py": ["VIDEOS is empty"],
}
"""Messages, by their beginning, on what is not there, or is one thing alone: they have no value."""


def exempt(message: Message, exceptions: dict[str, list[str]]) -> bool:
    return any(message.template.startswith(text) for text in exceptions.get(message.file, ()))


def problems(message: Message) -> list[str]:
    """Returns what a message lacks."""
    text, found = message.template, []
    if not text or text != text.strip():
        found.append("is empty, or begins or ends with a blank")
    if match := BANNED.search(message.words):
        found.append(f"says {match[0]!r}")
    if message.is_plain_string and re.search(r"\{[a-z_.]+\}", text):
        found.append("has braces and is no f-string")
    if re.search(r"[a-z,;]  +[a-z]|;[a-z]| ;| ,", text):
        found.append("has blanks too many or too few")
    if not re.match(r"[{`'\"A-Za-z0-9-]", text):
        found.append("begins with no thing")
    if text.rstrip().endswith((",", ";", ":")):
        found.append("ends in the middle")
    # What is true of one video: its code has words, which stand beside it and give the remedy.
    if message.kind in ("VideoError", "video note"):
        return found
    has_value = message.kind in ("words", "UsageError") or re.search(r"\{\}|\bgot \w+", text)
    if not has_value and not exempt(message, WITHOUT_VALUE):
        found.append("shows no value")
    has_remedy = REMEDY.search(message.words) or RULE.search(message.words)
    if not has_remedy and not exempt(message, WITHOUT_REMEDY):
        found.append("gives no remedy")
    return found


def test_every_message_is_whole() -> None:
    wrong = [
        f"{message.place} {message.kind}: {'; '.join(found)}: {message.template}"
        for message in MESSAGES
        if (found := problems(message))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_kind_of_error_is_collected() -> None:
    kinds = {
        name
        for name in errors.__all__
        if isinstance(kind := getattr(errors, name), type) and issubclass(kind, Exception)
    }
    assert kinds - {"FlowprepError"} == ERRORS
    assert {message.kind for message in MESSAGES} == {
        *ERRORS,
        *USAGE_ERRORS,
        *("note", "video note", "words"),
    }
    assert len(MESSAGES) > 450


def test_every_exception_is_needed() -> None:
    for exceptions in (WITHOUT_REMEDY, WITHOUT_VALUE):
        for file, texts in exceptions.items():
            for text in texts:
                assert any(
                    message.file == file and message.template.startswith(text)
                    for message in MESSAGES
                ), f"{file} has no message {text!r} any more"
    for message in MESSAGES:
        assert not exempt(message, WITHOUT_VALUE) or "{}" not in message.template


@pytest.mark.parametrize(
    ("source", "lack"),
    [
        ("raise InputError(f'{path} has 3 channels')", "gives no remedy"),
        ("raise ConfigError('step must be >= 1')", "shows no value"),
        ("raise ConfigError('step must be >= 1, got {step}')", "has braces and is no f-string"),
        ("raise DatasetError(f'invalid key {key}; rename it')", "says 'invalid'"),
        (
            "raise DatasetError(f'{key} is twice in  it; rename it')",
            "has blanks too many or too few",
        ),
        ("notes.append(f'ignored {count}')", "gives no remedy"),
        ("note = f'ignored {count}'\nfound.notes.append(note)", "gives no remedy"),
        ("found.notes = [f'ignored {count}']", "gives no remedy"),
        ("Found(notes=[f'ignored {count}'])", "gives no remedy"),
        ("raise InputError(f'{path} is none; ' + f'rename {path};')", "ends in the middle"),
        ("raise VideoError('missing', ' it')", "is empty"),
    ],
)
def test_what_a_message_lacks_is_seen(source: str, lack: str) -> None:
    (message,) = messages_of_source(source, "flowprep/video/new.py")
    assert any(lack in problem for problem in problems(message))


@pytest.mark.parametrize(
    "source",
    [
        "raise InputError(f'{path} has 3 channels; name a PNG of flow')",
        "raise ConfigError(f'step must be >= 1, got {step}')",
        "raise ConfigError(f'algorithm {name!r} is not known; did you mean {near}?')",
        "raise VideoError('unreadable', 'the file is empty')",
        "notes.append(f'{count} videos are in no list; add them to one')",
    ],
)
def test_whole_messages_pass(source: str) -> None:
    (message,) = messages_of_source(source, "flowprep/video/new.py")
    assert problems(message) == []
