"""Ranks that answer for shares as planted, beside steps of whole models under TP."""

from tests.suites.probes.test_model import FakeModelWorkers


class FakeShareWorkers(FakeModelWorkers):
    """Two ranks: of layers rank 1 takes twice as long as rank 0 with `layer` seconds, of heads both take `head`."""

    def __init__(self, seconds=10e-3, layer=2e-3, head=1e-3, wrong=None, stretches=None):
        super().__init__(seconds)
        self.stretches = stretches  # by rank, of all layers
        self.layer, self.head, self.wrong = layer, head, wrong or {}
        self.given = None

    def run_command(self, command, arguments, doing):
        if command in ("share", "build"):
            self.given = arguments if command == "share" else None
        if self.given is None:
            return super().run_command(command, arguments, doing)
        self.commands.append((command, arguments))
        computing = range(self.given["ranks"])
        if command == "prove":
            errors = {"layer": 1e-3, "lm_head": 1e-3} | self.wrong
            return [{"errors": errors if rank in computing else {}} for rank in range(2)]
        if command == "walk":
            return [self._timed(rank, arguments["steps"], rank in computing) for rank in range(2)]
        return [{"bytes": 1}, {"bytes": 1}]

    @property
    def _layers(self):
        """Of each rank."""
        return self.given["layers"] // self.given["deployment"]["pp"]

    def _timed(self, rank, steps, computes):
        reply = {"clock": "perf_counter", "seconds": {}, "step_seconds": 0.0}
        if not computes:
            return reply
        layers = self.stretches[rank] if self.stretches else [self.layer * (1 + rank)] * self._layers
        return reply | {
            "seconds": {"layer": [layers] * steps, "lm_head": [[self.head]] * steps},
            "step_seconds": sum(layers) + self.head,
        }
