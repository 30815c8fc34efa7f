"""The whole's progress: nodes weighed and folded, never falling, whole only at the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.progress import ALMOST, MAX_UNKNOWN_NODES, RunProgress
from reverie_comfy_bridge.run.weights import NodeTimes, weigh
from reverie_comfy_bridge.wire.frames import NodeProgress
from reverie_protocol.jobs import ComfyNode, ComfyNodeState, ComfyRun

GRAPH = Graph.read(
    {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "a"},
            "_meta": {"title": "Model"},
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
        "3": {"class_type": "KSampler", "inputs": {"steps": 20, "model": ["1", 0], "positive": ["2", 0]}},
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }
)


def states(progress: RunProgress) -> dict[str, ComfyNodeState]:
    return {node.id: node.state for node in progress.nodes(0.0)}


def running(node: str, value: float = 0.0, maximum: float = 1.0, display: str = "") -> NodeProgress:
    return NodeProgress(node, "running", value, maximum, display or node)


def finished(node: str, display: str = "") -> NodeProgress:
    return NodeProgress(node, "finished", 1.0, 1.0, display or node)


# --- the graph ---


def test_a_graph_knows_links_titles_and_where_it_ends() -> None:
    assert set(GRAPH.nodes["3"].sources) == {"1", "2"}
    assert GRAPH.ends == {"5", "6"}
    assert GRAPH.needed_for(["5"]) == {"1", "2", "3", "4", "5"}
    assert GRAPH.needed_for(["5"], done={"3"}) == {"1", "4", "5"}
    assert GRAPH.title_of("1") == "Model"
    assert GRAPH.title_of("3") == "KSampler"
    assert GRAPH.title_of("99") == "99"


def test_a_senseless_graph_is_read_as_far_as_it_goes() -> None:
    graph = Graph.read(
        {"1": None, "2": {"inputs": {"a": ["1", 0], "b": ["9", 0], "c": [1, 2, 3], "d": ["2", 0]}}, "3": []}
    )
    assert graph.nodes["2"].sources == ("1", "2")
    assert graph.needed_for(["2", "nowhere"]) == {"1", "2"}


def test_ids_made_by_expansion_fold_to_the_node_they_come_from() -> None:
    graph = Graph.read({"1": {}, "12:5": {}, "1.0": {}})
    assert [graph.fold(id) for id in ("1", "1.0.0.2", "12:5.0.1", "7.1")] == ["1", "1.0", "12:5", "7.1"]


# --- weights ---


def test_a_sampler_weighs_as_much_as_it_has_steps_and_its_scheduler_little() -> None:
    weights = weigh(GRAPH)
    assert weights["3"] == 20
    assert weights["1"] > weights["4"] > weights["2"] > weights["5"]
    custom = weigh(
        Graph.read(
            {
                "1": {"class_type": "BasicScheduler", "inputs": {"steps": 30}},
                "2": {"class_type": "SamplerCustomAdvanced", "inputs": {"sigmas": ["1", 0]}},
                "3": {"class_type": "KSamplerAdvanced", "inputs": {"steps": 30, "start_at_step": 20}},
                "4": {"class_type": "KSampler", "inputs": {"steps": ["1", 0]}},
                "5": {"class_type": "KSampler", "inputs": {"steps": -5}},
                "6": {"class_type": "RecLoop", "inputs": {"steps": 10**9}},
            }
        )
    )
    assert custom["1"] < 1
    assert (custom["2"], custom["3"]) == (30, 10)
    assert custom["4"] == 30
    assert custom["5"] > 1
    assert custom["6"] == 10_000


def run_with(**seconds: float) -> ComfyRun:
    nodes = (ComfyNode(id[1:], state=ComfyNodeState.FINISHED, seconds=value) for id, value in seconds.items())
    return ComfyRun("one", nodes=tuple(nodes))


def test_measured_times_replace_guesses_and_scale_with_the_steps() -> None:
    times = NodeTimes()
    assert times.weights("w", GRAPH) == weigh(GRAPH)
    times.learn("w", GRAPH, run_with(n1=8.0, n3=2.0, n4=1.0))
    weights = times.weights("w", GRAPH)
    assert (weights["1"], weights["3"], weights["4"]) == pytest.approx((8.0, 2.0, 1.0))
    longer = Graph.read({"3": {"class_type": "KSampler", "inputs": {"steps": 40}}})
    assert times.weights("w", longer)["3"] == pytest.approx(4.0)
    assert times.weights("another", GRAPH) == weigh(GRAPH)


def test_a_newer_run_counts_half() -> None:
    times = NodeTimes()
    times.learn("w", GRAPH, run_with(n1=8.0))
    times.learn("w", GRAPH, run_with(n1=4.0))
    assert times.weights("w", GRAPH)["1"] == pytest.approx(6.0)


def test_cached_nodes_teach_nothing_and_nodes_of_another_class_are_new() -> None:
    times = NodeTimes()
    cached = ComfyRun("one", nodes=(ComfyNode("1", state=ComfyNodeState.CACHED),))
    times.learn("w", GRAPH, cached)
    assert times.weights("w", GRAPH) == weigh(GRAPH)
    times.learn("w", GRAPH, run_with(n1=8.0))
    other = Graph.read({"1": {"class_type": "KSampler", "inputs": {"steps": 3}}})
    assert times.weights("w", other) == weigh(other)


def test_runs_without_measurable_times_leave_the_guesses() -> None:
    times = NodeTimes()
    times.learn("w", GRAPH, run_with(n1=0.0, n2=0.0))
    assert times.weights("w", GRAPH) == weigh(GRAPH)


def test_times_are_kept_of_so_many_workflows() -> None:
    times = NodeTimes(workflows=2)
    for workflow in ("a", "b"):
        times.learn(workflow, GRAPH, run_with(n1=8.0))
    times.learn("a", GRAPH, run_with(n1=8.0))
    times.learn("c", GRAPH, run_with(n1=8.0))
    assert times.weights("a", GRAPH) != weigh(GRAPH)
    assert times.weights("b", GRAPH) == weigh(GRAPH)


# --- progress ---


def test_before_progress_state_a_node_is_done_when_the_next_begins() -> None:
    progress = RunProgress(GRAPH)
    progress.begin("1", 0.0)
    progress.begin("2", 3.0)
    assert states(progress) == {"1": ComfyNodeState.FINISHED, "2": ComfyNodeState.RUNNING}
    assert progress.current == ("2",)
    assert [node.seconds for node in progress.nodes(4.5)] == [3.0, 1.5]


def test_with_progress_state_nodes_run_at_once_until_it_says_otherwise() -> None:
    progress = RunProgress(GRAPH)
    progress.take_states([running("1")], 0.0)
    progress.begin("1", 0.0)
    progress.take_states([running("1"), running("2")], 1.0)
    progress.begin("2", 1.0)
    assert progress.current == ("2", "1")
    progress.take_states([finished("1"), running("2")], 3.0)
    assert progress.current == ("2",)
    assert progress.nodes(3.0)[0].seconds == 3.0


def test_a_stale_state_does_not_make_a_finished_node_run_again() -> None:
    progress = RunProgress(GRAPH)
    progress.take_states([finished("1"), finished("2")], 1.0)
    before = progress.fraction
    progress.take_states([running("1", 1, 4)], 2.0)
    assert progress.current == ()
    assert progress.fraction == before


def test_the_sampler_fills_its_share_evenly() -> None:
    progress = RunProgress(GRAPH)
    progress.begin("3", 0.0)
    seen = []
    for step in range(1, 21):
        progress.advance("3", float(step), 20.0, 0.0)
        seen.append(progress.fraction)
    steps = [later - earlier for earlier, later in pairwise(seen)]
    assert max(steps) == pytest.approx(min(steps))
    assert progress.step_of("3") == (20, 20)


def test_skipped_and_repeated_values_never_take_progress_back() -> None:
    progress = RunProgress(GRAPH)
    for value in (1.0, 9.0, 4.0, 9.0):
        progress.advance("3", value, 20.0, 0.0)
    assert progress.nodes(0.0)[0].progress == 0.45
    assert progress.step_of("3") == (9, 20)


def test_values_without_sense_leave_the_progress_as_it_is() -> None:
    progress = RunProgress(GRAPH)
    progress.advance("3", 5.0, 20.0, 0.0)
    for value, maximum in ((None, 20.0), (7.0, None), (-3.0, 20.0), (7.0, 0.0), (7.0, -2.0)):
        progress.advance("3", value, maximum, 0.0)
    assert progress.step_of("3") == (5, 20)
    assert progress.nodes(0.0)[0].progress == 0.25


def test_counts_beyond_all_steps_are_not_told_as_steps() -> None:
    progress = RunProgress(GRAPH)
    progress.advance("3", 1.8e37, 3.6e38, 0.0)
    assert progress.step_of("3") == (0, 0)
    assert progress.nodes(0.0)[0].progress == pytest.approx(0.05)


def test_what_is_cached_is_not_waited_for() -> None:
    progress = RunProgress(GRAPH)
    progress.cache(["1", "2", "3"], 0.0)
    assert progress.fraction == 0.0
    progress.take_states([finished("4")], 1.0)
    assert progress.fraction == pytest.approx(3 / 4)
    assert states(progress)["3"] is ComfyNodeState.CACHED


def test_only_the_asked_outputs_count() -> None:
    progress = RunProgress(GRAPH)
    progress.cache(["1", "2", "3", "4"], 0.0)
    progress.expect(["5", "not in the graph"])
    progress.take_states([finished("5")], 1.0)
    assert progress.fraction == ALMOST
    assert progress.snapshot("i", "p", "c", 1.0).nodes_total == 5


def test_a_node_made_by_expansion_moves_the_one_a_person_sees() -> None:
    graph = Graph.read(
        {"1": {"class_type": "Expands"}, "2": {"class_type": "SaveImage", "inputs": {"i": ["1", 0]}}}
    )
    progress = RunProgress(graph)
    progress.take_states([running("1")], 0.0)
    assert progress.fraction == 0.0
    progress.take_states([running("1"), running("1.0.0.1", 2, 4, "1")], 1.0)
    some = progress.fraction
    progress.take_states([running("1"), finished("1.0.0.1", "1"), running("1.0.0.2", 0, 1, "1")], 2.0)
    more = progress.fraction
    progress.take_states([finished("1"), finished("1.0.0.1", "1"), finished("1.0.0.2", "1")], 3.0)
    assert 0 < some < more < progress.fraction == 0.5
    assert states(progress) == {"1": ComfyNodeState.FINISHED}


def test_a_node_whose_display_node_is_only_told_by_executing_is_folded_too() -> None:
    graph = Graph.read({"7": {"class_type": "Expands"}})
    progress = RunProgress(graph)
    progress.begin("odd-id", 0.0, "7")
    progress.advance("odd-id", 1.0, 2.0, 1.0)
    assert states(progress) == {"7": ComfyNodeState.RUNNING}
    assert progress.step_of("7") == (1, 2)


def test_unknown_nodes_are_told_of_but_not_without_end() -> None:
    progress = RunProgress(GRAPH)
    for number in range(1000):
        progress.take_states([running(f"x{number}")], 0.0)
    assert len(progress.nodes(0.0)) <= len(GRAPH.nodes) + MAX_UNKNOWN_NODES


def test_a_cached_node_that_runs_after_all_is_shown_running() -> None:
    progress = RunProgress(GRAPH)
    progress.cache(["4"], 0.0)
    progress.take_states([running("4")], 1.0)
    assert progress.current == ("4",)


def test_a_failure_leaves_the_fraction_and_says_where() -> None:
    progress = RunProgress(GRAPH)
    progress.begin("1", 0.0)
    progress.begin("3", 1.0)
    before = progress.fraction
    progress.fail("3", 2.0)
    progress.stop(2.0)
    assert progress.fraction == before
    assert states(progress) == {"1": ComfyNodeState.FINISHED, "3": ComfyNodeState.FAILED}


NODES = st.sampled_from(["1", "2", "3", "4", "5", "6", "3.0.1", "4.1", "strange"])
VALUES = (
    st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-3, 30).map(float)
)
STATES = st.builds(
    NodeProgress, NODES, st.sampled_from(["running", "finished", "error", "pending"]), VALUES, VALUES, NODES
)
MOVES = st.one_of(
    st.tuples(st.just("begin"), NODES, NODES),
    st.tuples(st.just("advance"), NODES, VALUES, VALUES),
    st.tuples(st.just("take_states"), st.lists(STATES, max_size=4)),
    st.tuples(st.just("cache"), st.lists(NODES, max_size=3)),
    st.tuples(st.just("expect"), st.lists(NODES, max_size=3)),
    st.tuples(st.just("produce"), NODES),
    st.tuples(st.just("fail"), NODES),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(MOVES, max_size=20))
def test_whatever_comes_in_whatever_order_the_whole_only_rises(moves: list[tuple[object, ...]]) -> None:
    progress = RunProgress(GRAPH)
    last = 0.0
    for now, (name, *arguments) in enumerate(moves):
        at = float(now)
        match name, arguments:
            case "begin", [str(node), str(display)]:
                progress.begin(node, at, display)
            case "advance", [str(node), value, maximum]:
                progress.advance(node, value, maximum, at)  # type: ignore[arg-type]  # drawn as numbers or None
            case "expect", [list(nodes)]:
                progress.expect(nodes)
            case _:
                getattr(progress, str(name))(*arguments, at)
        assert last <= progress.fraction <= ALMOST
        last = progress.fraction
        for node in progress.snapshot("i", "p", "c", at).nodes:
            assert 0.0 <= node.progress <= 1.0
            assert node.seconds >= 0.0
    progress.succeed(100.0)
    assert progress.fraction == 1.0
    assert progress.current == ()
