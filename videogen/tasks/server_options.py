"""The options of the server: where it listens, and who may use it."""

from dataclasses import dataclass

from videogen.tasks import option_types as types
from videogen.tasks.option import Needs, row, switch

A_SERVER = Needs("serve", "is about the server")


# fmt: off
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Server:
    """Making videos for others."""

    serve: bool = switch(
        "make videos that are asked for over HTTP (OpenAI's API) and on a page; other flags are defaults",
        about_run=True, set_by_chain=True, command_line_only=True,
        excludes=("jobs", "bundle", "resume", "overwrite", "caption_only", "from_metadata", "show",
            "diff", "sheet", "report", "status"))
    host: str = row(types.word, "address that the server listens on; one that others can reach needs --token",
        metavar="ADDRESS", about_run=True, set_by_chain=True, command_line_only=True, default="127.0.0.1",
        needs=A_SERVER)
    port: int = row(types.whole(0, 65535), "port of the server; 0 takes any that is free", metavar="N",
        about_run=True, set_by_chain=True, command_line_only=True, default=8000, needs=A_SERVER)
    token: str | None = row(types.word,
        "what clients must send as 'Authorization: Bearer TOKEN'; better said by $VIDEOGEN_TOKEN",
        metavar="TOKEN", about_run=True, set_by_chain=True, command_line_only=True, needs=A_SERVER)
# fmt: on
