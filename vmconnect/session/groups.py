"""Groups of machines that a user has named: ``$XDG_CONFIG_HOME/vmconnect/groups.toml``.

Each is a list of what a target may be, patterns and other groups too (TOML, https://toml.io)::

    web = ["web*", "ssh://kvm7/web09"]
    site = ["@web", "@db", "cache01"]

``@site`` then means all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmconnect.errors import ResourceError, TargetError
from vmconnect.paths import config_directory
from vmconnect.settings import read_toml

__all__ = ["MARK", "expanded", "group_names", "groups_path"]

MARK = "@"
"""What a group's name has before it where targets have none."""


def groups_path() -> Path:
    """Return where the groups are, if there are any."""
    return config_directory() / "groups.toml"


def group_names() -> list[str]:
    """Return the names of all groups; raises ResourceError as `expanded` does."""
    return sorted(_groups())


def expanded(texts: list[str] | tuple[str, ...]) -> list[str]:
    """Return the targets and patterns that are meant, each once: groups become what is in them.

    Raises TargetError for a group that does not exist or is in itself, and ResourceError when the
    file cannot be read, or is not as it should be.
    """
    groups = _groups() if any(text.startswith(MARK) for text in texts) else {}
    found: dict[str, None] = {}
    done: set[str] = set()
    for text in texts:
        for each in _members(text, groups, (), done):
            found[each] = None
    return list(found)


def _members(
    text: str, groups: dict[str, list[str]], within: tuple[str, ...], done: set[str]
) -> Iterator[str]:
    """Give what a text means; nothing for a group of which all has been given."""
    if not text.startswith(MARK):
        yield text
        return
    name = text.removeprefix(MARK)
    if name in within:
        chain = " > ".join([*within[within.index(name) :], name])
        raise TargetError(f"the group {name} is in itself: {chain}", hint=f"mend {groups_path()}")
    if name not in groups:
        known = ", ".join(sorted(groups)) or "none"
        raise TargetError(f"there is no group {name!r}", hint=f"{groups_path()} has: {known}")
    if name not in done:
        for each in groups[name]:
            yield from _members(each, groups, (*within, name), done)
        done.add(name)


def _groups() -> dict[str, list[str]]:
    path = groups_path()
    if not path.exists():
        return {}
    groups: dict[str, list[str]] = {}
    for name, members in read_toml(path).items():
        if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
            raise ResourceError(
                f"{path}: {name} is no list of targets", hint=f'write {name} = ["web01", "web02"]'
            )
        groups[name] = members
    return groups
