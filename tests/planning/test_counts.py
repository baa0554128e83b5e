"""Programs whose cost is known by hand, as the TPU compiler writes them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from s1_jax.errors import RunError
from s1_jax.planning.counts import count
from s1_jax.planning.groups import mesh_axes
from s1_jax.planning.hlo import parse, trip_count
from tests.planning.programs import AXES, LAYERS, ROWS, SENDS, SENT, WIDTH

LAYER = 2 * ROWS * WIDTH * WIDTH  # FLOPs
WEIGHT, INPUT = 2 * WIDTH * WIDTH, 2 * ROWS * WIDTH  # bytes
SLACK = 1.02  # of bytes: loop counters and the like


def test_flops_agree_with_xlas_own_count_where_there_is_no_loop(compiled):
    for name, by_hand in (("matmul", LAYER), ("batched", 2 * 6 * 384 * 128 * 512)):
        assert count(compiled.modules[name], 1).matmul_flops == compiled.costs[name] == by_hand


def test_a_scan_counts_as_often_as_it_runs(compiled):
    assert count(compiled.modules["stack_of_matmuls"], 1).matmul_flops == LAYERS * LAYER
    assert compiled.costs["stack_of_matmuls"] < 1.1 * LAYER  # why this room counts by itself
    assert count(compiled.modules["gradients"], 1).matmul_flops == 3 * LAYERS * LAYER


def test_a_loop_whose_bound_is_an_argument_runs_as_often_as_the_caller_says(compiled):
    for trips in (1, 4):
        assert count(compiled.modules["micro_batches"], trips).matmul_flops == trips * LAYERS * LAYER


def test_memory_counts_the_slice_of_a_stack_and_not_the_stack(compiled):
    assert count(compiled.modules["matmul"], 1).hbm_bytes == 2 * INPUT + WEIGHT
    for name, layers in (("stack_of_matmuls", LAYERS), ("large_stack", 100)):
        moved = count(compiled.modules[name], 1).hbm_bytes
        assert layers * WEIGHT + 2 * INPUT <= moved < SLACK * (layers * WEIGHT + 2 * INPUT)


def test_collectives_by_kind_axis_and_bytes(compiled):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), AXES)
    found = {
        collective.kind: (mesh_axes(collective.groups, mesh), collective.bytes, times)
        for collective, times in count(compiled.modules["collectives"], 1).collectives.items()
    }
    own = 4 * SENT[0] * SENT[1]
    assert found == {
        "all-gather": (("fsdp",), 2 * own, SENDS),
        "all-reduce": (("tensor",), own, SENDS),
        "reduce-scatter": (("tensor",), own, SENDS),
        "all-to-all": (("fsdp",), 2 * own, SENDS),
        "collective-permute": (("tensor",), own, SENDS),
    }


def loop(start: str, step: str, condition: str) -> str:
    """A program whose entry and a loop body each hold a loop over a counter and something passed through."""
    return f"""HloModule m, num_partitions=4

%body (p: (s32[], s32[])) -> (s32[], s32[]) {{
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %bound = s32[] get-tuple-element(%p), index=1
  %step = s32[] constant({step})
  %next = s32[] add(%i, %step)
  ROOT %t = (s32[], s32[]) tuple(%next, %bound)
}}

%cond (q: (s32[], s32[])) -> pred[] {{
  %q = (s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %limit = s32[] get-tuple-element(%q), index=1
  ROOT %c = pred[] compare(%j, %limit), direction={condition}
}}

ENTRY %main (x: s32[]) -> s32[] {{
  %x = s32[] parameter(0)
  %start = s32[] constant({start})
  %ten = s32[] constant(10)
  %state = (s32[], s32[]) tuple(%start, %ten)
  %known = (s32[], s32[]) while(%state), condition=%cond, body=%body
  %other = (s32[], s32[]) tuple(%start, %x)
  %unknown = (s32[], s32[]) while(%other), condition=%cond, body=%body
  ROOT %out = s32[] get-tuple-element(%known), index=0
}}
"""


@pytest.mark.parametrize(
    "start,step,condition,trips",
    [("0", "1", "LT", 10), ("0", "3", "LT", 4), ("0", "1", "LE", 11), ("20", "-2", "GT", 5), ("10", "1", "LT", 0)],
)
def test_trip_counts(start, step, condition, trips):
    module = parse(loop(start, step, condition))
    entry = module[module.entry]
    assert trip_count(module, entry, entry["known"], {})[0] == trips
    assert trip_count(module, entry, entry["unknown"], {})[0] is None
    assert module.partitions == 4
    assert module.executions(7)["body"] == trips + 7


def test_a_trip_count_the_compiler_states_is_taken():
    text = loop("0", "1", "LT").replace(
        "body=%body\n  %other", 'body=%body, backend_config={"known_trip_count":{"n":"6"}}\n  %other'
    )
    assert parse(text).executions(0)["body"] == 6


@pytest.mark.parametrize("order", ["%in_time, %going", "%going, %in_time"])
def test_a_loop_that_may_end_earlier_runs_to_its_bound(order):
    """Like the loop over a draft, which ends once no row can continue."""
    early = f"""%in_time = pred[] compare(%j, %limit), direction=LT
  %going = pred[] custom-call(), custom_call_target="SomeRowGoesOn"
  ROOT %c = pred[] and({order})"""
    text = loop("0", "3", "LT").replace("ROOT %c = pred[] compare(%j, %limit), direction=LT", early)
    module = parse(text)
    entry = module[module.entry]
    assert early in text and trip_count(module, entry, entry["known"], {})[0] == 4
    assert trip_count(module, entry, entry["unknown"], {})[0] is None


def test_a_loop_of_unknown_length_within_a_loop_is_refused():
    inner = loop("0", "1", "LT").replace("ENTRY %main", "%main").replace("ROOT %out = s32[]", "%out = s32[]")
    outer = """
ENTRY %outer (y: (s32[], s32[])) -> (s32[], s32[]) {
  %y = (s32[], s32[]) parameter(0)
  ROOT %w = (s32[], s32[]) while(%y), condition=%cond, body=%main
}
"""
    module = parse(inner.replace("  %out =", "  ROOT %out =") + outer)
    with pytest.raises(RunError, match="unknown length, unknown"):
        module.executions(1)


ASYNCHRONOUS = """HloModule m, num_partitions=4

%start (p: bf16[8,128]) -> (bf16[8,128], bf16[16,128], s32[2]) {
  %p = bf16[8,128]{1,0} parameter(0)
  %gather.1 = bf16[16,128]{1,0} all-gather(%p), replica_groups=[2,2]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %begun = (bf16[8,128]{1,0}, bf16[16,128]{1,0}, s32[2]{0:S(4)}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%behind (q: bf16[8,128], r: bf16[16,128], x: bf16[32,64], y: bf16[64,16]) -> (bf16[32,16], bf16[8,128], bf16[16,128]) {
  %q = bf16[8,128]{1,0} parameter(0)
  %r = bf16[16,128]{1,0} parameter(1)
  %x = bf16[32,64]{1,0} parameter(2)
  %y = bf16[64,16]{1,0} parameter(3)
  %product = bf16[32,16]{1,0} convolution(%x, %y), dim_labels=bf_io->bf
  %gather.2 = bf16[16,128]{1,0} all-gather(%q), replica_groups=[2,2]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %both = (bf16[32,16]{1,0}, bf16[8,128]{1,0}, bf16[16,128]{1,0}) tuple(%product, %q, %gather.2)
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %added = f32[] add(%a, %b)
}

%scattered (g: f32[64,128]) -> f32[16,128] {
  %g = f32[64,128]{1,0} parameter(0)
  %summed = f32[64,128]{1,0} all-reduce(%g), replica_groups=[1,4]<=[4], to_apply=%sum
  %zero = s32[] constant(0)
  ROOT %own = f32[16,128]{1,0} dynamic-slice(%summed, %zero, %zero), dynamic_slice_sizes={16,128}
}

ENTRY %main (p: bf16[8,128], x: bf16[32,64], y: bf16[64,16], g: f32[64,128], kept: bf16[6,8,128]) -> bf16[32,16] {
  %p.1 = bf16[8,128]{1,0} parameter(0)
  %x.1 = bf16[32,64]{1,0} parameter(1)
  %y.1 = bf16[64,16]{1,0} parameter(2)
  %g.1 = f32[64,128]{1,0} parameter(3)
  %kept = bf16[6,8,128]{2,1,0:S(5)} parameter(4)
  %zero.1 = s32[] constant(0)
  %put = ((bf16[6,8,128]{2,1,0:S(5)}, bf16[1,8,128]{2,1,0}, s32[]), bf16[6,8,128]{2,1,0:S(5)}, u32[]{:S(2)}) dynamic-update-slice-start(%kept, %p.1, %zero.1, %zero.1, %zero.1)
  %stored = bf16[6,8,128]{2,1,0:S(5)} dynamic-update-slice-done(%put)
  %fetch = ((bf16[6,8,128]{2,1,0:S(5)}, s32[]), bf16[1,8,128]{2,1,0}, u32[]{:S(2)}) dynamic-slice-start(%stored, %zero.1, %zero.1, %zero.1), dynamic_slice_sizes={1,8,128}
  %fetched = bf16[1,8,128]{2,1,0} dynamic-slice-done(%fetch)
  %started = (bf16[8,128]{1,0}, bf16[16,128]{1,0}, s32[2]{0:S(4)}) fusion(%p.1), kind=kCustom, calls=%start
  %operand = bf16[8,128]{1,0} get-tuple-element(%started), index=0
  %result = bf16[16,128]{1,0} get-tuple-element(%started), index=1
  %meanwhile = (bf16[32,16]{1,0}, bf16[8,128]{1,0}, bf16[16,128]{1,0}) fusion(%operand, %result, %x.1, %y.1), kind=kOutput, calls=%behind
  %mine = f32[16,128]{1,0} fusion(%g.1), kind=kCustom, calls=%scattered
  ROOT %out = bf16[32,16]{1,0} get-tuple-element(%meanwhile), index=0
}
"""  # noqa: E501


def test_an_asynchronous_collective_counts_once_and_hides_no_matmul():
    """As libtpu writes them: the gather stands again in each fusion it runs behind; a reduce-scatter is two things."""
    counts = count(parse(ASYNCHRONOUS), 1)
    found = {(collective.kind, collective.bytes, len(collective.groups)) for collective in counts.collectives}
    assert found == {("all-gather", 2 * 16 * 128, 2), ("reduce-scatter", 4 * 64 * 128, 1)}
    assert set(counts.collectives.values()) == {1}
    assert counts.matmul_flops == 2 * 32 * 64 * 16


def test_what_waits_in_the_hosts_memory_is_counted_apart():
    counts = count(parse(ASYNCHRONOUS), 1)
    layer = 2 * 8 * 128
    assert counts.host_bytes == 2 * layer  # put there, and fetched
    gathered, matmul, scattered = layer + 2 * 16 * 128, 2 * (32 * 64 + 64 * 16 + 32 * 16), 4 * (64 + 16) * 128
    assert counts.hbm_bytes == 2 * layer + gathered + matmul + scattered


FUSED_KERNEL = """HloModule m

%with_kernel (p: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0} parameter(0)
  %splash_dkv.7 = bf16[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call"
  ROOT %sum = bf16[8,128]{1,0} add(%splash_dkv.7, %p)
}

ENTRY %main (x: bf16[8,128]) -> bf16[8,128] {
  %x = bf16[8,128]{1,0} parameter(0)
  %splash_fwd.1 = bf16[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call"
  %other.2 = bf16[8,128]{1,0} custom-call(%splash_fwd.1), custom_call_target="ResizeNearest"
  ROOT %fused.3 = bf16[8,128]{1,0} fusion(%other.2), kind=kOutput, calls=%with_kernel
}
"""


def test_a_kernel_counts_by_itself_and_where_it_is_fused_with_a_neighbour():
    assert count(parse(FUSED_KERNEL), 1).kernels == {"splash_fwd": 1, "splash_dkv": 1}


IN_PLACE = """HloModule m

%appended (q: bf16[8,128], cache: bf16[64,128]) -> (f32[8,128], bf16[64,128]) {
  %q = bf16[8,128]{1,0} parameter(0)
  %cache = bf16[64,128]{1,0} parameter(1)
  %both = (f32[8,128]{1,0}, bf16[64,128]{1,0}) custom-call(%q, %cache), custom_call_target="tpu_custom_call", output_to_operand_aliasing={{1}: (1, {})}
  %out = f32[8,128]{1,0} get-tuple-element(%both), index=0
  %stored = bf16[64,128]{1,0} get-tuple-element(%both), index=1
  ROOT %results = (f32[8,128]{1,0}, bf16[64,128]{1,0}) tuple(%out, %stored)
}

ENTRY %main (x: bf16[8,128], kept: bf16[64,128]) -> bf16[64,128] {
  %x = bf16[8,128]{1,0} parameter(0)
  %kept = bf16[64,128]{1,0} parameter(1)
  %first = (f32[8,128]{1,0}, bf16[64,128]{1,0}) custom-call(%x, %kept), custom_call_target="tpu_custom_call", output_to_operand_aliasing={{1}: (1, {})}
  %cache.1 = bf16[64,128]{1,0} get-tuple-element(%first), index=1
  %second = (f32[8,128]{1,0}, bf16[64,128]{1,0}) fusion(%x, %cache.1), kind=kCustom, calls=%appended
  ROOT %cache.2 = bf16[64,128]{1,0} get-tuple-element(%second), index=1
}
"""  # noqa: E501


def test_a_kernel_that_works_in_place_reads_its_operand_and_writes_no_copy_of_it():
    assert count(parse(IN_PLACE), 1).hbm_bytes == 2 * (2 * 8 * 128 + 2 * 64 * 128 + 4 * 8 * 128)
