"""`mdr settings`."""

from streams import settings
from streams.cli.common import cli, json_option
from streams.terminal import print_json, print_table


@cli.command("settings")
@json_option
def settings_command(as_json: bool) -> None:
    """Every setting, its value, where it came from, what it means."""
    shown = settings.show()
    settings.load()
    if as_json:
        for line in shown:
            print_json(line._asdict())
    else:
        print_table(("setting", "value", "from", "meaning"), shown)
