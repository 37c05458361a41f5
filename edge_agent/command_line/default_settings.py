"""``serinus-agent check-config --print-defaults``: a settings file with everything in it.

What has a default stands there as a comment; what the agent cannot know is to be filled in.
"""

import platform
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.command_line import settings
from edge_agent.command_line.settings import Setting

WIDTH = 100
EXAMPLES: dict[str, Any] = {
    "device": "device-1",
    "target": f"cpu-{platform.machine()}-ort",
    "state_dir": "/var/lib/serinus",
    "serving.socket": "/run/serinus/agent.sock",
    "repository.url": "https://fleet.example/repository",
    "repository.trusted_root": "root.json",
    "mqtt.host": "fleet.example",
    "identity.server": "https://fleet.example:8321",
    "identity.ca_file": "fleet-ca.pem",
}
"""For keys without a default; those that are not here get an empty text."""
FIRST = """\
## Settings of serinus-agent. '##' explains; '# key = value' shows a default: take the '# ' away to
## change it, and that of its [section], too. Relative paths are below this file's folder.

"""


def rendered() -> str:
    """The file's text."""
    found = settings.all_settings()
    optional = settings.optional_sections()
    parts = [FIRST, *(_entry(setting, commented=False) for setting in found if not setting.section)]
    for name, section in settings.sections().items():
        away = name in optional
        heading = _comment(settings.section_meaning(section))
        parts.append(f"\n{heading}{'# ' if away else ''}[{name}]\n")
        parts += [_entry(setting, commented=away) for setting in found if setting.section == name]
    return "".join(parts)


def _entry(setting: Setting, *, commented: bool) -> str:
    value = setting.default
    if setting.required:
        value = EXAMPLES.get(setting.path, "")
    else:
        commented = True
    mark = "# " if commented else ""
    given = '""  # not set' if value is None else toml(value)
    return f"{_comment(setting.meaning)}{mark}{setting.key} = {given}\n"


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - 3)
    return "".join(f"## {line}\n" for line in lines)


def toml(value: Any) -> str:
    """A plain value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict():
            inner = ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case str() | Path():
            return msgspec.json.encode(str(value)).decode()  # a basic string of TOML is one of JSON
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a settings file")
