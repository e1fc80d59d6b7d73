"""Traces with planted times, written as `nsys export --type sqlite` does, by the documented schema.

https://docs.nvidia.com/nsight-systems/UserGuide/index.html, SQLite Schema Reference, as of 2024.6 (schema 3.16). All
times here are in microseconds; the tables hold nanoseconds.
"""

import sqlite3

DDL = {
    "StringIds": "id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL",
    "META_DATA_EXPORT": "name TEXT NOT NULL, value TEXT",
    "TARGET_INFO_SYSTEM_ENV": (
        "globalVid INTEGER, devStateName TEXT NOT NULL, name TEXT NOT NULL, nameEnum INTEGER NOT NULL, "
        "value TEXT NOT NULL"
    ),
    "TARGET_INFO_GPU": (
        "vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT, isDiscrete INTEGER, "
        "l2CacheSize INTEGER, totalMemory INTEGER, memoryBandwidth INTEGER, clockRate INTEGER, smCount INTEGER, "
        "pwGpuId INTEGER, uuid TEXT, luid INTEGER, chipName TEXT, cuDevice INTEGER, computeMajor INTEGER, "
        "computeMinor INTEGER, smMajor INTEGER, smMinor INTEGER"
    ),
    "NVTX_EVENTS": (
        "start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER, category INTEGER, "
        "color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER, domainId INTEGER, "
        "uint64Value INTEGER, int64Value INTEGER, doubleValue REAL, uint32Value INTEGER, int32Value INTEGER, "
        "floatValue REAL, jsonTextId INTEGER, jsonText TEXT, binaryData TEXT"
    ),
    "CUPTI_ACTIVITY_KIND_RUNTIME": (
        "start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL, globalTid INTEGER, "
        "correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, "
        "greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER, "
        "demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL, mangledName INTEGER, launchType INTEGER, "
        "cacheConfig INTEGER, registersPerThread INTEGER NOT NULL, gridX INTEGER NOT NULL, gridY INTEGER NOT NULL, "
        "gridZ INTEGER NOT NULL, blockX INTEGER NOT NULL, blockY INTEGER NOT NULL, blockZ INTEGER NOT NULL, "
        "staticSharedMemory INTEGER NOT NULL, dynamicSharedMemory INTEGER NOT NULL, "
        "localMemoryPerThread INTEGER NOT NULL, localMemoryTotal INTEGER NOT NULL, gridId INTEGER NOT NULL, "
        "sharedMemoryExecuted INTEGER, graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_MEMCPY": (
        "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, "
        "greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER, "
        "bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL, deprecatedSrcId INTEGER, srcKind INTEGER, "
        "dstKind INTEGER, srcDeviceId INTEGER, srcContextId INTEGER, dstDeviceId INTEGER, dstContextId INTEGER, "
        "migrationCause INTEGER, graphNodeId INTEGER, virtualAddress INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": (
        "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, "
        "greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER, "
        "graphId INTEGER, graphExecId INTEGER"
    ),
}
HOST = "gpu-node-17.example"
CASE = "suites/bench_linears.py::bench_decode[planted]"
RUNTIME, KERNEL, NVTX = "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL", "NVTX_EVENTS"
MEMCPY, GRAPH = "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"


class Trace:
    """Rows of a trace; `gpu` is the device's name."""

    def __init__(self, gpu="NVIDIA H100 80GB HBM3"):
        self.rows = {name: [] for name in ("META_DATA_EXPORT", "TARGET_INFO_SYSTEM_ENV", "TARGET_INFO_GPU")}
        self.strings = {}
        self.domains = set()
        self.launches = 0
        self.add("META_DATA_EXPORT", name="EXPORT_PRODUCT_VERSION", value="2024.6.2.225")
        self.add("TARGET_INFO_SYSTEM_ENV", devStateName="", name="Hostname", nameEnum=1, value=HOST)
        memory = {"totalMemory": 85_017_493_504, "smCount": 132, "l2CacheSize": 52_428_800}
        self.add("TARGET_INFO_GPU", vmId=0, id=0, name=gpu, cuDevice=0, computeMajor=9, computeMinor=0, **memory)

    def add(self, table, **row):
        """A row; whatever is NOT NULL and not given is 0."""
        self.rows.setdefault(table, []).append(row)

    def string(self, text):
        return self.strings.setdefault(text, len(self.strings) + 1)

    def event(self, kind, text, start, end=None, *, domain="shardbench", pid=100, tid=1, **more):
        if domain and (pid, domain) not in self.domains:
            self.domains.add((pid, domain))
            self.event_row(75, 0, None, pid, 1, text=domain, domainId=self.domain(domain))
            self.event_row(33, 0, None, pid, 1, text="decode", category=1, domainId=self.domain(domain))
        ids = {"textId": self.string(text), "domainId": self.domain(domain)}
        self.event_row(kind, start, end, pid, tid, **ids, **more)

    def event_row(self, kind, start, end, pid, tid, **more):
        ends = None if end is None else ns(end)
        self.add(NVTX, start=ns(start), end=ends, eventType=kind, globalTid=thread(pid, tid), **more)

    @staticmethod
    def domain(name):
        return {None: 0, "shardbench": 1}.get(name, 2)

    def range(self, name, start, end, **more):
        self.event(59, name, start, end, category=1, int64Value=0, **more)

    def visit(self, start, end, timed, case=CASE, call=None, **more):
        """A case's range with `timed` from..to, and with a `call` from..to in a warm-up around it."""
        self.range(case, start, end, **more)
        if call:
            self.range("warm-up", call[0] - 1, call[1] + 1, **more)
            self.range("call", *call, **more)
        self.range("timed", *timed, **more)

    def tell(self, at, calls=None, seconds=None, **more):
        """The marks behind the samples."""
        if calls is not None:
            self.event(34, "calls", at, category=1, int64Value=calls, **more)
        if seconds is not None:
            self.event(34, "seconds a call", at, category=1, doubleValue=seconds, **more)

    def launch(self, at, *, name="cudaLaunchKernel_v7000", pid=100, tid=1, number=None):
        self.launches = number or self.launches + 1
        times = {"start": ns(at), "end": ns(at + 0.5)}
        self.add(RUNTIME, **times, globalTid=thread(pid, tid), correlationId=self.launches, nameId=self.string(name))
        return self.launches

    def kernel(self, number, start, end, name="gemm", *, pid=100, stream=7, node=None, table=KERNEL):
        names = {"demangledName": self.string(f"void {name}<float>(int)"), "shortName": self.string(name)}
        where = {"globalPid": thread(pid, 0), "streamId": stream, "correlationId": number}
        more = {KERNEL: dict(names, graphNodeId=node), MEMCPY: {"graphNodeId": node}}.get(table, {})
        self.add(table, start=ns(start), end=ns(end), **where, **more)

    def eager(self, at, start, end, name="gemm", **more):
        """One launch and its kernel."""
        who = {key: more[key] for key in ("pid", "tid", "number") if key in more}
        rest = {key: more[key] for key in more if key not in ("tid", "number")}
        self.kernel(self.launch(at, **who), start, end, name, **rest)

    def write(self, path, without=(), dropped=None):
        """The file, less some tables, and less the columns of `dropped` by table."""
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as database:
            tables = {
                "StringIds": [{"id": number, "value": text} for text, number in self.strings.items()],
                **self.rows,
            }
            for table, rows in tables.items():
                if table in without:
                    continue
                columns = {one.split()[0]: one for one in DDL[table].split(", ")}
                for column in (dropped or {}).get(table, ()):
                    del columns[column]
                database.execute(f"CREATE TABLE {table} ({', '.join(columns.values())})")
                marks = ", ".join("?" * len(columns))
                values = [
                    [row.get(name, 0 if "NOT NULL" in column else None) for name, column in columns.items()]
                    for row in rows
                ]
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
        database.close()
        return path


def ns(microseconds):
    return round(1000 * microseconds)


def thread(pid, tid):
    """Serialised: hardware, machine, process and thread."""
    return 1 << 56 | pid << 24 | tid
