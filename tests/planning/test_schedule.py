"""Programs written by hand whose time is known: on a 2 x 2 slice, a dot over k elements takes k s, a byte sent 1 s."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from s1_jax.chips import Chip, chip_of
from s1_jax.planning.counts import count
from s1_jax.planning.hlo import parse
from s1_jax.planning.roofline import MATMUL_SHARE, seconds
from s1_jax.planning.schedule import Kernel, Schedule

CHIP = Chip("test", (), peak_flops=2 / MATMUL_SHARE, hbm_bandwidth=1e9, link_bandwidth=1.0, torus=2, wrap=16)
X, Y = "{{0,2},{1,3}}", "{{0,1},{2,3}}"
UP, DOWN, ACROSS = "{{0,1},{2,3}}", "{{1,0},{3,2}}", "{{0,2},{1,3}}"
NEAR = pytest.approx


def slice_of(*shape):
    devices = np.empty(shape, object)
    for place in itertools.product(*map(range, shape)):
        devices[place] = SimpleNamespace(coords=place)
    return SimpleNamespace(devices=devices, size=devices.size, axis_names=("x", "y", "z")[: len(shape)])


def timing(text, trips=1, kernels=None, chip=CHIP, mesh=None, **options):
    """The times of a program, with what holds for every one of them."""
    told = Schedule(parse(text), mesh or slice_of(2, 2), chip, **options).timing(trips, kernels or {})
    assert told.exposed.total() + told.hidden.total() == NEAR(told.links.total())
    assert all(0 <= told.exposed[kind] <= spent * (1 + 1e-9) for kind, spent in told.links.items())
    return told


def entry(*lines):
    return "\n".join(["HloModule m, num_partitions=4", "", *computation("ENTRY %main", *lines)])


def computation(head, *lines):
    return [
        f"{head} (p: s32[]) -> s32[] {{",
        "  %p = s32[] parameter(0)",
        *lines,
        "  ROOT %r = s32[] copy(%p)",
        "}",
        "",
    ]


def work(k, name="w"):
    return (
        f"  %{name}.a = f32[1,{k}] parameter(1)\n  %{name}.b = f32[{k},1] parameter(2)\n"
        f"  %{name} = f32[1,1] dot(%{name}.a, %{name}.b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
    )


def gather(k, groups, name="g"):
    return (
        f"  %{name}.own = s8[{k}] parameter(1)\n"
        f"  %{name} = s8[{2 * k}] all-gather(%{name}.own), channel_id=1, replica_groups={groups}, dimensions={{0}}"
    )


def start(k, groups, name="g"):
    return (
        f"  %{name}.own = s8[{k}] parameter(1)\n"
        f"  %{name} = (s8[{k}], s8[{2 * k}]) all-gather-start(%{name}.own), channel_id=1, replica_groups={groups}"
    )


def done(k, name="g"):
    return f"  %{name}.end = s8[{2 * k}] all-gather-done(%{name})"


def permute(k, pairs, name):
    return (
        f"  %{name}.own = s8[{k}] parameter(1)\n"
        f"  %{name} = (s8[{k}], s8[{k}]) collective-permute-start(%{name}.own), source_target_pairs={pairs}"
    )


def permuted(k, name):
    return f"  %{name}.end = s8[{k}] collective-permute-done(%{name})"


def test_a_synchronous_collective_is_waited_for():
    told = timing(entry(work(3), gather(2, Y)))
    assert told.seconds == NEAR(5) and told.exposed == {("all-gather", "y"): NEAR(2)} and told.hidden.total() == 0


@pytest.mark.parametrize("meanwhile,total", [(3, 3), (2, 2), (1, 2)])
def test_an_asynchronous_one_costs_what_is_left_of_it(meanwhile, total):
    told = timing(entry(start(2, Y), work(meanwhile), done(2)))
    assert told.seconds == NEAR(total) and told.exposed.total() == NEAR(total - meanwhile)
    assert told.hidden["all-gather", "y"] == NEAR(min(meanwhile, 2))


def test_moving_a_collective_behind_work_lowers_the_time_and_moving_it_out_raises_it():
    begins, ends, first, second = start(2, X), done(2), work(1, "v"), work(1)
    orders = [(first, second, begins, ends), (first, begins, second, ends), (begins, first, second, ends)]
    assert [timing(entry(*lines)).seconds for lines in orders] == [NEAR(4), NEAR(3), NEAR(2)]


@pytest.mark.parametrize("other,total", [(Y, 4), (X, 3)])
def test_a_link_carries_one_collective_at_a_time(other, total):
    told = timing(entry(start(2, Y, "g"), start(2, other, "h"), work(3), done(2, "g"), done(2, "h")))
    assert told.seconds == NEAR(total) and told.exposed.total() == NEAR(total - 3)


def test_a_wait_for_the_link_is_that_of_the_collective_which_holds_it():
    told = timing(entry(start(2, Y), permute(3, UP, "h"), permuted(3, "h"), work(1), done(2)))
    assert told.seconds == NEAR(6)
    assert told.exposed == {("all-gather", "y"): NEAR(2), ("collective-permute", "y"): NEAR(3)}
    synchronous = timing(entry(start(2, Y), work(1), gather(3, Y, "h"), done(2)))
    assert synchronous.seconds == NEAR(5) and synchronous.hidden.total() == NEAR(1)


@pytest.mark.parametrize("other,total", [(DOWN, 2), (ACROSS, 2), (UP, 4)])
def test_permutes_in_opposite_directions_or_over_other_axes_run_at_the_same_time(other, total):
    lines = permute(2, UP, "a"), permute(2, other, "b"), work(1), permuted(2, "a"), permuted(2, "b")
    assert timing(entry(*lines)).seconds == NEAR(total)


def offloaded(k, groups, *between, late=False):
    """A gather on another core, as libtpu 0.0.42 writes it; or `late`, as 0.0.46 may: operands come in an update."""
    called = f"""%called (own: s8[{k}]) -> s8[{2 * k}] {{
  %own = s8[{k}] parameter(0)
  ROOT %all = s8[{2 * k}] all-gather(%own), channel_id=1, replica_groups={groups}, dimensions={{0}}
}}, execution_thread="sparsecore"
"""
    begins = [f"  %g = ((s8[{k}]), s8[{2 * k}]) call-start(%p), to_apply=%called"]
    if late:
        begins = [
            "  %s = ((), (), s32[]) call-start(), to_apply=%called",
            *between[:1],
            f"  %g = ((s8[{k}]), s8[{2 * k}]) call-update(%s, %p)",
        ]
    body = computation("ENTRY %main", *begins, *between[late:], f"  %g.end = s8[{2 * k}] call-done(%g)")
    return "\n".join(["HloModule m, num_partitions=4", "", called, *body])


@pytest.mark.parametrize("late", [False, True])
def test_a_collective_on_another_core_is_asynchronous(late):
    """With operands that come late, it begins after the work before them."""
    told = timing(offloaded(2, Y, work(1), work(1, "v"), late=late))
    assert told.links == {("all-gather", "y"): NEAR(2)}
    assert told.seconds == NEAR(3 if late else 2) and told.exposed.total() == NEAR(1 if late else 0)


def loop(trips, *body, before=(), after=()):
    """A loop with `trips` iterations, or as many as an argument says if it is None."""
    bound = f"constant({trips})" if trips is not None else "parameter(1)"
    return f"""HloModule m, num_partitions=4

%body (p: (s32[], s32[])) -> (s32[], s32[]) {{
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
{chr(10).join(body)}
  ROOT %t = (s32[], s32[]) tuple(%next, %n)
}}

%condition (q: (s32[], s32[])) -> pred[] {{
  %q = (s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %m = s32[] get-tuple-element(%q), index=1
  ROOT %c = pred[] compare(%j, %m), direction=LT
}}

ENTRY %main (x: s32[]) -> s32[] {{
  %zero = s32[] constant(0)
  %bound = s32[] {bound}
  %state = (s32[], s32[]) tuple(%zero, %bound)
{chr(10).join(before)}
  %loop = (s32[], s32[]) while(%state), condition=%condition, body=%body
{chr(10).join(after)}
  ROOT %out = s32[] get-tuple-element(%loop), index=0
}}
"""


@pytest.mark.parametrize("known", [3, None])
def test_a_loop_takes_its_body_as_often_as_it_runs(known):
    told = timing(loop(known, start(2, Y), work(1), done(2)), trips=3)
    assert told.seconds == NEAR(3 * 2) and told.exposed.total() == told.hidden.total() == NEAR(3)


@pytest.mark.parametrize("inside,total", [(Y, 6), (X, 4)])
def test_what_runs_behind_a_loop_holds_its_links_meanwhile(inside, total):
    """Three seconds around four iterations of one second each: behind all of them, or in front of the first."""
    told = timing(loop(4, gather(1, inside, "h"), before=[start(2, Y)], after=[done(2)]))
    assert told.seconds == NEAR(total) and told.links.total() == NEAR(6)


FUSIONS = """HloModule m, num_partitions=4

%begin (p: s8[2]) -> (s8[2], s8[4], s32[2]) {
  %p = s8[2] parameter(0)
  %gather.1 = s8[4] all-gather(%p), channel_id=5, replica_groups={{0,1},{2,3}}, dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %begun = (s8[2], s8[4], s32[2]) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%behind (q: s8[2], x: f32[1,3], y: f32[3,1]) -> (f32[1,1], s8[2], s8[4]) {
  %q = s8[2] parameter(0)
  %x = f32[1,3] parameter(1)
  %y = f32[3,1] parameter(2)
  %product = f32[1,1] dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %gather.2 = s8[4] all-gather(%q), channel_id=5, replica_groups={{0,1},{2,3}}, dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %both = (f32[1,1], s8[2], s8[4]) tuple(%product, %q, %gather.2)
}

%finish (o: s8[2]) -> s8[4] {
  %o = s8[2] parameter(0)
  %gather.3 = s8[4] all-gather(%o), channel_id=5, replica_groups={{0,1},{2,3}}, dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %ended = s8[4] custom-call(%o, %gather.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: s8[2], b: f32[1,3], c: f32[3,1]) -> s8[4] {
  %a = s8[2] parameter(0)
  %b = f32[1,3] parameter(1)
  %c = f32[3,1] parameter(2)
  %started = (s8[2], s8[4], s32[2]) fusion(%a), kind=kCustom, calls=%begin
  %own = s8[2] get-tuple-element(%started), index=0
  %meanwhile = (f32[1,1], s8[2], s8[4]) fusion(%own, %b, %c), kind=kOutput, calls=%behind
  %still = s8[2] get-tuple-element(%meanwhile), index=1
  ROOT %out = s8[4] fusion(%still), kind=kCustom, calls=%finish
}
"""  # noqa: E501


def test_fusions_that_carry_a_collective_hide_it():
    told = timing(FUSIONS)
    assert told.seconds == NEAR(3) and told.hidden == {("all-gather", "y"): NEAR(2)} and not told.exposed.total()
    idle = timing(FUSIONS.replace("[1,3]", "[1,1]").replace("[3,1]", "[1,1]"))
    assert idle.seconds == NEAR(2) and idle.exposed.total() == NEAR(1)
    without_end = timing(FUSIONS.replace("AsyncCollectiveDone", "Other"))
    assert without_end.seconds == NEAR(5) and without_end.exposed.total() == NEAR(2)


def test_a_wrapped_collective_runs_until_the_end_of_its_wrapper():
    wrapped = computation("%wrapped", gather(2, Y))
    lines = (
        "  %s = ((s32[]), s32[], u32[]) async-start(%p), calls=%wrapped",
        "  %u = ((s32[]), s32[], u32[]) async-update(%s)",
        work(1),
        "  %e = s32[] async-done(%u)",
    )
    told = timing("\n".join(["HloModule m, num_partitions=4", "", *wrapped, *computation("ENTRY %main", *lines)]))
    assert told.seconds == NEAR(2) and told.exposed.total() == told.hidden.total() == NEAR(1)


def test_calls_and_all_branches_of_conditionals_run():
    branches = [*computation("%yes", work(2)), *computation("%no", gather(1, Y)), *computation("%other", work(4))]
    lines = (
        "  %c = s32[] conditional(%p, %p, %p), branch_computations={%yes, %no}",
        "  %d = s32[] call(%p), to_apply=%other",
    )
    told = timing("\n".join(["HloModule m, num_partitions=4", "", *branches, *computation("ENTRY %main", *lines)]))
    assert told.seconds == NEAR(7) and told.exposed.total() == NEAR(1)


SLOW = Chip("test", (), peak_flops=2 / MATMUL_SHARE, hbm_bandwidth=4.0, link_bandwidth=1.0, torus=2, wrap=16)


def copied(bytes_, *between):
    begin = f"  %c.a = s8[{bytes_}] parameter(3)\n  %c = (s8[{bytes_}]{{0:S(1)}}, s8[{bytes_}], u32[]{{:S(2)}})"
    return entry(f"{begin} copy-start(%c.a)", *between, f"  %c.end = s8[{bytes_}]{{0:S(1)}} copy-done(%c)")


def test_an_instruction_takes_the_longer_of_matmuls_and_memory_and_copies_fill_its_gaps():
    """Four bytes/s; a dot over k reads 8 k bytes and writes 4: 2 k + 1 s of memory beside k s of matmuls."""
    alone = timing(entry(work(3)), chip=SLOW)
    fixed = 2 * 4 / 4  # of the result, that every program here copies: read and written
    assert alone.seconds == NEAR(7 + fixed) and alone.hbm == NEAR(alone.seconds)
    assert timing(copied(8, work(3)), chip=SLOW).seconds == NEAR(7 + 2 + fixed)  # nothing to hide behind
    waits = timing(copied(8, gather(5, Y)), chip=SLOW)  # 5 s of links, 3.75 s of memory
    assert waits.seconds == NEAR(5 + 0.75 + fixed) and waits.exposed.total() == NEAR(5)
    assert waits.hbm == NEAR((8 + 15) / 4 + fixed)


KERNEL = '  %attention.3 = f32[2] custom-call(%p), custom_call_target="tpu_custom_call"'


def test_a_kernel_takes_the_flops_and_leaves_out_the_bytes_that_the_caller_knows_of():
    assert timing(entry(KERNEL)).seconds < 0.1
    assert timing(entry(KERNEL), kernels={"attention": Kernel(flops=6.0)}).seconds == NEAR(3)
    whole, less = (timing(entry(KERNEL), chip=SLOW, kernels={"attention": Kernel(0, left)}).hbm for left in (0, -8))
    assert whole - less == NEAR(2)


@pytest.mark.parametrize("k,total", [(100, 100), (1, 5)])
def test_a_collective_takes_at_least_the_latency_of_its_hops(k, total):
    assert timing(entry(gather(k, Y)), hop_latency=5.0).seconds == NEAR(total)
    both = f"{{{{{','.join(map(str, range(8)))}}}}}"
    text = entry(f"  %o = s8[1] parameter(1)\n  %sum = s8[1] all-reduce(%o), replica_groups={both}")
    assert timing(text, mesh=slice_of(2, 4), hop_latency=5.0).seconds == NEAR(2 * (1 + 3) * 5)


def test_programs_of_the_compiler_move_what_is_counted(compiled):
    """Bytes in HBM and seconds on links are those of `counts`; the time lies between the bounds."""
    chip, mesh = chip_of("TPU v5 lite"), slice_of(2, 2)
    for name, module in compiled.modules.items():
        counts = count(module, 3)
        bounds = seconds(counts, 0.0, mesh, chip)
        told = Schedule(module, mesh, chip).timing(3, {})
        assert told.hbm == NEAR(bounds.hbm) and told.links.total() == NEAR(bounds.ici), name
        assert bounds.step_overlap * (1 - 1e-9) <= told.seconds <= bounds.step_no_overlap * (1 + 1e-9), name
        assert (told.exposed.total() > 0) == (name == "collectives")
