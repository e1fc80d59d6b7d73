"""Every collective that can be probed."""

from comm.all_gather import ALL_GATHER
from comm.all_reduce import ALL_REDUCE
from comm.all_reduce_rmsnorm import ALL_REDUCE_RMSNORM
from comm.broadcast import BROADCAST
from comm.collective import Collective
from comm.exchange import EXCHANGE
from comm.peer_copy import PEER_COPY
from comm.ping_pong import PING_PONG
from comm.reduce_scatter import REDUCE_SCATTER
from comm.ring_shift import RING_SHIFT
from comm.send_recv import SEND_RECV

_ROWS = (
    *(ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, SEND_RECV, EXCHANGE, RING_SHIFT, PING_PONG, PEER_COPY),
    ALL_REDUCE_RMSNORM,
)
COLLECTIVES: dict[str, Collective] = {row.op: row for row in _ROWS}
"""By name; a line here adds one."""
