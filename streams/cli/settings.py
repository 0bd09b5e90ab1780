"""`mdr settings`."""

from schemas import native
from streams import settings
from streams.cli.common import cli, json_option
from streams.terminal import print_json, print_table


@cli.command("settings")
@json_option
def settings_command(as_json: bool) -> None:
    """Every setting, its value, where it came from, what it means; and whether the compiled part is there."""
    shown = settings.show()
    settings.load()
    compiled = "no" if native.missing else "yes"
    shown.append(settings.Shown("compiled part", compiled, "build", native.missing or "the hot path runs in C"))
    if as_json:
        for line in shown:
            print_json(line._asdict())
    else:
        print_table(("setting", "value", "from", "meaning"), shown)
