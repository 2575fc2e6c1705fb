"""Every algorithm, environment and component with its one line, without importing any of them."""

from shoal import registry
from shoal.config import files


def list_components() -> str:
    """What ``--list`` prints."""
    sections = [
        ("algorithms (--config)", [(n, files.one_line("algs", n)) for n in files.names("algs")]),
        ("environments (--env-config)", [(n, files.one_line("envs", n)) for n in files.names("envs")]),
    ]
    titles = {"env": "environment suites (env)", "mac": "controllers (mac)"}
    for kind, names in registry.COMPONENTS.items():
        rows = [(name, registry.one_line(kind, name)) for name in names]
        sections.append((titles.get(kind, f"{kind.replace('_', ' ')}s ({kind})"), rows))
    lines = []
    for title, rows in sections:
        lines += [title, *(f"  {name:<20} {text}" for name, text in rows), ""]
    return "\n".join(lines).rstrip()
