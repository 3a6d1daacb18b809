"""The real tensorrt package has every name that is used; skipped where it is not installed."""

import pytest

from polc_runtime.backends.tensorrt.api import import_tensorrt, is_strongly_typed, make_logger
from polc_runtime.errors import BackendUnavailable

ALWAYS = {
    "": "Builder ILogger OnnxParser Runtime float16 float32 get_plugin_registry",
    "BuilderFlag": "TF32",
    "EngineInspector": "execution_context get_engine_information",
    "IBuilderConfig": "add_optimization_profile clear_flag create_timing_cache get_timing_cache "
    "profiling_verbosity set_flag set_memory_pool_limit set_tactic_sources set_timing_cache",
    "ICudaEngine": "create_engine_inspector get_tensor_mode get_tensor_name num_io_tensors",
    "IExecutionContext": "active_optimization_profile execute_async_v3 get_tensor_shape nvtx_verbosity "
    "set_input_shape set_optimization_profile_async set_tensor_address",
    "ILayer": "get_input get_output name num_inputs num_outputs type",
    "INetworkDefinition": "get_layer num_layers",
    "IOptimizationProfile": "set_shape",
    "IPluginRegistry": "load_library",
    "ITensor": "dtype is_shape_tensor",
    "LayerInformationFormat": "JSON",
    "LayerType": "CAST CONSTANT NORMALIZATION REDUCE SHAPE SOFTMAX",
    "MemoryPoolType": "WORKSPACE",
    "OnnxParser": "get_error num_errors parse",
    "ProfilingVerbosity": "DETAILED NONE",
    "TacticSource": "EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
    "TensorIOMode": "INPUT OUTPUT",
}
BEFORE_10 = {
    "BuilderFlag": "FP16 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS",
    "ICudaEngine": "create_execution_context_without_device_memory device_memory_size",
    "IExecutionContext": "device_memory",
    "ILayer": "precision reset_output_type reset_precision set_output_type",
    "IPluginRegistry": "plugin_creator_list",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH",
    "PreviewFeature": "PROFILE_SHARING_0806",
}
FROM_10 = {
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "ICudaEngine": "create_execution_context",
    "IPluginRegistry": "all_creators",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
}


@pytest.fixture(scope="module")
def trt():
    try:
        return import_tensorrt()
    except BackendUnavailable as error:
        pytest.skip(str(error))


def missing(trt, names):
    for owner, members in names.items():
        found = getattr(trt, owner, None) if owner else trt
        yield from (f"{owner}.{name}" for name in members.split() if not hasattr(found, name))


def test_every_name_that_is_used_is_there(trt):
    versioned = FROM_10 if is_strongly_typed(trt.__version__) else BEFORE_10
    assert [*missing(trt, ALWAYS), *missing(trt, versioned)] == []


def test_a_logger_hands_on_what_it_is_told(trt):
    told = []
    logger = make_logger(trt, lambda severity, text: told.append((severity, text)))
    logger.log(trt.ILogger.Severity.WARNING, "something")
    assert told == [("WARNING", "something")]
