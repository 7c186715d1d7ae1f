"""A small Flower app for tests of a deployment: every node says which folders it was given."""

import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node once, and fail if told to."""
    options = context.run_config
    print(f"greeting {options['greeting']}", flush=True)
    while len(list(grid.get_node_ids())) < int(str(options["nodes"])):
        time.sleep(0.2)
    messages = [Message(RecordDict(), node, "query") for node in sorted(grid.get_node_ids())]
    for reply in grid.send_and_receive(messages, timeout=600):
        print(f"node says {reply.content['folders']['data']} {reply.content['folders']['state']}", flush=True)
    time.sleep(float(str(options["linger"])))
    if options["fail"]:
        raise RuntimeError("told to fail")


@client.query()
def query(message: Message, context: Context) -> Message:
    """Say the folders."""
    folders = ConfigRecord({key: str(context.node_config[key]) for key in ("data", "state")})
    return Message(RecordDict({"folders": folders}), reply_to=message)
