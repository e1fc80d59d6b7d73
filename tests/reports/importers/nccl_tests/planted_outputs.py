"""Outputs of nccl-tests with made-up times, laid out as its versions lay them out; nobody measured them."""

import json

GPU = "NVIDIA H100 80GB HBM3"
FACTOR = {"all_reduce": 2 * 7 / 8, "all_gather": 7 / 8, "reduce_scatter": 7 / 8, "broadcast": 1, "sendrecv": 1}

# 16384 B / 18.30 us = 0.895 GB/s, x 2·7/8 = 1.567; 1048576 / 35.20 = 29.789, x 1.75 = 52.131;
# 268435456 / 1019.2 = 263.379, x 1.75 = 460.912. In place: 0.9153, 1.6018; 30.1315, 52.7301; 264.338, 462.592.
ALL_REDUCE = """\
# nccl-tests version 2.17.6 nccl-headers=22807 nccl-library=22807
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 8 minBytes 16384 maxBytes 268435456 step: 128(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid   4711 on    node-17 device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   4711 on    node-17 device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#  Rank  2 Group  0 Pid   4711 on    node-17 device  2 [0000:52:00] NVIDIA H100 80GB HBM3
#  Rank  3 Group  0 Pid   4711 on    node-17 device  3 [0000:61:00] NVIDIA H100 80GB HBM3
#  Rank  4 Group  0 Pid   4711 on    node-17 device  4 [0000:9d:00] NVIDIA H100 80GB HBM3
#  Rank  5 Group  0 Pid   4711 on    node-17 device  5 [0000:c3:00] NVIDIA H100 80GB HBM3
#  Rank  6 Group  0 Pid   4711 on    node-17 device  6 [0000:d1:00] NVIDIA H100 80GB HBM3
#  Rank  7 Group  0 Pid   4711 on    node-17 device  7 [0000:df:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place          
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong 
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)         
       16384          4096     float     sum      -1    18.30    0.90    1.57       0    17.90    0.92    1.60       0
     1048576        262144     float     sum      -1    35.20   29.79   52.13       0    34.80   30.13   52.73       0
   268435456      67108864     float     sum      -1   1019.2  263.38  460.91       0   1015.5  264.34  462.59       0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 171.922 
#
# Collective test concluded: all_reduce_perf
"""  # noqa: E501, W291


def line(op="all_reduce", size=1048576, microseconds=35.2, *, each=4, ranks=8, name="float", wrong=("0", "0")):
    """A row as the program prints it for 8 ranks."""
    parts = ranks if op in ("all_gather", "reduce_scatter") else 1
    rate = size / microseconds / 1e3
    half = f"{microseconds:9.2f}{rate:8.2f}{rate * FACTOR[op]:8.2f}"
    redop = "sum" if "reduce" in op else "none"
    root = 0 if op == "broadcast" else -1
    start = f"{size:12}  {size // each // parts:12}  {name:>8}  {redop:>6}  {root:6}"
    return f"{start}{half}{wrong[0]:>8}{half}{wrong[1]:>8}"


def output(*rows, op="all_reduce", bounds="0 OK"):
    """A whole run of 8 ranks with other rows."""
    head, _, tail = ALL_REDUCE.partition("       16384 ")
    tail = tail[tail.index("# Out") :].replace("0 OK", bounds)
    whole = head + "\n".join(rows) + "\n" + tail
    return whole.replace("all_reduce_perf", f"{op}_perf")


def document(**changed):
    """What -J writes for the second row: a process of 8 GPUs, of which it lists the first alone."""
    rate = 1048576 / 35.2 / 1e3
    half = {"time": 35.2, "alg_bw": round(rate, 6), "bus_bw": round(rate * 1.75, 6), "nwrong": 0.0}
    result = {"size": 1048576, "count": 262144, "type": "float", "redop": "sum", "root": "    -1"}
    device = {"rank": 0, "group": 0, "pid": 4711, "hostname": "node-17", "device": 0, "device_hex": "0000:1b:00"}
    config = {"nthreads": 1, "ngpus": 8, "iterations": 20, "aggregated_iterations": 1, "graph": 0}
    content = {
        "version": 2,
        "args": ["/home/somebody/build/all_reduce_perf", "-J", "out.json"],
        "env": ["USER=somebody", "TOKEN=hunter2"],
        "nccl_version": 22807,
        "config": config | {"blocking_collectives": "false", "devices": [device | {"device_info": GPU}]},
        "results": [result | {"out_of_place": half, "in_place": half, "actual_iterations": 20}],
        "out_of_bounds": {"count": 0, "okay": "true"},
    }
    return json.dumps(content | changed)
