"""NVFlare's Client API around the shared local training; the client of site-k is k - 1."""

import nvflare.client as flare
from local_training import Adapters, LocalTraining

from pilot.bench.rivals.job import Job


def main() -> None:
    """Train whenever the server asks."""
    flare.init()
    client = int(flare.get_site_name().removeprefix("site-")) - 1
    local = LocalTraining(Job.load())
    model = Adapters(local.initial())
    while flare.is_running():
        received = flare.receive()
        model.load_state_dict(received.params)
        model.load(local.train(client, received.current_round + 1, model.state()))
        examples = {"NUM_STEPS_CURRENT_ROUND": local.num_examples(client)}
        flare.send(flare.FLModel(params=model.state_dict(), meta=examples))


if __name__ == "__main__":
    main()
