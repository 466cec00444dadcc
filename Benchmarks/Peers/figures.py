"""What the peers' scripts say and keep of their figures: each is printed and written as soon as it is there."""

import json
import os
import time

START = time.perf_counter()


def say(text):
    print(f"[{time.perf_counter() - START:5.1f} s] {text}", flush=True)


class Figures:
    """Rows and failures, in a file that is whole after each of them; none without a path. `ours` are our microseconds."""

    def __init__(self, path, ours):
        import torch

        self.path, self.ours, self.rows, self.failures = path, ours, [], {}
        self.device = torch.cuda.get_device_name()

    def write(self):
        if not self.path:
            return
        with open(self.path + ".part", "w") as file:
            json.dump({"device": self.device, "rows": self.rows, "failures": self.failures}, file, indent=1)
        os.replace(self.path + ".part", self.path)

    def refused(self, key, label, error):
        """What a library cannot run is a fact about it."""
        import torch

        self.failures[key] = f"{type(error).__name__}: {error}"[:200]
        say(f"{label} {self.failures[key]}")
        torch.cuda.synchronize()
