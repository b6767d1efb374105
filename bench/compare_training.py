"""The ratios that training must hold: `python -m bench.compare_training [--networks small digits] --json FILE`.

The contenders take turns as in `bench.compare`, an epoch each. fastinit's is `fit`; that of a call per step is shown
beside it. The first epochs, in which the others compile, are not counted.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from bench.compare import PAUSE, Target, fresh_processes, options, progress, row, save, table, take_turns
from bench.libraries import machine
from bench.training import NETWORKS, trainer

ROUNDS = 9

# By network and rival: the rival's time over fastinit's, or, where it must not exceed, fastinit's over the rival's.
LIMITS = {
    "small": {"jax": 2, "torch": 5, "torch_compile": 1.3, "numpy": 2},
    "medium": {"jax": 1.1, "torch": 1.4, "torch_compile": 1.3, "numpy": 2},
    "deep": {"jax": 1.1, "torch": 1.5, "torch_compile": 1.3, "numpy": 2},
    "wide": {"jax": 1.0, "torch": 1.4, "torch_compile": 1.3, "numpy": 1.5},
    "digits": {"sklearn": 5},
}
GEMMS = Target("<=", 1.15)
TARGETS = {
    (network, rival): Target(">=", limit) for network, limits in LIMITS.items() for rival, limit in limits.items()
} | {(network, "gemms"): GEMMS for network in NETWORKS if "gemms" in NETWORKS[network].libraries}


def step_times(name: str) -> dict[str, float]:
    """Milliseconds per step of every contender of a network that can run here."""
    network = NETWORKS[name]
    contenders = {library: trainer(library, network) for library in network.libraries}
    calls = {library: contender.train for library, contender in contenders.items() if contender is not None}
    times = take_turns(calls, ROUNDS, pause=PAUSE)
    return {library: 1e3 * seconds / network.all_steps for library, seconds in times.items()}


def value(times: dict[str, float], rival: str, target: Target) -> float:
    """How fastinit stands to a rival, in the sense of the target's sign."""
    return times[rival] / times["fastinit"] if target.sign == ">=" else times["fastinit"] / times[rival]


def summary(times: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """The table's rows out of the times by network, one per process. A rival that cannot run here has no row."""
    rows = []
    for (network, rival), target in TARGETS.items():
        processes = times.get(network, [])
        if processes and rival in processes[0]:
            words = f"{NETWORKS[network].title}: {'time over that of' if target is GEMMS else 'of'} {rival}"
            rows.append(row(words, target, [value(process, rival, target) for process in processes]))
    return rows


def medians(times: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Milliseconds per step by network and library, as rows."""
    rows = []
    for network, processes in times.items():
        middle = {library: statistics.median(process[library] for process in processes) for library in processes[0]}
        cells = {library: f"{middle[library]:.3g}" if library in middle else "" for library in _libraries(times)}
        rows.append({"ms per step": NETWORKS[network].title} | cells)
    return rows


def _libraries(networks: Any) -> list[str]:
    return list(dict.fromkeys(library for network in networks for library in NETWORKS[network].libraries))


def main() -> None:
    parser = options("bench.compare_training", "The ratios that training must hold.")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    arguments = parser.parse_args()
    if arguments.child:
        (network,) = arguments.networks
        print(json.dumps({"network": network, "ms": step_times(network), "machine": machine()}))
        return
    results = []
    for network in arguments.networks:
        progress(network)
        child = ["-m", "bench.compare_training", "--child", "--networks", network]
        results += fresh_processes(child, arguments.processes, progress)
    times = {name: [result["ms"] for result in results if result["network"] == name] for name in arguments.networks}
    rows = summary(times)
    print(table(rows))
    print()
    print(table(medians(times), ("ms per step", *_libraries(times))))
    if arguments.json:
        save(arguments.json, rows, results)


if __name__ == "__main__":
    main()
