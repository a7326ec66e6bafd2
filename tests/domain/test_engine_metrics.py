from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.engine_metrics import ENGINES, EngineSample, engine_sample

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 61.0
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 12.0
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.83
vllm:num_preemptions_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 3.0
vllm:num_preemptions_created{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.7e+09
"""
VLLM_OLD = """\
vllm:num_requests_running{model_name="m"} 8.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:cpu_cache_usage_perc{model_name="m"} 0.99
vllm:num_preemptions_total{model_name="m"} 0.0
"""
VLLM_TWO_REPLICAS = """\
vllm:num_requests_running{engine="0"} 10
vllm:num_requests_running{engine="1"} 20
vllm:num_requests_waiting{engine="0"} 1
vllm:num_requests_waiting{engine="1"} 2
vllm:kv_cache_usage_perc{engine="0"} 0.4
vllm:kv_cache_usage_perc{engine="1"} 0.7
"""
SGLANG = """\
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m",tp_rank="0",pp_rank="0"} 0.28
sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="0"} 5.0
sglang:num_running_reqs{model_name="m",tp_rank="1",pp_rank="0"} 5.0
sglang:num_queue_reqs{model_name="m",tp_rank="0",pp_rank="0"} 2.0
sglang:num_retracted_reqs{model_name="m",tp_rank="0",pp_rank="0"} 1.0
sglang:num_retracted_requests_total{model_name="m",tp_rank="0",pp_rank="0"} 4.0
"""
TGI = """\
# TYPE tgi_queue_size gauge
tgi_queue_size 7
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 32
tgi_request_duration_bucket{le="0.01"} 0
"""
TEI = 'te_queue_size 4\nte_batch_next_size_sum 9\nte_request_count{method="batch"} 12\n'
TOOLKIT = "inf_batch_current_size 1\ninf_queue_size 3\n"
LLAMA = "llamacpp:requests_processing 4\nllamacpp:requests_deferred 9\nllamacpp:kv_cache_usage_ratio 0.5\n"


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        (VLLM, EngineSample(0.83, 12, 61, 3)),
        (VLLM_OLD, EngineSample(0.25, 0, 8, 0)),
        (VLLM_TWO_REPLICAS, EngineSample(0.7, 3, 30, None)),
        (SGLANG, EngineSample(0.28, 2, 5, 4)),
        (TGI, EngineSample(None, 7, 32, None)),
        (TEI, EngineSample(None, 4, None, None)),
        (TOOLKIT, EngineSample(None, 3, 1, None)),
        (LLAMA, EngineSample(0.5, 9, 4, None)),
    ],
    ids=["vllm", "vllm before 0.10", "vllm, two replicas", "sglang", "tgi", "tei", "toolkit", "llama.cpp"],
)
def test_the_metrics_of_each_server_are_read(text: str, sample: EngineSample) -> None:
    assert engine_sample(text) == sample


def test_metrics_of_unknown_servers_give_no_sample() -> None:
    assert engine_sample("process_cpu_seconds_total 3\n") is None
    assert engine_sample("<html>Not Found</html>") is None


def test_labels_may_contain_anything_and_a_timestamp_may_follow() -> None:
    text = 'te_queue_size{path="/a}b",quote="say \\"5\\" 6"} 2 1712345678901\r\n'
    assert engine_sample(text) == EngineSample(waiting=2)


def test_invalid_values_are_ignored() -> None:
    text = "vllm:num_requests_waiting 1\nvllm:num_requests_running NaN\nvllm:kv_cache_usage_perc +Inf\n"
    assert engine_sample(text) == EngineSample(waiting=1)


def test_a_cache_use_above_one_counts_as_full() -> None:
    assert engine_sample("vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 1.02") == EngineSample(1.0, None, 1)


_NAMES = [name for names in ENGINES.values() for name in (*names.kv_use, *names.waiting, *names.running)]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=80),
            st.builds(
                lambda name, labels, value: f"{name}{labels} {value}",
                st.sampled_from(_NAMES),
                st.text(max_size=20),
                st.one_of(st.floats(), st.text(max_size=5)),
            ),
        ),
        max_size=12,
    )
)
def test_any_text_is_accepted_and_every_sample_is_plausible(lines: list[str]) -> None:
    sample = engine_sample("\n".join(lines))
    if sample is not None:
        assert sample.kv_use is None or 0 <= sample.kv_use <= 1
        assert all(value is None or value >= 0 for value in (sample.waiting, sample.running, sample.preemptions))
